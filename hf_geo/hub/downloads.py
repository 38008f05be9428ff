"""Downloads files of models from the Hub; an error says in one sentence why that failed."""

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError


def download(repository: str, filename: str) -> str:
    """Downloads a file of a model on the Hub if it is not in the cache, and returns its path.

    Args:
        repository: `ID` or `ID@REVISION`.
        filename: The file's path in the repository.

    Raises:
        ValueError: The Hub cannot be reached, there is no such repository, or it may not be read.
        EntryNotFoundError: The repository has no such file.
    """
    repository, _, revision = repository.partition("@")
    try:
        return hf_hub_download(repository, filename, revision=revision or None)
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{repository!r} is no folder here, and the Hub cannot be reached to look for it there: check the network, "
            "or give the folder that holds the model."
        ) from error
    except EntryNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"The Hub gives no model {repository!r}: {' '.join(str(error).split())}") from error
