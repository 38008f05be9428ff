"""How `--help` arranges the many options of a training run: those that most runs need, then the rest by heading."""

from collections.abc import Iterable, Iterator, Sequence

FIRST = "Most used"
MOST_NEEDED = (
    "config", "model", "dataset", "optim", "learning_rate", "num_train_epochs", "per_device_train_batch_size", "subspace",
    "output_dir", "push_to_hub",
)  # fmt: skip
# transformers' fields have no headings: by the field that each begins with.
HEADINGS = {
    "output_dir": "Length of training",
    "learning_rate": "Learning rate",
    "optim": "Optimizer",
    "gradient_accumulation_steps": "Gradients and loss",
    "bf16": "Precision",
    "activation_checkpointing": "Speed and memory",
    "gradient_checkpointing": "Speed and memory",
    "logging_strategy": "Logging",
    "eval_strategy": "Evaluation during training",
    "save_only_model": "Checkpoints",
    "push_to_hub": "Hugging Face Hub",
    "load_best_model_at_end": "Best checkpoint",
    "ignore_data_skip": "Resuming",
    "full_determinism": "Seeds",
    "use_cpu": "Hardware",
    "dataloader_drop_last": "Data loading",
    "ddp_find_unused_parameters": "Several processes",
    "debug": "Debugging",
    "resume_from_checkpoint": "Resuming",
    "milestones": "Schedule, averages and geometry",
}
# Options of transformers that change nothing here, or with which a run could not be evaluated.
WITHOUT_EFFECT = {
    "do_train", "do_eval", "do_predict", "local_rank", "hub_revision", "average_tokens_across_devices", "remove_unused_columns",
}  # fmt: skip
HIDDEN = WITHOUT_EFFECT | {"label_names", "prediction_loss_only", "batch_eval_metrics", "eval_do_concat_batches"}


def arrange(groups: Iterable[tuple[str, Sequence]], first: Sequence[str]) -> Iterator[tuple[str, list]]:
    """Yields the headings of a help text with their actions.

    Args:
        groups: Titles of argparse's groups with their actions. Those of no group are divided by `HEADINGS`.
        first: Destinations of the actions that come before all others, in this order.
    """
    leading, rest = {}, {}
    for title, actions in groups:
        for action in actions:
            if title in ("options", "optional arguments", *HEADINGS.values()):
                title = HEADINGS.get(action.dest, title)
            if action.dest in first:
                leading[action.dest] = action
            elif action.dest not in HIDDEN:
                rest.setdefault(title, []).append(action)
    if leading:
        yield FIRST, [leading[name] for name in first if name in leading]
    yield from rest.items()
