"""What the methods compute on tensors, without an optimizer's state or settings."""
