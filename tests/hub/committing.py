"""Routes of an upload, in its order: how each file is to be sent, the large ones, the commit.

Of Xet, by which `hf_xet` sends the large ones where it is installed, there is only the token: its storage is not served
here.
"""

import base64
import hashlib
import json
import secrets
import time
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from .access import RefusedError, payload, require_rights, settings, writable
from .store import MAIN, NotHereError, Repository, StoredFile

__all__ = ["blueprint"]

blueprint = Blueprint("committing", __name__)
REPOSITORY = "/api/<any(models, datasets, spaces):kinds>/<namespace>/<name>"


def open_to(kinds: str, namespace: str, name: str, revision: str | None) -> Repository:
    """The repository, if whoever asks may write to this revision of it; None is a pull request yet to be opened.

    Whoever can read may propose, and add to what they have proposed.
    """
    repository = writable(kinds, namespace, name, propose=True)
    own = [f"refs/pr/{found.number}" for found in repository.pull_requests if found.author == g.user.name]
    if revision not in (None, *own) and "create_pr" not in request.args:
        require_rights(namespace, repository.kind)
    return repository


@blueprint.post(f"{REPOSITORY}/preupload/<path:revision>")
def preupload(kinds: str, namespace: str, name: str, revision: str) -> Response:
    files = open_to(kinds, namespace, name, revision).commit(revision).files
    ignored = [line for line in payload().get("gitIgnore", "").split("\n") if line and not line.startswith("#")]

    def mode(path: str, size: int) -> dict[str, Any]:
        found = {
            "path": path,
            "uploadMode": "lfs" if settings().store.is_large(path, size) else "regular",
            "shouldIgnore": any(fnmatch(path, line) or fnmatch(PurePosixPath(path).name, line) for line in ignored),
        }
        return found | ({"oid": files[path].etag} if path in files else {})

    return jsonify(files=[mode(file["path"], file["size"]) for file in payload()["files"]])


@blueprint.post("/<namespace>/<name>.git/info/lfs/objects/batch", defaults={"kinds": "models"})
@blueprint.post("/<any(datasets, spaces):kinds>/<namespace>/<name>.git/info/lfs/objects/batch")
def large_file_batch(kinds: str, namespace: str, name: str) -> Response:
    repository = open_to(kinds, namespace, name, payload().get("ref", {}).get("name"))
    wanted = [(found["oid"], int(found["size"])) for found in payload()["objects"]]
    return jsonify(transfer="basic", objects=[upload(repository, oid, size) for oid, size in wanted])


def upload(repository: Repository, oid: str, size: int) -> dict[str, Any]:
    """Where to send a large file, in one piece or in parts; nowhere, if its content is already here."""
    answer: dict[str, Any] = {"oid": oid, "size": size}
    if oid in repository.large_files:
        return answer
    hub, key = settings(), secrets.token_urlsafe(16)
    hub.upload_keys[key] = repository, oid, size
    url = f"{hub.endpoint}/lfs-storage/{key}"
    verify = {"href": f"{hub.endpoint}/{repository.path}.git/info/lfs/objects/verify"}
    if size <= hub.part_size:
        return answer | {"actions": {"upload": {"href": url}, "verify": verify}}
    count = -(-size // hub.part_size)
    parts = {str(number): f"{url}/{number}" for number in range(1, count + 1)}
    header = {"chunk_size": str(hub.part_size), **parts}
    return answer | {"actions": {"upload": {"href": f"{url}/complete", "header": header}, "verify": verify}}


@blueprint.get(f"{REPOSITORY}/xet-write-token/<path:revision>")
def xet_write_token(kinds: str, namespace: str, name: str, revision: str) -> Response:
    open_to(kinds, namespace, name, revision)
    return jsonify(accessToken="xet", exp=int(time.time()) + 900, casUrl=f"{settings().endpoint}/xet-storage")


# The storage is another service, which knows no tokens: whoever has the address may write there.
@blueprint.put("/lfs-storage/<key>")
def receive(key: str) -> Response:
    return keep(key, request.get_data())


@blueprint.put("/lfs-storage/<key>/<int:number>")
def receive_part(key: str, number: int) -> Response:
    content = request.get_data()
    settings().parts[key, number] = content
    answer = jsonify(success=True)
    answer.headers["ETag"] = f'"{hashlib.md5(content).hexdigest()}"'  # noqa: S324  # as the storage names it
    return answer


@blueprint.post("/lfs-storage/<key>/complete")
def complete(key: str) -> Response:
    numbers = [part["partNumber"] for part in payload()["parts"]]
    return keep(key, b"".join(settings().parts.pop((key, number)) for number in numbers))


def keep(key: str, content: bytes) -> Response:
    if key not in settings().upload_keys:
        raise RefusedError(403, "The signature of this address is not valid")
    repository, oid, size = settings().upload_keys[key]
    if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
        raise RefusedError(400, f"BadDigest: {len(content)} bytes arrived that are not the {size} of {oid}")
    repository.large_files[oid] = content
    return jsonify(success=True)


@blueprint.post("/<namespace>/<name>.git/info/lfs/objects/verify", defaults={"kinds": "models"})
@blueprint.post("/<any(datasets, spaces):kinds>/<namespace>/<name>.git/info/lfs/objects/verify")
def verify(kinds: str, namespace: str, name: str) -> Response:
    repository = writable(kinds, namespace, name, propose=True)
    if payload()["oid"] not in repository.large_files:
        raise RefusedError(404, "The object is not in the storage")
    return jsonify(success=True)


@blueprint.post(f"{REPOSITORY}/commit/<path:revision>")
def commit(kinds: str, namespace: str, name: str, revision: str) -> Response:
    proposed = "create_pr" in request.args
    repository = open_to(kinds, namespace, name, revision)
    operations = [json.loads(line) for line in request.get_data().splitlines() if line.strip()]
    header = next(found["value"] for found in operations if found["key"] == "header")
    with settings().store.lock:
        ref = f"refs/heads/{revision}" if not revision.startswith("refs/") else revision
        if ref not in repository.refs:
            raise NotHereError("RevisionNotFound", f"Invalid rev id: {revision}")
        parent = header.get("parentCommit")
        if parent and not repository.refs[ref].startswith(parent):
            raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
        # All operations on a copy: a commit is whole, or it is not there.
        files = dict(repository.commit(revision).files)
        for operation in operations:
            apply(operation["key"], operation["value"], files, repository)
        if proposed:
            message = header.get("description", "")
            pull_request = repository.open_pull_request(header["summary"], message, g.user.name, revision)
            ref = f"refs/pr/{pull_request.number}"
        made = repository.add_commit(ref, files, header["summary"], header.get("description", ""), g.user.name)
        if ref == f"refs/heads/{MAIN}":
            settings().store.write_back(repository)
    url = f"{settings().endpoint}/{repository.path}"
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}", "hookOutput": ""}
    if proposed:
        answer["pullRequestUrl"] = f"{url}/discussions/{pull_request.number}"
    return jsonify(answer)


def apply(key: str, value: dict[str, Any], files: dict[str, StoredFile], repository: Repository) -> None:
    """One line of a commit."""
    path = value.get("path", "")
    if key == "file":
        content = value["content"]
        content = base64.b64decode(content) if value.get("encoding") == "base64" else content.encode()
        files[path] = StoredFile(content, is_large=False)
    elif key == "lfsFile":
        if value["oid"] not in repository.large_files:
            raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {path} ({value['oid']})")
        files[path] = StoredFile(repository.large_files[value["oid"]], is_large=True)
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise NotHereError("EntryNotFound", f"A file with this name doesn't exist: {path}")
    elif key == "deletedFolder":
        below = [found for found in files if found.startswith(f"{path.rstrip('/')}/")]
        if not below:
            raise NotHereError("EntryNotFound", f"A folder with this name doesn't exist: {path}")
        for found in below:
            del files[found]
    elif key != "header":
        raise RefusedError(400, f"Unknown operation: {key}")
