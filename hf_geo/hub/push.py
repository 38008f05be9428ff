"""Pushes a finished run to the Hub, or says in one sentence why not and how to do it later."""

import json
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, get_token

# `HTTPError`, for no answer at all, is taken from here because the package it comes from changes with the version.
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

import hf_geo
from hf_geo.errors import causes, in_words
from hf_geo.resources import command_line

from .contents import NOT_PUSHED, find_parts, is_space
from .retries import may_pass, persist


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    checkpoints: Literal["none", "last", "all"] = "none",
) -> str:
    """Creates the repository if needed and pushes everything in `folder` that `contents.NOT_PUSHED` does not exclude.

    Nothing in the folder is changed, and files of the same content are not sent again. A failure that may pass is retried
    for about a minute.

    Args:
        folder: The output folder of a finished run, or a Space of scripts/explore.py.
        repo_id: `NAMESPACE/NAME`; a bare `NAME` goes to the account that the token belongs to.
        private: Whether a new repository is private; None leaves it to the account's default.
        token: Access token. Defaults to the one of `HF_TOKEN` or of `hf auth login`.
        commit_message: Title of the commit. Defaults to "Upload the trained model" or "Upload the Space".
        checkpoints: Whether to push the newest checkpoint too, as `last-checkpoint`, or all of them under their names.

    Returns:
        The repository's address.

    Raises:
        ValueError: `folder` is no finished run or holds an access token; `repo_id` is malformed.
        RuntimeError: No token; no permission; the Hub cannot be reached or refuses. The message gives the command that
            pushes the folder later.
    """
    folder = Path(folder)
    parts, space = find_parts(folder, checkpoints, token), is_space(folder)
    check_destination(repo_id, folder=folder, private=private, token=token)
    title = commit_message or ("Upload the Space" if space else "Upload the trained model")
    options = {"private": private, "token": token, "commit_message": title, "space": space}
    for done, (path, path_in_repo) in enumerate(parts):
        try:
            url = send(path, repo_id, path_in_repo=path_in_repo, **options)
        except PushError as error:
            left = "" if done == 0 else f" (left are {', '.join(path.name for path, _ in parts[done:])})"
            raise RuntimeError(
                f"Could not push {folder} to {repo_id}: {error}; the folder is unchanged, "
                f"push it later{left} with `{_command(folder, repo_id, private, checkpoints)}`."
            ) from error
    return url


class PushError(RuntimeError):
    """The Hub did not take a push. The message is part of a sentence; `may_pass` says whether another attempt may help."""

    def __init__(self, message: str, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def send(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None,
    token: str | None,
    commit_message: str,
    path_in_repo: str | None = None,
    space: bool = False,
) -> str:
    """Pushes one folder, with retries; arguments and result are those of `push_folder`.

    Args:
        path_in_repo: The folder in the repository to push to. Defaults to its top.
        space: Push to a Space that gradio serves; else to a model.

    Raises:
        PushError: The Hub cannot be reached, or refuses.
    """
    api = HfApi(token=token, library_name="hf_geo", library_version=hf_geo.__version__)

    def attempt() -> str:
        kind = "space" if space else "model"
        sdk = "gradio" if space else None
        repository = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=kind, space_sdk=sdk)
        if private and not api.repo_info(repository.repo_id, repo_type=kind).private:
            raise ValueError(f"{repository.repo_id} is there already and public (make it private on its page)")
        # What has arrived already is not sent again.
        api.upload_folder(
            repo_id=repository.repo_id,
            repo_type=kind,
            folder_path=folder,
            path_in_repo=path_in_repo,
            commit_message=commit_message,
            ignore_patterns=list(NOT_PUSHED),
        )
        return str(repository)

    try:
        return persist(attempt, f"pushing to {repo_id}")
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise PushError(_reason(error, repo_id), may_pass(error)) from error


def check_destination(
    repo_id: str, *, folder: str | Path = "FOLDER", private: bool | None = None, token: str | None = None
) -> None:
    """Finds mistakes that would keep a run from being pushed, without any network: call it before training.

    Args:
        repo_id: The destination.
        folder: The run's folder, for the message.
        private: Whether a new repository is private, for the message.
        token: Access token. Defaults to the one of `HF_TOKEN` or of `hf auth login`.

    Raises:
        ValueError: `repo_id` cannot be a repository's name.
        RuntimeError: There is no token.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(
            f"{repo_id!r} cannot be a repository's name (NAMESPACE/NAME, of letters, digits, '-', '_' and '.'): "
            f"push the run with `{_command(folder, 'NAMESPACE/NAME', private)}`."
        ) from error
    if not (token or get_token()):
        raise RuntimeError(
            f"There is no token to push to {repo_id} with: log in with `hf auth login` or set HF_TOKEN, "
            f"then run `{_command(folder, repo_id, private)}`."
        )


def _command(folder: str | Path, repo_id: str, private: bool | None, checkpoints: str = "none") -> str:
    options = [*(["--private"] if private else []), *(["--checkpoints", checkpoints] if checkpoints != "none" else [])]
    return command_line("push", folder, repo_id, *options)


def _reason(error: BaseException, repo_id: str) -> str:
    """Says what went wrong, as part of a sentence."""
    # An upload in a thread wraps the Hub's answer.
    error = next((cause for cause in causes(error) if not isinstance(cause, RuntimeError)), error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to contact the Hub (unset it)"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return "the Hub does not accept the token (log in again with `hf auth login`)"
        # A large file's storage is another host, which knows nothing of tokens.
        if status in (403, 404) and str(error.response.url).startswith(constants.ENDPOINT):
            return f"the token may not write to {repo_id} (log in with one that may: `hf auth login`)"
        return f"the Hub answered with error {status} ({in_words(error.server_message or error)})"
    if isinstance(error, HTTPError):
        return f"the Hub at {constants.ENDPOINT} cannot be reached ({in_words(error)})"
    if isinstance(error, json.JSONDecodeError):
        return f"{constants.ENDPOINT} does not answer as a Hub does"
    return in_words(error)
