"""Data sets from a Hub that fails, and from caches that are damaged: loaded as if nothing had been, or refused at once."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.local_hub import FaultAtEachRequest, LocalHub
from tests.local_hub.faults import LASTING, PASSING, RETRY_AFTER

# Loads one data set after the other, each with a cache of its own, and notes the seconds it would have waited.
LOAD_ALL = """
import json, sys, time
waits = []
time.sleep = lambda seconds: waits.append(seconds) if seconds > 0.05 else None
import datasets
from huggingface_hub import close_session, constants
from hf_geo.hub import retries
from hf_geo.data.sources import open_source
from pathlib import Path
home = Path(constants.HF_HUB_CACHE)
for name in json.loads(sys.argv[1]):
    retries.SILENCE = constants.HF_HUB_DOWNLOAD_TIMEOUT = constants.HF_HUB_ETAG_TIMEOUT = 0.4 if name[0] == "t" else 60.0
    close_session()
    waits.clear()
    constants.HF_HUB_CACHE = str(home / name)
    datasets.config.HF_DATASETS_CACHE = home / name
    try:
        told = {split: list(rows["text"]) for split, rows in open_source(f"ada/{name}").splits.items()}
    except ValueError as error:
        told = str(error)
    print(json.dumps([name, told, list(waits)]), flush=True)
"""
REQUESTS = 16  # more than a load makes
ROWS = {split: [f"{split} {i}" for i in range(40)] for split in ("train", "test")}


def seed(folder: Path, names: list[str]) -> None:
    for name in names:
        place = folder / "datasets" / "ada" / name
        place.mkdir(parents=True)
        for split, rows in ROWS.items():
            # Content of its own, or one data set's files would be another's in the CDN.
            pq.write_table(pa.table({"text": rows, "name": [name] * len(rows)}), place / f"{split}.parquet")


def check(tmp_path: Path, names: list[str]) -> None:
    seed(tmp_path / "seeds", names)
    with LocalHub(tmp_path / "hub", seeds=tmp_path / "seeds") as hub:
        hub.fault = faults = FaultAtEachRequest(hub)
        done = hub.run(["-c", LOAD_ALL, json.dumps(names)], token=hub.read_token)
        assert hub.read_token not in done.stdout + done.stderr
    found = {name: (told, waits) for name, told, waits in map(json.loads, done.stdout.splitlines())}
    assert list(found) == names and faults.met
    for name, (told, waits) in found.items():
        request = faults.met.get(name)
        if request is None:
            assert faults.reached[name] < REQUESTS, "some requests never meet a fault"
        if request is None or name.partition("-")[0] in PASSING:
            assert told == ROWS, (name, str(request), told)
        # datasets asks for some things that it can do without, such as the viewer's list of files.
        if name.startswith("429") and request is not None and waits:
            assert max(waits) >= RETRY_AFTER
        if name.partition("-")[0] in LASTING and told != ROWS:
            assert isinstance(told, str) and not waits, (name, told, waits)


def test_each_request_meets_a_fault(tmp_path) -> None:
    kinds = [*PASSING, *LASTING]
    check(tmp_path, [f"{kinds[index % len(kinds)]}-{index}" for index in range(REQUESTS)])


@pytest.mark.slow
def test_each_fault_at_each_request(tmp_path) -> None:
    check(tmp_path, [f"{kind}-{index}" for kind in (*PASSING, *LASTING) for index in range(REQUESTS)])


DAMAGE_ALL = """
import json, os, shutil
from pathlib import Path
from hf_geo.data.sources import open_source
home = Path(os.environ["HF_HOME"])

def read():
    return {split: list(rows["text"]) for split, rows in open_source("ada/small").splits.items()}

def cut(path, share):
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 255
    path.chmod(0o644)
    path.write_bytes(content)

arrow = lambda: sorted(home.glob("datasets/**/*.arrow"))
fetched = lambda: shutil.rmtree(home / "datasets") or sorted(home.glob("hub/datasets--ada--small/blobs/*"))
damages = {
    "half of a prepared file": lambda: [cut(path, 0.5) for path in arrow()],
    "nothing of a prepared file": lambda: [cut(path, 0) for path in arrow()],
    "a prepared file that ends early": lambda: cut(arrow()[0], 0.9),
    "a prepared file less": lambda: arrow()[0].unlink(),
    "another head of a prepared file": lambda: flip(arrow()[0], 0.0),
    "half of a fetched file": lambda: [cut(path, 0.5) for path in fetched()],
    "nothing of a fetched file": lambda: [cut(path, 0) for path in fetched()],
    "another end of a fetched file": lambda: flip(fetched()[0], 0.9999),
}
good = read()
source = open_source("ada/small", streaming=True)
streamed = {split: [row["text"] for row in rows] for split, rows in source.splits.items()}
print(json.dumps(["streamed", streamed == good and source.hub_id == "ada/small", len(good["train"])]), flush=True)
for name, damage in damages.items():
    damage()
    print(json.dumps([name, read() == good, len(good["train"])]), flush=True)
"""


def test_what_is_damaged_in_a_cache_is_made_again(tmp_path) -> None:
    seed(tmp_path / "seeds", ["small"])
    with LocalHub(tmp_path / "hub", seeds=tmp_path / "seeds") as hub:
        done = hub.run(DAMAGE_ALL)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 1 + 8 and [name for name, same, rows in found if not same or rows != len(ROWS["train"])] == []
    assert done.stderr.count("The cached files of ada/small cannot be used (") == 8


def test_a_prepared_file_without_its_last_rows_is_noticed(tmp_path, monkeypatch) -> None:
    """Cut where a batch ends, Arrow reads it as a shorter one."""
    import datasets

    from hf_geo.data.sources import open_source

    folder, cache = tmp_path / "data", tmp_path / "cache"
    folder.mkdir()
    (folder / "train.csv").write_text("text\n" + "\n".join(f"row {i}" for i in range(2500)))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    whole = open_source(str(folder)).splits["train"]
    [file] = cache.glob("**/*.arrow")
    table = whole.data.table
    shorter = tmp_path / "shorter.arrow"
    with pa.OSFile(str(shorter), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.slice(0, 1000))
    shorter.replace(file)
    again = open_source(str(folder)).splits["train"]
    assert list(again["text"]) == [f"row {i}" for i in range(2500)]
