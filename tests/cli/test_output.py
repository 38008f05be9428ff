"""Printing ends no program: what the terminal cannot show is escaped, and a reader that has left is not missed."""

import fcntl
import os
import struct
import subprocess
import sys
import termios

import pytest

from tests.paths import REPOSITORY

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(code: str, stdout: int, stderr: int, **environment: str) -> subprocess.CompletedProcess:
    code = f"import sys; from hf_geo.cli.output import protect_output; protect_output(); {code}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=stderr, env=environment, check=False)


@pytest.mark.parametrize("stream", ("stdout", "stderr"))
def test_a_name_that_the_encoding_lacks_is_escaped(stream: str) -> None:
    done = run(f"print('r\\xe9sum\\xe9 \\u6f22 \\udce9', file=sys.{stream})", subprocess.PIPE, subprocess.PIPE, **ASCII)
    assert done.returncode == 0 and getattr(done, stream) == b"r\\xe9sum\\xe9 \\u6f22 \\udce9\n"


@pytest.mark.parametrize("reader", ("gone", "full"))
def test_a_reader_that_has_left_is_not_missed(reader: str, tmp_path) -> None:
    if reader == "gone":
        end, out = os.pipe()
        os.close(end)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    say = "[print('x' * 5000, file=f, flush=True) for f in (sys.stdout, sys.stderr) for _ in range(9)]"
    done = run(f"{say}; open({str(tmp_path / 'end')!r}, 'w')", out, out)
    os.close(out)
    assert done.returncode == 0 and (tmp_path / "end").exists()


# A bar that stays, with one inside it and a log, as transformers has them; then lines that are no bar's.
BARS = """
from tqdm.auto import tqdm
with tqdm(range(40), "outer", mininterval=0, file=sys.stderr) as outer:
    for index in outer:
        if index % 20 == 19:
            outer.write(f"loss {index}", file=sys.stderr)
            for _ in tqdm(range(9), "inner", mininterval=0, leave=False, position=1, file=sys.stderr):
                pass
print(file=sys.stderr)
print("the end", file=sys.stderr)
"""


@pytest.mark.parametrize(("seconds", "states"), [(60, 1), (0, 40)])
def test_progress_in_a_file_is_a_line_at_a_time(seconds: float, states: int) -> None:
    code = f"import hf_geo.cli.output as output; output.PROGRESS_SECONDS = {seconds}; exec({BARS!r})"
    done = run(code, subprocess.PIPE, subprocess.PIPE)
    *lines, blank, end = done.stderr.decode().splitlines()
    bars = [line for line in lines if not line.startswith("loss")]
    assert done.returncode == 0 and (blank, end) == ("", "the end") and b"\x1b" not in done.stderr
    assert len(lines) - len(bars) == 2 and bars[-1].startswith("outer: 100%") and "40/40" in bars[-1]
    assert len(bars) == 1 if states == 1 else len(bars) >= states


def test_on_a_terminal_progress_is_redrawn() -> None:
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    run(f"exec({BARS!r})", subprocess.PIPE, terminal)
    os.close(terminal)
    assert os.read(controller, 65536).count(b"\router") > 20
    os.close(controller)


def test_every_script_is_protected() -> None:
    scripts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "scripts").glob("*.py")]
    mains = [text for text in scripts if "def main(" in text]
    assert len(mains) >= 8 and all("    protect_output()\n" in text for text in mains)
