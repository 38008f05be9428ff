"""The end of a training: the weights and norm statistics that are evaluated and exported."""

from torch import Tensor

from .trainer import GeoTrainer


def finalize(trainer: GeoTrainer) -> Exception | None:
    """Gives the model its final weights and norm statistics; returns the error that kept it from taking the latter.

    Of several processes none can go on without the others' statistics: an error is raised there.
    """
    try:
        trainer.settle()
    except Exception as error:
        if trainer.args.world_size > 1:
            raise
        return error
    return None


def gather_weights(trainer: GeoTrainer) -> dict[str, Tensor]:
    """The whole weights of the plain network on every process; shards are gathered, so every process takes part."""
    if trainer.subspace:
        return trainer.subspace.folded_state_dict()
    state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state_dict.items()}  # if compiled
