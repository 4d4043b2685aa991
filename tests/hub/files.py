"""Routes of a download: a file's address, its facts, its bytes or some of them."""

from flask import Blueprint, Response, redirect, request

from .access import readable, settings
from .store import NotHereError

__all__ = ["blueprint"]

blueprint = Blueprint("files", __name__)


@blueprint.get("/<namespace>/<name>/resolve/<path:path>", defaults={"kinds": "models"})
@blueprint.get("/<any(datasets, spaces):kinds>/<namespace>/<name>/resolve/<path:path>")
def resolve(kinds: str, namespace: str, name: str, path: str) -> Response:
    """A small file itself; for a large one, the address of the storage that has it. Flask answers HEAD by this, too."""
    repository = readable(kinds, namespace, name)
    revision, path = repository.split_revision(path)
    commit = repository.commit(revision)
    file = commit.file(path)
    if file.is_large:
        answer = redirect(f"{settings().cdn}/cdn/{repository.path}/{file.sha256}", 302)
        answer.headers |= {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.etag}"'}
    else:
        answer = some_bytes(file.content, file.etag)
    answer.headers["X-Repo-Commit"] = commit.oid
    return answer


@blueprint.get("/cdn/<namespace>/<name>/<sha256>", defaults={"kinds": "models"})
@blueprint.get("/cdn/<any(datasets, spaces):kinds>/<namespace>/<name>/<sha256>")
def cdn(kinds: str, namespace: str, name: str, sha256: str) -> Response:
    """The storage's own door: it knows no tokens, as the address itself is the permission."""
    kind = {"models": "model", "datasets": "dataset", "spaces": "space"}[kinds]
    repository = settings().store.get(f"{namespace}/{name}", kind)
    if sha256 not in repository.large_files:
        raise NotHereError("EntryNotFound", f"{sha256} is not here")
    return some_bytes(repository.large_files[sha256], sha256)


def some_bytes(content: bytes, etag: str) -> Response:
    """The content, or the range of it that the request asks for."""
    answer = Response(content, mimetype="application/octet-stream")
    answer.set_etag(etag)
    return answer.make_conditional(request, accept_ranges=True, complete_length=len(content))
