"""How a script that a worker runs ends, and what is kept of it."""

from hf_geo.experiments.workers import classify_error, run_all
from hf_geo.training.nonfinite import NonFiniteTrainingError

DIED = "The process that ran it died (killed, or out of memory)."
ENDS = {
    "return 0": ("finished", None),
    "raise SystemExit(0)": ("finished", None),
    "return 3": ("failed", "It ended with status 3."),
    "print('why\\n'); return 3": ("failed", "why"),
    "os.write(2, b'bad option'); sys.exit(2)": ("failed", "bad option"),
    "os.kill(os.getpid(), signal.SIGKILL)": ("failed", DIED),
    "raise ValueError('does not\\nfit')": ("failed", "does not fit"),
    "raise KeyError('word')": ("failed", "KeyError('word')"),
}


def test_how_scripts_end(tmp_path) -> None:
    calls = []
    for number, body in enumerate(ENDS):
        script = tmp_path / f"script{number}.py"
        script.write_text(f"import os, signal, sys\ndef main(arguments):\n    {body}\n")
        calls.append((body, (str(script), (), str(tmp_path / f"{number}.txt"))))
    assert dict(run_all(calls, jobs=1)) == ENDS
    logs = [(tmp_path / f"{number}.txt").read_text() for number in range(len(ENDS))]
    assert [body for body, log in zip(ENDS, logs, strict=True) if "Traceback" in log] == list(ENDS)[-2:]


def test_training_that_is_not_finite_has_diverged() -> None:
    assert classify_error(NonFiniteTrainingError("not\nfinite")) == ("diverged", "not finite")
    assert classify_error(RuntimeError()) == ("failed", "RuntimeError")
