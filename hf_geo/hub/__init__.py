"""The Hub: export, model cards, push."""
