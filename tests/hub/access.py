"""Who asks, what they may do, and how the Hub says no."""

from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, current_app, g, jsonify, request

from .store import KINDS, NotHereError, Repository, Store, User

__all__ = ["RefusedError", "Settings", "add_access", "readable", "settings", "writable"]

SINGULAR = {plural: kind for kind, plural in KINDS.items()}


@dataclass
class Settings:
    """What the routes work with: the store, the tokens and their owners, addresses, and sizes that tests make small.

    `cdn` is this same server by another host name: large files are redirected there, as the Hub redirects them, so that
    the client must leave its token behind.
    """

    store: Store
    endpoint: str
    cdn: str
    tokens: dict[str, User]
    page_size: int = 1000  # entries of a listing in one answer
    part_size: int = 5_000_000  # large files above this are uploaded in parts
    upload_keys: dict[str, tuple[Repository, str, int]] = field(default_factory=dict)
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)


class RefusedError(Exception):
    """The Hub says no, with a status and the sentence that the client repeats."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def settings() -> Settings:
    found: Settings = current_app.extensions["hub"]
    return found


def add_access(app: Flask) -> None:
    """Find out who asks before each request, and turn refusals into the Hub's answers."""
    app.before_request(recognise)
    app.register_error_handler(NotHereError, not_here)
    app.register_error_handler(RefusedError, refused)


def recognise() -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not scheme:
        g.user = User()
    elif token in settings().tokens:
        g.user = settings().tokens[token]
    else:
        said = "Invalid credentials in Authorization header"
        raise RefusedError(401, said, X_Error_Message=said)


def not_here(error: NotHereError) -> tuple[Response, int]:
    # Whoever has not signed in is not told whether a repository is missing or private.
    status = 401 if error.code == "RepoNotFound" and g.user.name is None else 404
    answer = jsonify(error=str(error))
    answer.headers |= {"X-Error-Code": error.code, "X-Error-Message": str(error)}
    if error.commit:
        answer.headers["X-Repo-Commit"] = error.commit
    return answer, status


def refused(error: RefusedError) -> tuple[Response, int]:
    answer = jsonify(error=str(error))
    answer.headers |= error.headers
    return answer, error.status


def readable(kinds: str, namespace: str, name: str) -> Repository:
    """The repository that a path names, if whoever asks may read it."""
    repository = settings().store.get(f"{namespace}/{name}", SINGULAR[kinds])
    if repository.private and not g.user.owns(namespace):
        raise NotHereError("RepoNotFound", "Repository not found")
    if repository.gated and not g.user.owns(namespace):
        said = f"Access to {repository.kind} {repository.repo_id} is restricted and you are not in the authorized list."
        raise RefusedError(401 if g.user.name is None else 403, said, X_Error_Code="GatedRepo", X_Error_Message=said)
    return repository


def writable(kinds: str, namespace: str, name: str, propose: bool = False) -> Repository:
    """The repository that a path names, if whoever asks may write to it; or `propose`, which is open to everybody."""
    require_write_token()
    repository = readable(kinds, namespace, name)
    if not propose:
        require_rights(namespace, repository.kind)
    return repository


def require_write_token() -> None:
    if g.user.name is None:
        raise RefusedError(401, "Invalid username or password.")
    if g.user.role != "write":
        raise RefusedError(403, "Forbidden: you must use a write token to upload to a repository.")


def require_rights(namespace: str, kind: str) -> None:
    if not g.user.owns(namespace):
        raise RefusedError(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')


def payload() -> dict[str, Any]:
    """The JSON object that the request carries; none is an empty one."""
    return request.get_json(silent=True) or {}
