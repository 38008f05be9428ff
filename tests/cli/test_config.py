"""Recipes: a file's values are defaults, the command line wins, and a mistake is named."""

import dataclasses
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from hf_geo.cli.config import parse_command_line
from hf_geo.cli.options import OptionParser
from hf_geo.cli.preflight import check_options
from hf_geo.cli.recipes import read_recipe
from hf_geo.cli.run_arguments import RUN_ARGUMENTS
from hf_geo.cli.sections import HEADINGS, HIDDEN, MOST_NEEDED, NEEDED
from hf_geo.data.config import DataArguments
from hf_geo.models.config import ModelArguments
from hf_geo.tasks import COMMON_OPTIONS, TASKS
from tests.recipes.every import FILES


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def parse(*words: str | Path):
    return parse_command_line(RUN_ARGUMENTS, [str(word) for word in words])


def test_the_command_line_wins(tmp_path) -> None:
    write(tmp_path, a="model: resnet18\ndataset: digits\nlearning_rate: 1e-3\nmax_steps: 7\nhub_model_id: null\n")
    model, data, *_, args, chosen = parse("--config", tmp_path / "a.yaml", "--max_steps", "9")
    assert (model.model, data.dataset, args.learning_rate, args.max_steps) == ("resnet18", "digits", 1e-3, 9)
    assert chosen.config == str(tmp_path / "a.yaml")


def test_nothing_else_is_read(tmp_path, monkeypatch) -> None:
    """transformers would read options from a file beside the script."""
    (tmp_path / "train.args").write_text("--seed 7")
    monkeypatch.setattr("sys.argv", [str(tmp_path / "train.py")])
    *_, args, chosen = parse("--optim", "sgd")
    assert args.seed == 42 and chosen.given == {"optim"}


def test_bases_and_variants(tmp_path) -> None:
    derived = "base: base.yaml\nseed: 2\nvariants:\n  high: {seed: 3, optim: fromage}"
    write(tmp_path, base="optim: sgd\nseed: 1\nvariants: {low: {seed: 0}}", a=derived)
    assert read_recipe(tmp_path / "a.yaml") == {"optim": "sgd", "seed": 2}
    assert read_recipe(tmp_path / "a.yaml", "high") == {"optim": "fromage", "seed": 3}
    assert read_recipe(tmp_path / "a.yaml", "low") == {"optim": "sgd", "seed": 0}


MEANT = [
    ("eval_strategy: no", "eval_strategy", "no"),
    ("logging_strategy: NO", "logging_strategy", "no"),
    ("dataset: off", "dataset", "off"),
    ("dataset_config: 1.10", "dataset_config", "1.10"),
    ("dataset_config: 010", "dataset_config", "010"),
    ("dataset_config: 2020-01-01", "dataset_config", "2020-01-01"),
    ("label_names: [no, On, 1.10]", "label_names", ["no", "On", "1.10"]),
    ("load_best_model_at_end: no", "load_best_model_at_end", False),
    ("disable_tqdm: ON", "disable_tqdm", True),
    ("seed: 0x10", "seed", 16),
    ("max_train_samples: 1_000", "max_train_samples", 1000),
    ("learning_rate: 1e-3", "learning_rate", 1e-3),
    ("milestones: [1e0, 2]", "milestones", [1.0, 2.0]),
    ("lr_scheduler_kwargs: {last: no, rates: [1e-3, 'off']}", "lr_scheduler_kwargs", {"last": False, "rates": [1e-3, "off"]}),
    ("include_for_metrics: [loss, inputs]", "include_for_metrics", ["loss", "inputs"]),
    ("accelerator_config: {split_batches: off}", "accelerator_config", {"split_batches": False}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "option", "value"), MEANT, ids=[text for text, *_ in MEANT])
def test_a_word_is_what_its_option_takes(tmp_path, text: str, option: str, value) -> None:
    """YAML reads no, off and on as truth values, 010 as 8 and 1e-3 as text; the variant's name is a word too."""
    write(tmp_path, a=f"variants:\n  on: {{{text}}}")
    namespace = {}
    for settings in parse("--config", tmp_path / "a.yaml", "--variant", "on")[:-1]:
        namespace |= vars(settings)
    found = namespace[option]
    found = found if isinstance(found, dict | list) or not isinstance(value, dict) else vars(found)
    assert {key: found[key] for key in value} == value if isinstance(value, dict) else found == value
    assert isinstance(value, dict) or type(getattr(found, "value", found)) is type(value)


def test_smoke_is_short(tmp_path) -> None:
    write(tmp_path, a="max_steps: 1000")
    _, data, *_, args, _ = parse("--config", tmp_path / "a.yaml", "--smoke", "--logging_steps", "2")
    assert (args.max_steps, data.max_train_samples, args.logging_steps) == (3, 64, 2)


WRONG = [
    ("learning_rte: 1", "a.yaml: unknown option 'learning_rte'; did you mean 'learning_rate'"),
    ("- 1\n- 2", "holds no mapping"),
    ("", "holds no mapping"),
    ("a: [1", "is not YAML"),
    ("[a, b]: c", "found unhashable key"),
    ("lr_scheduler_kwargs: &x {a: *x}", "'lr_scheduler_kwargs' takes a mapping of names"),
    ("lr: 0.1", "unknown option 'lr'; did you mean 'learning_rate'?"),
    ("base: gone.yaml", r"gone.yaml' cannot be read \(No such file or directory\): give the path"),
    ("base: a.yaml", "a.yaml -> a.yaml"),
    ("base: [b.yaml]", r"`base` is the name of another config file, not \['b.yaml'\]"),
    ("config: b.yaml", "unknown option 'config': a recipe names the one it builds on with `base: FILE`"),
    ("variant: x", "unknown option 'variant': give --variant on the command line"),
    ("smoke: true", "unknown option 'smoke': give --smoke on the command line"),
    ("seed: 1\nseed: 2", "the key 'seed' is given twice"),
    ("learning_rate: [1, 2]", r"'learning_rate' takes one value, not \[1, 2\]"),
    ("model: {a: b}", "'model' takes no mapping, not {'a': 'b'}"),
    ("model: !!binary aGk=", "'model' takes a number, text"),
    ("label_names: [[a]]", "'label_names' takes a list of numbers or text"),
    ("lr_scheduler_kwargs: {a: 2020-01-01}", "'lr_scheduler_kwargs' takes a mapping of names to numbers"),
    ("a: " + "[" * 3000, "it is nested too deeply"),
    ("model: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ("variants: 3", "variant 'variants' is not a mapping"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text.replace("\n", " ")[:40] for text, _ in WRONG])
def test_wrong_files(tmp_path, text: str, message: str) -> None:
    write(tmp_path, a=text)
    with pytest.raises(ValueError, match=message):
        parse("--config", tmp_path / "a.yaml")


def test_missing_file_and_unknown_variant(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        parse("--config", tmp_path / "gone" / "quick_start.yaml")
    assert "quick_start.yaml': did you mean quickstart or " in capsys.readouterr().err
    write(tmp_path, a="variants: {x: {seed: 1}, y: {seed: 2}}")
    with pytest.raises(ValueError, match="no variant 'z': it has x, y"):
        parse("--config", tmp_path / "a.yaml", "--variant", "z")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optm", "sgd"], "unknown option --optm: did you mean --optim?"),
        (["--lr", "0.1"], "unknown option --lr: did you mean --learning_rate?"),
        (["--lr=0.1"], "unknown option --lr=0.1: did you mean --learning_rate?"),
        (["--batch-size", "8"], "unknown option --batch-size: did you mean --per_device_train_batch_size or"),
        (["--epochs", "3"], "did you mean --num_train_epochs?"),
        (["--model_name_or_path", "x"], "did you mean --model?"),
        (["--learning", "0.1"], "unknown option --learning: did you mean --learning_rate?"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--variant", "x"], "give --config too"),
        (["stray"], "unknown option stray"),
        (["--gamma", "0.5"], "--gamma changes nothing without --milestones: give that too, or leave --gamma out"),
        (
            ["--top_k", "3"],
            "--top_k changes nothing with --loss cross-entropy: give --loss smooth-top-k or truncated-top-k, or leave --top_k out",
        ),
        (
            ["--warmup_steps", "9", "--lr_scheduler_type", "constant"],
            "--warmup_steps changes nothing with --lr_scheduler_type constant: give another, such as constant_with_warmup, or",
        ),
        (
            ["--augmentation", "none", "--crop_shift", "2"],
            "--crop_shift changes nothing with --augmentation none: give",
        ),
    ],
)
def test_wrong_words_end_with_status_2(words: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(*words)
    assert raised.value.code == 2 and message in capsys.readouterr().err


def test_what_a_variant_makes_idle_is_no_mistake(tmp_path) -> None:
    write(
        tmp_path,
        a="gamma: 0.5\nmilestones: [1]\ncrop_shift: 2\nvariants: {plain: {milestones: null, augmentation: none}}",
    )
    *_, args, chosen = parse("--config", tmp_path / "a.yaml", "--variant", "plain")
    assert (args.gamma, args.milestones) == (0.5, None)
    assert chosen.typed == {"config", "variant"} and "gamma" in chosen.given
    parse("--config", tmp_path / "a.yaml", "--gamma", "0.2")
    assert parse("--as_recipe", "--gamma", "0.2", "--top_k", "3")[-1].typed == set()


def test_an_option_of_another_task_is_refused_unless_it_keeps_its_default() -> None:
    for words, stray in (
        (("--lowercase", "true"), "lowercase"),
        (("--lowercase", "false", "--copy_bits", "4"), None),
        (("--streaming", "false", "--fid_protocol", "fromage"), "fid_protocol"),
        (("--label_noise_seed", "0", "--top_k", "5"), None),
    ):
        model, data, *_, chosen = parse("--loss", "smooth-top-k", *words)
        with pytest.raises(ValueError, match=f"--{stray} is not for image-classification") if stray else nullcontext():
            check_options(TASKS["image-classification"], chosen.typed, model, data)


def test_the_tables_of_options_name_options() -> None:
    fields = {field.name: field for kind in RUN_ARGUMENTS for field in dataclasses.fields(kind)}
    assert {*NEEDED, *(needed for needed, _ in NEEDED.values())} <= fields.keys()
    shared = {field.name for kind in (ModelArguments, DataArguments) for field in dataclasses.fields(kind)}
    assert COMMON_OPTIONS.union(*(task.options for task in TASKS.values())) == shared


def test_help_shows_defaults_that_say_something() -> None:
    parser = OptionParser(prog="x")
    for name, default in (("none", ()), ("switch", False), ("seed", 0), ("sizes", (1, 2))):
        parser.add_argument(f"--{name}", default=default, help=f"The {name}.")
    shown = [line.split(maxsplit=2)[2] for line in parser.format_help().splitlines() if "The " in line]
    assert shown == ["The none.", "The switch.", "The seed (default: 0).", "The sizes (default: 1 2)."]


def test_help_is_complete(capsys) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    fields = [field.name for kind in RUN_ARGUMENTS for field in dataclasses.fields(kind) if field.init]
    assert {name for name in fields if f"  --{name} " not in text} == HIDDEN & set(fields)
    assert "--no_" not in text and re.search(r"--\w+-\w+ [A-Z]", text) is None
    first, *rest = re.split(r"\n\n(?=[\w ,]+:\n  -)", text)[1:]
    assert re.findall(r"^  --(\w+)", first, re.M) == list(MOST_NEEDED) and len(MOST_NEEDED) == 10
    headings = [section.partition(":")[0] for section in rest]
    assert {*HEADINGS.values(), "Recipe", "Model", "Data", "Subspace", "Run"} <= set(headings)
    assert len(set(headings)) == len(headings)


def test_every_recipe_parses() -> None:
    """Its variants are built in `tests/recipes`."""
    for path in FILES:
        model, data, *_, args, _ = parse("--config", path, "--smoke")
        assert model.model and data.dataset and args.optim, path
        assert (args.max_steps, args.load_best_model_at_end) == (3, False), path
