"""How `--help` arranges the many options of a training run, and which of them change nothing, alone or at all."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

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
# Options that change nothing without another one, and the values of that one with which they do. Where none is named, any but
# the default does.
NEEDED = {
    "gamma": ("milestones", ()),
    "words_without_vector": ("word_vectors", ()),
    "top_k": ("loss", ("smooth-top-k", "truncated-top-k")),
    "loss_temperature": ("loss", ("smooth-top-k",)),
    "crop_shift": ("augmentation", ("crop", "crop-flip", "auto")),
    "crop_border": ("augmentation", ("crop", "crop-flip", "auto")),
    "color_jitter": ("augmentation", ("timm", "auto")),
    "columns": ("text_layout", ("stream", "auto")),
    "eval_columns": ("text_layout", ("stream", "auto")),
    "bptt": ("text_layout", ("stream", "auto")),
    "block_size": ("text_layout", ("blocks", "auto")),
}
# Schedules without a warm-up, which transformers passes over in silence.
WITHOUT_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
HIDDEN = WITHOUT_EFFECT | {
    "as_recipe", "label_names", "prediction_loss_only", "batch_eval_metrics", "eval_do_concat_batches",
}  # fmt: skip


def find_idle(options: Collection[str], values: Mapping[str, Any]) -> dict[str, str]:
    """Finds those of some options that change nothing without another one.

    Args:
        options: Names of options.
        values: The values of all options, those included that they need.

    Returns:
        For each of them, how that is and what to do, to go after "changes nothing".
    """
    idle = {}
    for option in sorted(NEEDED.keys() & set(options)):
        needed, effective = NEEDED[option]
        if not effective and not values[needed]:
            idle[option] = f"without --{needed}: give that too"
        elif effective and values[needed] not in effective:
            idle[option] = f"with --{needed} {values[needed]}: give --{needed} {' or '.join(effective)}"
    if "warmup_steps" in options and values["warmup_steps"] and not values["milestones"]:
        schedule = values["lr_scheduler_type"].value
        if schedule in WITHOUT_WARMUP and values["swa_schedule"] == "end":
            idle["warmup_steps"] = f"with --lr_scheduler_type {schedule}: give another, such as constant_with_warmup"
    return idle


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
