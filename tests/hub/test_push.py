"""`scripts/push.py` and `push_folder` against the local Hub: what arrives, what stays, and how each failure reads."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hf_geo.hub.push import check_destination, push_folder
from tests.hub.runs import WITHOUT_WAITING, fingerprint, write_run
from tests.local_hub import LocalHub, Request, Response
from tests.paths import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "push.py"
TOKENS = (LocalHub.write_token, LocalHub.read_token, LocalHub.other_token)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my runs" / "digits"  # a space, so that the command must quote it
    write_run(folder)
    return folder


def pushed(hub: LocalHub, repo_id: str) -> dict[str, bytes]:
    """What the Hub has besides its own `.gitattributes`."""
    files = hub.store.find("model", repo_id).head.files
    return {name: file.path.read_bytes() for name, file in files.items() if name != ".gitattributes"}


def test_everything_but_checkpoints_and_secrets_arrives(hub, tmp_path):
    expected = write_run(tmp_path / "run")
    before = fingerprint(tmp_path / "run")
    done = hub.run([SCRIPT, tmp_path / "run", "ada/digits"], token=hub.write_token)
    assert pushed(hub, "ada/digits") == expected
    assert fingerprint(tmp_path / "run") == before
    assert f"{hub.endpoint}/ada/digits" in done.stdout
    assert 'timm.create_model("hf-hub:ada/digits", pretrained=True)' in done.stdout
    assert 'AutoModelForImageClassification.from_pretrained("ada/digits")' in done.stdout
    assert not hub.store.find("model", "ada/digits").private


def test_the_hub_reads_the_measured_results_from_the_card(hub, run_folder):
    hub.run([SCRIPT, run_folder, "ada/digits"], token=hub.write_token)
    code = """
from huggingface_hub import HfApi
card = HfApi().model_info("ada/digits").card_data
[result] = card.eval_results
print(card.license, card.library_name, card.tags, result.dataset_name, result.metric_type, result.metric_value)
"""
    assert hub.run(code).stdout.strip() == "apache-2.0 timm ['hf_geo', 'fromage'] digits accuracy 0.9722"


def test_a_bare_name_goes_to_ones_own_namespace_and_private_is_private(hub, run_folder):
    done = hub.run([SCRIPT, run_folder, "digits", "--private", "--commit_message", "Mine"], token=hub.write_token)
    repository = hub.store.find("model", "ada/digits")
    assert repository.private and repository.head.title == "Mine"
    assert f"{hub.endpoint}/ada/digits" in done.stdout


def test_a_second_push_sends_only_what_changed(hub, run_folder):
    hub.run([SCRIPT, run_folder, "analytical-society/digits"], token=hub.write_token)
    commits = len(hub.store.find("model", "analytical-society/digits").history)
    hub.requests.clear()
    hub.run([SCRIPT, run_folder, "analytical-society/digits"], token=hub.write_token)
    assert len(hub.store.find("model", "analytical-society/digits").history) == commits
    (run_folder / "model.safetensors").write_bytes(b"trained longer")
    hub.run([SCRIPT, run_folder, "analytical-society/digits"], token=hub.write_token)
    uploads = [request for request in hub.requests if request.origin == "cdn" and request.method == "PUT"]
    assert [request.body for request in uploads] == [b"trained longer"]
    assert pushed(hub, "analytical-society/digits")["model.safetensors"] == b"trained longer"


def no_such_card(folder: Path) -> None:
    readme = folder / "README.md"
    readme.write_text(readme.read_text("utf-8").replace("license: apache-2.0", "license: mine"), "utf-8")


def cdn_forbids(request: Request) -> Response | None:
    return Response(403, b"<Error>Request has expired</Error>") if request.origin == "cdn" else None


def commit_breaks(request: Request) -> Response | None:
    return Response.of({"error": "Internal error"}, 500) if "/commit/" in request.path else None


def captive_portal(request: Request) -> Response | None:
    return Response(200, b"<html>Please accept our terms</html>", {"Content-Type": "text/html"})


def cut_line(request: Request) -> Response | None:
    raise ConnectionResetError


@dataclass(frozen=True)
class Failure:
    """How a push fails: what is different from one that works, and what its one sentence must say."""

    name: str
    says: str
    token: str | None = LocalHub.write_token
    repo_id: str = "ada/digits"
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    fault: Callable[[Request], Response | None] | None = None
    spoil: Callable[[Path], None] | None = None
    later: str | None = None  # the repository in the command to run later, where it is another


FAILURES = [
    Failure("no token", "There is no token to push to ada/digits with: log in with `hf auth login`", token=None),
    Failure("no token, private", "log in with `hf auth login`", token=None, options=("--private",)),
    Failure("wrong token", "the Hub does not accept the token", token="hf_" + "Nobody" * 6),
    Failure("read token", "the token may not write to ada/digits", token=LocalHub.read_token),
    Failure("not one's namespace", "the token may not write to bob/digits", repo_id="bob/digits"),
    Failure("two slashes", "'a/b/c' cannot be a repository's name", repo_id="a/b/c", later="NAMESPACE/NAME"),
    Failure("blank in the name", "'my model' cannot be", repo_id="my model", later="NAMESPACE/NAME"),
    Failure("no network", "cannot be reached", environment=(("HF_ENDPOINT", "http://127.0.0.1:9"),)),
    Failure("offline mode", "HF_HUB_OFFLINE forbids to contact the Hub", environment=(("HF_HUB_OFFLINE", "1"),)),
    Failure("line cut", "cannot be reached", fault=cut_line),
    Failure("captive portal", "does not answer as a Hub does", fault=captive_portal),
    Failure(
        "storage refuses", "the Hub answered with error 403 (<Error>Request has expired</Error>)", fault=cdn_forbids
    ),
    Failure("error at the commit", "the Hub answered with error 500 (Internal error)", fault=commit_breaks),
    Failure("no Xet storage", "xet-write-token/main", environment=(("HF_HUB_DISABLE_XET", "0"),)),
    Failure("invalid card", 'Invalid metadata in README.md. - "license" must be one of', spoil=no_such_card),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_a_failed_push_says_why_in_one_sentence_and_leaves_the_folder(hub, run_folder, failure):
    if failure.spoil:
        failure.spoil(run_folder)
    before = fingerprint(run_folder)
    hub.fault = failure.fault
    done = hub.run(
        ["-c", WITHOUT_WAITING, SCRIPT, run_folder, failure.repo_id, *failure.options],
        token=failure.token,
        check=False,
        **dict(failure.environment),
    )
    assert done.returncode == 2, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("push.py: error: ") and failure.says in sentence
    command = " ".join([f"python scripts/push.py '{run_folder}'", failure.later or failure.repo_id, *failure.options])
    assert f"`{command}`" in sentence
    assert "Traceback" not in done.stderr and "Pushed" not in done.stdout
    assert not [token for token in (*TOKENS, failure.token) if token and token in done.stdout + done.stderr]
    assert fingerprint(run_folder) == before
    repository = hub.store.find("model", failure.repo_id)
    assert repository is None or list(repository.head.files) == [".gitattributes"]


def test_the_command_in_the_message_pushes_the_folder_later(hub, run_folder):
    failed = hub.run([SCRIPT, run_folder, "ada/digits", "--private"], check=False)
    command = failed.stderr.split("`")[-2].replace("python scripts/push.py", f"'{SCRIPT}'")
    assert hub.run(shlex.split(command), token=hub.write_token).stdout.startswith("Pushed")
    assert hub.store.find("model", "ada/digits").private


def test_a_public_repository_does_not_get_a_private_push(hub, run_folder):
    hub.store.create("model", "ada/digits", private=False)
    done = hub.run([SCRIPT, run_folder, "ada/digits", "--private"], token=hub.write_token, check=False)
    assert done.returncode == 2 and "is there already and public" in done.stderr
    assert pushed(hub, "ada/digits") == {}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: folder / "missing", "There is no folder"),
        (lambda folder: folder / "README.md", "There is no folder"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it holds no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "it holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "training_args.json").write_text("hf_" + "a" * 34), "holds a Hub access token"),
        (lambda folder: (folder / "figures" / "notes.txt").write_text("my-own-token"), "holds a Hub access token"),
    ],
    ids=["missing", "a file", "no weights", "no config", "broken config", "a token", "the token in use"],
)
def test_a_folder_that_must_not_be_pushed_is_refused_before_any_request(run_folder, spoil, says):
    other = spoil(run_folder)
    folder = other if isinstance(other, Path) else run_folder
    with pytest.raises(ValueError, match=says) as error:
        push_folder(folder, "ada/digits", token="my-own-token")  # a request would be another error: tests are offline
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("repo_id", ["", "/", "ada/", "/digits", "a b", "a/b/c", "ada--x", "..", "ada/x.git", "é"])
def test_a_malformed_name_is_found_without_network(repo_id):
    with pytest.raises(ValueError, match="cannot be a repository's name"):
        check_destination(repo_id, token="any")


@pytest.mark.parametrize("repo_id", ["digits", "ada/digits", "Ada/Digits-8x8_v1.0"])
def test_a_good_name_and_a_token_pass_without_network(repo_id):
    check_destination(repo_id, token="any")
