"""Printing ends no program: what the terminal cannot show is escaped, and a reader that has left is not missed."""

import os
import subprocess
import sys

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


def test_every_script_is_protected() -> None:
    scripts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "scripts").glob("*.py")]
    mains = [text for text in scripts if "def main(" in text]
    assert len(mains) >= 8 and all("    protect_output()\n" in text for text in mains)
