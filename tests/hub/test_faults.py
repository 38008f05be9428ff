"""Pushes to a Hub that fails: each fault at each request; what is tried again, what is not, and how long."""

import json
from pathlib import Path

import pytest

from hf_geo.hub.retries import persist
from tests.hub.runs import fingerprint, write_run
from tests.local_hub import FaultAtEachRequest, LocalHub, Response
from tests.local_hub.faults import LASTING, PASSING, RETRY_AFTER

# Pushes the run to one repository after the other, with content of its own, and notes the seconds it would have waited.
PUSH_ALL = """
import json, sys, time
waits = []
time.sleep = waits.append
from pathlib import Path
from huggingface_hub import get_session
from hf_geo.hub import retries
from hf_geo.hub.push import push_folder
retries.persist(lambda: None, "nothing")
assert get_session().timeout.read == retries.SILENCE
run = Path(sys.argv[1])
for name in json.loads(sys.argv[2]):
    get_session().timeout = 0.4 if name.startswith("timeout") else 60.0
    waits.clear()
    for file in ("model.safetensors", "subspace.safetensors", "checkpoint-10/optimizer.pt"):
        (run / file).write_bytes(f"{name} {file}".encode() * 999)
    try:
        told = push_folder(run, f"ada/{name}", checkpoints="last")
    except RuntimeError as error:
        told = str(error)
    print(json.dumps([name, told, list(waits)]), flush=True)
"""
REQUESTS = 20  # of a push: create, check the card, ask what goes where, two large files, the commit; and the checkpoint


def push_all(hub: LocalHub, run: Path, names: list[str]) -> dict[str, tuple[str, list[float]]]:
    """What came of each push, and what it would have waited."""
    done = hub.run(["-c", PUSH_ALL, run, json.dumps(names)], token=hub.write_token)
    assert hub.write_token not in done.stdout + done.stderr
    return {name: (told, waits) for name, told, waits in map(json.loads, done.stdout.splitlines())}


def check(hub: LocalHub, faults: FaultAtEachRequest, run: Path, names: list[str]) -> None:
    met = 0
    for name, (told, waits) in push_all(hub, run, names).items():
        kind = name.partition("-")[0]
        if name not in faults.met:  # the push has fewer requests
            assert told == f"{hub.endpoint}/ada/{name}" and not waits
            assert faults.reached[name] < REQUESTS, "some requests never meet a fault"
            continue
        met += 1
        if kind in LASTING and faults.met[name].path == "/api/repos/create" and not name.endswith("-0"):
            # huggingface_hub takes it that who may not create a repository may still write to one that is there.
            assert told == f"{hub.endpoint}/ada/{name}" and not waits
            continue
        if kind in LASTING:
            assert told.startswith(f"Could not push {run} to ada/{name}: ") and not waits, told
            assert f"`hf-geo push {run} ada/{name} --checkpoints last`" in told
            continue
        assert told == f"{hub.endpoint}/ada/{name}", (name, told)
        assert len(waits) == 1 or (kind == "timeout" and waits), (name, waits)  # which a slow machine may meet again
        assert waits[0] >= (RETRY_AFTER if kind == "429" else 1)
        repository = hub.store.find("model", f"ada/{name}")
        arrived = {file: blob.path.read_bytes() for file, blob in repository.head.files.items()}
        assert arrived["model.safetensors"] == f"{name} model.safetensors".encode() * 999
        assert arrived["last-checkpoint/optimizer.pt"] == f"{name} checkpoint-10/optimizer.pt".encode() * 999
        # What has arrived is not sent again, whatever failed after it.
        sent = [r.path for r in hub.requests if r.origin == "cdn" and r.method == "PUT" and r.status == 200]
        assert len(sent) == len(set(sent)), name
        assert len(repository.history) == 3, [commit.title for commit in repository.history]
    assert met


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run")
    for name in ("model.safetensors", "optimizer.pt"):
        (tmp_path / "run" / "checkpoint-10" / name).write_bytes(b"a checkpoint's " + name.encode())  # no token, here
    return tmp_path / "run"


def test_each_request_meets_a_fault_and_each_fault_is_met(hub, run) -> None:
    hub.fault = FaultAtEachRequest(hub)
    kinds = [*PASSING, *LASTING]
    check(hub, hub.fault, run, [f"{kinds[index % len(kinds)]}-{index}" for index in range(REQUESTS)])


@pytest.mark.slow
def test_each_fault_at_each_request(hub, run) -> None:
    hub.fault = FaultAtEachRequest(hub)
    kinds = (*PASSING, *LASTING)
    check(hub, hub.fault, run, [f"{kind}-{index}" for kind in kinds for index in range(REQUESTS)])


def test_a_hub_that_stays_away_is_given_up_after_a_minute_with_the_command(hub, run) -> None:
    answers = {
        "out-1": Response.of({"error": "Down"}, 503),
        "out-2": Response.of({"error": "Slow down"}, 429, Retry_After="86400"),
    }

    def down(request) -> Response | None:
        body = request.body.decode("utf-8", "replace")
        return next((answer for name, answer in answers.items() if name in request.path + body), None)

    hub.fault = down
    before = fingerprint(run)
    told = push_all(hub, run, list(answers))
    message, waits = told["out-1"]
    assert "the Hub answered with error 503 (Down); the folder is unchanged, push it later with `hf-geo" in message
    assert waits == [1, 2, 4, 8, 16, 32]
    message, waits = told["out-2"]
    assert "error 429 (Slow down)" in message and not waits  # nobody waits for a day
    assert fingerprint(run).keys() == before.keys()


def test_what_is_tried_again_is_called_by_its_name(monkeypatch, caplog):
    answers = iter([ConnectionResetError(), "there"])

    def act():
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert persist(act, "pushing to Ada/MyModel") == "there"
    assert caplog.messages[0].startswith("Pushing to Ada/MyModel: ")
