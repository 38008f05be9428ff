"""The function that answers each address."""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tests.local_hub import downloads, repositories, uploads
from tests.local_hub.messages import RefusedError, Request, Response

if TYPE_CHECKING:
    from tests.local_hub.hub import LocalHub

# A name without an organisation ("gpt2") is a valid address of a repository that this Hub does not have.
REPO = r"(?P<repo_id>[\w.-]+(?:/[\w.-]+)??)"
API = rf"/api/(?P<kind>model|dataset|space)s/{REPO}"
PAGE = rf"/(?:(?P<kind>dataset|space)s/)?{REPO}"
REVISION = r"(?P<revision>[^/]+)"
OID = r"(?P<oid>[0-9a-f]{64})"


def _nothing(hub: "LocalHub", request: Request) -> Response:
    return Response.of({})


def _no_export(hub: "LocalHub", request: Request) -> Response:
    """The dataset viewer for a data set that it has not processed: clients then read the repository itself."""
    raise RefusedError(404, "The response is not found.", "ResponseNotFound")


_TABLE = [
    ("hub GET", r"/api/whoami-v2", repositories.whoami),
    ("hub POST", r"/api/repos/create", repositories.create),
    ("hub POST", r"/api/validate-yaml", repositories.validate_card),
    ("hub HEAD GET", r"/api/telemetry/.*", _nothing),
    ("hub GET", r"/(?:parquet|info)", _no_export),
    ("hub GET", rf"{API}/revision/{REVISION}", repositories.information),
    ("hub GET", rf"{API}/tree/{REVISION}(?:/(?P<path>.+))?", repositories.tree),
    ("hub POST", rf"{API}/paths-info/{REVISION}", repositories.paths),
    ("hub POST", rf"{API}/preupload/{REVISION}", uploads.preupload),
    ("hub POST", rf"{API}/commit/{REVISION}", uploads.commit),
    ("hub GET", API, repositories.information),
    ("hub POST", rf"{PAGE}\.git/info/lfs/objects/batch", uploads.lfs_batch),
    ("hub POST", rf"{PAGE}\.git/info/lfs/objects/verify", uploads.lfs_verify),
    ("hub HEAD GET", rf"{PAGE}/resolve/{REVISION}/(?P<path>.+)", downloads.resolve),
    ("cdn HEAD GET", rf"/blob/{OID}", downloads.cdn_get),
    ("cdn PUT", rf"/upload/{OID}", uploads.cdn_put),
]
ROUTES = [(methods.split(), re.compile(pattern), answer) for methods, pattern, answer in _TABLE]


def answer(hub: "LocalHub", request: Request) -> Response:
    """Returns the API's response to a request; 404 for an unknown address, as on the real Hub."""
    for (origin, *methods), pattern, function in ROUTES:
        found = pattern.fullmatch(request.path)
        if found and origin == request.origin and request.method in methods:
            named = {name: unquote(text) if text else None for name, text in found.groupdict().items()}
            if "kind" in named:
                named["kind"] = named["kind"] or "model"
            try:
                return function(hub, request, **named)
            except RefusedError as error:
                return error.response
    return RefusedError(404, "Sorry, we can't find the page you are looking for.").response
