"""Sweeps over a stand-in for train.py, which is quick and reaches what is known beforehand."""

import importlib.util
from pathlib import Path
from types import ModuleType

from tests.paths import REPOSITORY

# Accuracy falls by 0.2 for each power of ten between the learning rate and the optimizer's best one.
BEST = {"fromage": 0.01, "sgd": 0.1}
TRAIN = """
import json, math, os, signal, time
from pathlib import Path

def main(words):
    options = dict(word.lstrip("-").partition("=")[::2] for word in words)
    folder, optim, lr = Path(options["output_dir"]), options.get("optim") or options["variant"], float(options["learning_rate"])
    notes = Path(__file__).parent
    print("told:", optim, lr)
    with open(notes / "begun", "a") as file:
        file.write(f"{optim} {lr} {os.getpid()}\\n")
    if (optim, lr) == ("fromage", 1.0):
        raise ValueError("This does not\\nfit.")
    if (optim, lr) == ("sgd", 10.0):
        os.kill(os.getpid(), signal.SIGKILL)
    while (notes / "wait").exists() and optim == "sgd":
        time.sleep(0.1)
    accuracy = 0.9 - 0.2 * abs(math.log10(lr / {"fromage": 0.01, "sgd": 0.1}[optim])) + int(options.get("seed", 0)) / 100
    folder.mkdir(parents=True)
    loss = math.nan if (optim, lr) == ("sgd", 1.0) else 1 - accuracy
    results = {"eval_accuracy": accuracy, "eval_loss": loss, "test_accuracy": accuracy / 2, "test_loss": loss}
    (folder / "eval_results.json").write_text(json.dumps(results))
    trained = {"train_loss": 1 - accuracy, "train_runtime": 60.0, "hardware": "an abacus"}
    (folder / "train_results.json").write_text(json.dumps(trained))
    return 0
"""
QUICKSTART = REPOSITORY / "configs" / "quickstart.yaml"


def load(name: str) -> ModuleType:
    """`scripts/NAME.py` as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sweeps:
    """Sweeps of the quickstart into `folder`, with a train.py that is not."""

    def __init__(self, notes: Path) -> None:
        self.notes, self.folder = notes, notes / "sweep"
        (notes / "train.py").write_text(TRAIN)
        self.script = load("sweep")
        self.script.TRAIN = notes / "train.py"

    def __call__(self, *words: str) -> int:
        return self.script.main([f"--config={QUICKSTART}", f"--output_dir={self.folder}", *words])

    @property
    def begun(self) -> list[tuple[str, float]]:
        """The trials that were begun, in order."""
        lines = (self.notes / "begun").read_text().splitlines()
        return [(line.split()[0], float(line.split()[1])) for line in lines]
