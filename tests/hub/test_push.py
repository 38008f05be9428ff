"""`scripts/push.py` and `push_folder` against the local Hub: what arrives, what stays, and how each failure reads."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import transformers
from huggingface_hub import HfApi, constants

from hf_geo.hub.loading import loading_lines
from hf_geo.hub.push import check_destination, push_folder
from hf_geo.models import DncConfig, DncForSequenceCopy, WordTransformerConfig, WordTransformerForCausalLM
from tests.hub.runs import fingerprint, write_run
from tests.local_hub import LocalHub, Request, Response
from tests.models.tiny import gpt2
from tests.scripts import script

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


def test_everything_but_checkpoints_and_secrets_arrives(online, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    expected = write_run(tmp_path / "run")
    before = fingerprint(tmp_path / "run")
    assert script("push")([tmp_path / "run", "--commit_message", "Digits", "ada/digits"]) == 0
    assert pushed(online, "ada/digits") == expected
    assert fingerprint(tmp_path / "run") == before
    printed = capsys.readouterr().out
    assert f"{online.endpoint}/ada/digits" in printed
    assert 'timm.create_model("hf-hub:ada/digits", pretrained=True)' in printed
    assert 'AutoModelForImageClassification.from_pretrained("ada/digits")' in printed
    assert not online.store.find("model", "ada/digits").private
    card = HfApi().model_info("ada/digits").card_data
    [result] = card.eval_results
    assert (card.license, card.library_name, card.tags) == ("apache-2.0", "timm", ["hf_geo", "fromage"])
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("digits", "accuracy", 0.9722)


def test_a_local_folder_gets_what_the_hub_would(run_folder, tmp_path, capsys) -> None:
    """Without a token or a name; nothing there is overwritten, and one destination is wanted."""
    expected, there = write_run(run_folder), tmp_path / "pushed"
    assert script("push")([run_folder, "--local_dir", there]) == 0
    found = {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert found == expected
    for words, message in (
        (["--local_dir", there], "is there already: choose another --local_dir"),
        (["--local_dir", run_folder / "pushed"], "and would be pushed with it: choose another --local_dir"),
        (["--local_dir", there / "new", "ada/digits"], "give either REPO_ID"),
        (["--local_dir", there / "new", "--private"], "--private is for a repository: leave it out"),
        (["--local_dir", there / "new", "--commit_message", "Mine"], "--commit_message is for a repository"),
        (["--privat", "ada/digits"], "unknown option --privat: did you mean --private?"),
        ([], "give either REPO_ID"),
    ):
        with pytest.raises(SystemExit):
            script("push")([run_folder, *words])
        assert message in capsys.readouterr().err


OPENED = {  # models that a task trains, each with the name that the line has to open it by
    "a class of ours, by AutoModel": lambda: DncForSequenceCopy(DncConfig(input_size=3, output_size=2)),
    "a class of ours, by another": lambda: WordTransformerForCausalLM(WordTransformerConfig(vocab_size=9, d_model=4, nhead=2, d_hid=4)),
    "no word For": gpt2,
    "two of them": lambda: transformers.PoolFormerForImageClassification(transformers.PoolFormerConfig(depths=[1], hidden_sizes=[4], patch_sizes=[3], strides=[2], padding=[1], num_encoder_blocks=1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", OPENED)
def test_the_line_that_is_printed_opens_the_model(tmp_path, kind: str):
    model = OPENED[kind]()
    model.save_pretrained(tmp_path)
    (line,) = loading_lines(json.loads((tmp_path / "config.json").read_text()), str(tmp_path), "")
    assert type(eval(line, {"transformers": transformers})).__name__ == type(model).__name__


def test_code_of_another_repository_is_named_where_transformers_has_no_such_class():
    for architecture, line in (
        ("GPT2LMHeadModel", 'transformers.GPT2LMHeadModel.from_pretrained("ada/mine")'),
        ("AdasModel", 'transformers.AutoModelForCausalLM.from_pretrained("ada/mine", trust_remote_code=True)'),
    ):
        code = {"AutoConfig": "ada/base--mine.AdasConfig", "AutoModelForCausalLM": f"ada/base--mine.{architecture}"}
        assert loading_lines({"architectures": [architecture], "auto_map": code}, "ada/mine", "") == [line]


def test_an_adapter_is_pushed_where_others_can_open_its_base(online, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    folder = tmp_path / "adapter"
    folder.mkdir()
    files = {"adapter_model.safetensors": b"weights", "README.md": b"---\ntags: [merge]\n---\n"}
    for base, is_pushed in (("/home/ada/base", False), (str(tmp_path), False), (None, False), ("ada/base", True)):
        files["adapter_config.json"] = json.dumps({"base_model_name_or_path": base}).encode()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        if is_pushed:
            assert script("push")([folder, "ada/adapter"]) == 0
            assert pushed(online, "ada/adapter") == files
            assert 'peft.PeftModel.from_pretrained(model, "ada/adapter")  # of ada/base' in capsys.readouterr().out
        else:
            with pytest.raises(SystemExit):
                script("push")([folder, "ada/adapter"])
            assert f"belongs to the model {base!r}, which is on this machine alone" in capsys.readouterr().err


def test_a_bare_name_goes_to_ones_own_namespace_and_private_is_private(online, run_folder, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    assert script("push")([run_folder, "digits", "--private", "--commit_message", "Mine"]) == 0
    repository = online.store.find("model", "ada/digits")
    assert repository.private and repository.head.title == "Mine"
    assert f"{online.endpoint}/ada/digits" in capsys.readouterr().out


def test_a_second_push_sends_only_what_changed(online, run_folder):
    repo_id, token = "analytical-society/digits", online.write_token
    push_folder(run_folder, repo_id, token=token)
    commits = len(online.store.find("model", repo_id).history)
    online.requests.clear()
    push_folder(run_folder, repo_id, token=token)
    assert len(online.store.find("model", repo_id).history) == commits
    (run_folder / "model.safetensors").write_bytes(b"trained longer")
    push_folder(run_folder, repo_id, token=token)
    uploads = [request for request in online.requests if request.origin == "cdn" and request.method == "PUT"]
    assert [request.body for request in uploads] == [b"trained longer"]
    assert pushed(online, repo_id)["model.safetensors"] == b"trained longer"


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

    says: str
    token: str | None = LocalHub.write_token
    repo_id: str = "ada/digits"
    private: bool | None = None
    constants: dict[str, object] = field(default_factory=dict)
    fault: Callable[[Request], Response | None] | None = None
    spoil: Callable[[Path], None] | None = None
    later: str | None = None  # the repository in the command to run later, where it is another


FAILURES = {
    "no token": Failure("There is no token to push to ada/digits with: log in with `hf auth login`", token=None, private=True),
    "wrong token": Failure("the Hub does not accept the token", token="hf_" + "Nobody" * 6),
    "read token": Failure("the token may not write to ada/digits", token=LocalHub.read_token),
    "not one's namespace": Failure("the token may not write to bob/digits", repo_id="bob/digits"),
    "two slashes": Failure("'a/b/c' cannot be a repository's name", repo_id="a/b/c", later="NAMESPACE/NAME"),
    "no network": Failure("cannot be reached", constants={"ENDPOINT": "http://127.0.0.1:9"}),
    "no address": Failure("cannot be reached", constants={"ENDPOINT": "nonsense"}),
    "offline mode": Failure("HF_HUB_OFFLINE forbids to contact the Hub", constants={"HF_HUB_OFFLINE": True}),
    "line cut": Failure("cannot be reached", fault=cut_line),
    "captive portal": Failure("does not answer as a Hub does", fault=captive_portal),
    "storage refuses": Failure("the Hub answered with error 403 (<Error>Request has expired</Error>)", fault=cdn_forbids),
    "error at the commit": Failure("the Hub answered with error 500 (Internal error)", fault=commit_breaks),
    "no Xet storage": Failure("xet-write-token/main", constants={"HF_HUB_DISABLE_XET": False}),
    "invalid card": Failure('Invalid metadata in README.md. - "license" must be one of', spoil=no_such_card),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_push_says_why_in_one_sentence_and_leaves_the_folder(online, run_folder, monkeypatch, name):
    failure = FAILURES[name]
    if failure.spoil:
        failure.spoil(run_folder)
    for constant, value in failure.constants.items():
        monkeypatch.setattr(constants, constant, value)
    before = fingerprint(run_folder)
    online.fault = failure.fault
    with pytest.raises((ValueError, RuntimeError)) as raised:
        push_folder(run_folder, failure.repo_id, private=failure.private, token=failure.token)
    sentence = str(raised.value)
    assert failure.says in sentence and "\n" not in sentence
    options = " --private" if failure.private else ""
    assert f"`hf-geo push '{run_folder}' {failure.later or failure.repo_id}{options}`" in sentence
    assert not [token for token in (*TOKENS, failure.token) if token and token in sentence]
    assert fingerprint(run_folder) == before
    repository = online.store.find("model", failure.repo_id)
    assert repository is None or list(repository.head.files) == [".gitattributes"]


def test_a_public_repository_does_not_get_a_private_push(online, run_folder):
    online.store.create("model", "ada/digits", private=False)
    with pytest.raises(RuntimeError, match="is there already and public"):
        push_folder(run_folder, "ada/digits", private=True, token=online.write_token)
    assert pushed(online, "ada/digits") == {}


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


def test_a_malformed_name_is_found_without_network():
    for repo_id in ("", "/", "ada/", "/digits", "a b", "a/b/c", "ada--x", "..", "ada/x.git", "é"):
        with pytest.raises(ValueError, match="cannot be a repository's name"):
            check_destination(repo_id, token="any")
    for repo_id in ("digits", "ada/digits", "Ada/Digits-8x8_v1.0"):
        check_destination(repo_id, token="any")
