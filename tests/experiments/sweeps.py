"""Sweeps over a substitute for train.py that is fast and reaches accuracies known beforehand."""

import importlib.util
from pathlib import Path
from types import ModuleType

from tests.paths import REPOSITORY

# The accuracy falls by 0.2 for each power of ten between the learning rate and the optimizer's best one.
TRAIN = """
import math, os, signal, time
from pathlib import Path

from hf_geo.runs.report import write_results

def main(arguments):
    options = dict(argument.lstrip("-").partition("=")[::2] for argument in arguments)
    folder, optim, lr = Path(options["output_dir"]), options.get("optim") or options["variant"], float(options["learning_rate"])
    notes = Path(__file__).parent
    print("training:", optim, lr)
    with open(notes / "started", "a") as file:
        file.write(f"{optim} {lr} {os.getpid()}\\n")
    if (optim, lr) == ("fromage", 1.0):
        print("This does not fit.")
        return 2
    if (optim, lr) == ("sgd", 10.0):
        os.kill(os.getpid(), signal.SIGKILL)
    while (notes / "wait").exists() and optim == "sgd":
        time.sleep(0.1)
    accuracy = 0.9 - 0.2 * abs(math.log10(lr / {"fromage": 0.01, "sgd": 0.1}[optim])) + int(options.get("seed", 0)) / 100
    folder.mkdir(parents=True)
    loss = math.nan if (optim, lr) == ("sgd", 1.0) else 1 - accuracy
    results = {"eval_accuracy": accuracy, "eval_loss": loss, "test_accuracy": accuracy / 2, "test_loss": loss}
    trained = {"train_loss": 1 - accuracy, "train_runtime": 60.0, "hardware": "an abacus"}
    write_results(folder, eval_results=results, train_results=trained)
    return 0
"""
QUICKSTART = REPOSITORY / "configs" / "quickstart.yaml"


def load(name: str) -> ModuleType:
    """Imports `scripts/NAME.py` as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", REPOSITORY / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Sweeps:
    """Calls sweep.py on the quickstart recipe and the substitute, into the folder `sweep` below `notes`."""

    def __init__(self, notes: Path) -> None:
        self.notes, self.folder = notes, notes / "sweep"
        (notes / "train.py").write_text(TRAIN)
        self.script = load("sweep")
        self.script.TRAIN = notes / "train.py"

    def __call__(self, *arguments: str) -> int:
        return self.script.main([f"--config={QUICKSTART}", f"--output_dir={self.folder}", *arguments])

    @property
    def started(self) -> list[tuple[str, float]]:
        """Optimizer and learning rate of the trials that were started, in order."""
        lines = (self.notes / "started").read_text().splitlines()
        return [(line.split()[0], float(line.split()[1])) for line in lines]
