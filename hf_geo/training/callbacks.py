"""What happens around a Trainer's epochs."""

from transformers import TrainerCallback


class TellEpoch(TrainerCallback):
    """Tells the training data which epoch begins, where it has `set_epoch`.

    transformers and accelerate do so themselves only for one process, and not in the epoch in which a run is resumed.
    """

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        if hasattr(train_dataloader.dataset, "set_epoch"):
            train_dataloader.dataset.set_epoch(int(state.epoch or 0))
