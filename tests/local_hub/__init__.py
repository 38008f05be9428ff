"""A small Hugging Face Hub on this machine, for unmodified clients over real HTTP.

`LocalHub` implements the part of the Hub's HTTP API that huggingface_hub, datasets, timm and transformers use to create
repositories, push to them and read them back, with tokens, private repositories and the Hub's own error responses.

Like the real one it has two origins: large files are uploaded to and downloaded from a "CDN" on another port, by redirect
and without the caller's token.
"""

from tests.local_hub.faults import FaultAtEachRequest
from tests.local_hub.http import RefusedError, Request, Response
from tests.local_hub.hub import LocalHub

__all__ = ["FaultAtEachRequest", "LocalHub", "RefusedError", "Request", "Response"]
