"""Routes about repositories: who am I, create, describe, list, branches, tags, history."""

from typing import Any

import yaml
from flask import Blueprint, Response, g, jsonify, request

from .access import SINGULAR, RefusedError, payload, readable, require_rights, require_write_token, settings, writable
from .cards import front_matter
from .store import MAIN, Commit, NotHereError, Repository, StoredFile, timestamp

__all__ = ["blueprint"]

blueprint = Blueprint("repositories", __name__, url_prefix="/api")
REPOSITORY = "/<any(models, datasets, spaces):kinds>/<namespace>/<name>"


@blueprint.get("/whoami-v2")
def whoami() -> Response:
    if g.user.name is None:
        raise RefusedError(401, "Invalid username or password.")
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in g.user.organizations]
    token = {"displayName": g.user.role, "role": g.user.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    return jsonify(
        type="user", id="1", name=g.user.name, fullname=g.user.name, isPro=False, orgs=organizations,
        auth={"type": "access_token", "accessToken": token},
    )  # fmt: skip


@blueprint.post("/repos/create")
def create() -> Response | tuple[Response, int]:
    require_write_token()
    wanted = payload()
    namespace, kind = wanted.get("organization") or g.user.name, wanted.get("type", "model")
    require_rights(namespace, kind)
    repo_id, store = f"{namespace}/{wanted['name']}", settings().store
    private = wanted.get("private", False) or wanted.get("visibility") == "private"
    with store.lock:
        exists = (repo_id, kind) in store.repositories
        repository = store.get(repo_id, kind) if exists else store.create(repo_id, kind, g.user.name, private)
    url = f"{settings().endpoint}/{repository.path}"
    if exists:
        return jsonify(error=f"You already created this {kind} repo: {repo_id}", url=url), 409
    return jsonify(url=url, name=repo_id, id="1")


@blueprint.delete("/repos/delete")
def delete() -> Response:
    require_write_token()
    wanted = payload()
    namespace, kind = wanted.get("organization") or g.user.name, wanted.get("type", "model")
    store = settings().store
    with store.lock:
        repository = store.get(f"{namespace}/{wanted['name']}", kind)
        require_rights(namespace, kind)
        del store.repositories[repository.repo_id, kind]
    return jsonify(success=True)


@blueprint.get("/<any(models, datasets, spaces):kinds>/<name>")
def without_namespace(kinds: str, name: str) -> Response:
    raise NotHereError("RepoNotFound", f"Repository not found: {SINGULAR[kinds]} {name}")


@blueprint.get(REPOSITORY)
@blueprint.get(f"{REPOSITORY}/revision/<path:revision>")
def describe(kinds: str, namespace: str, name: str, revision: str = MAIN) -> Response:
    repository = readable(kinds, namespace, name)
    commit = repository.commit(revision)
    sized = "blobs" in request.args
    facts: dict[str, Any] = {
        "_id": repository.repo_id,
        "id": repository.repo_id,
        "author": namespace,
        "sha": commit.oid,
        "lastModified": timestamp(commit.date),
        "createdAt": timestamp(repository.created),
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "siblings": [sibling(path, file, sized) for path, file in sorted(commit.files.items())],
    }
    card = read_card(commit)
    facts |= {"cardData": card, "tags": tags(card)}
    if repository.kind == "model":
        facts |= {key: card[key] for key in ("pipeline_tag", "library_name", "model-index") if key in card}
        facts |= {"modelId": repository.repo_id, "spaces": []}
    return jsonify(facts)


def read_card(commit: Commit) -> dict[str, Any]:
    card = commit.files.get("README.md")
    try:
        return front_matter(card.content.decode()) if card else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # such a card was refused when it was pushed; one that was put there is as good as none


def tags(card: dict[str, Any]) -> list[str]:
    """The tags that the Hub makes of a card's fields."""
    found = [card[key] for key in ("library_name", "pipeline_tag") if key in card] + (card.get("tags") or [])
    for key, prefix in {"license": "license:", "datasets": "dataset:", "base_model": "base_model:"}.items():
        values = card.get(key) or []
        found += [prefix + value for value in ([values] if isinstance(values, str) else values)]
    return list(dict.fromkeys(found))


def sibling(path: str, file: StoredFile, sized: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"rfilename": path}
    if sized:
        facts |= {"size": len(file.content), "blobId": file.blob_id}
        if file.is_large:
            facts["lfs"] = {"sha256": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
    return facts


@blueprint.get(f"{REPOSITORY}/auth-check")
@blueprint.get(f"{REPOSITORY}/auth-check/write", defaults={"write": True})
def check_access(kinds: str, namespace: str, name: str, write: bool = False) -> Response:
    (writable if write else readable)(kinds, namespace, name)
    return jsonify(success=True)


@blueprint.put(f"{REPOSITORY}/settings")
def change_settings(kinds: str, namespace: str, name: str) -> Response:
    repository, wanted = writable(kinds, namespace, name), payload()
    if "visibility" in wanted or "private" in wanted:
        repository.private = wanted.get("private", False) or wanted.get("visibility") == "private"
    if "gated" in wanted:
        repository.gated = bool(wanted["gated"])
    return jsonify(success=True)


@blueprint.get(f"{REPOSITORY}/tree/<path:path>")
def tree(kinds: str, namespace: str, name: str, path: str) -> Response:
    repository = readable(kinds, namespace, name)
    revision, folder = repository.split_revision(path)
    commit = repository.commit(revision)
    folders = commit.folders()
    if folder and folder not in folders:
        raise NotHereError("EntryNotFound", f"{folder} does not exist on {revision}", commit=commit.oid)
    inside = f"{folder}/" if folder else ""
    recursive = request.args.get("recursive", "").lower() in ("true", "1")
    entries = [entry(commit, path) for path in sorted([*folders, *commit.files]) if path.startswith(inside)]
    if not recursive:
        entries = [found for found in entries if "/" not in found["path"].removeprefix(inside)]
    return one_page(entries)


def entry(commit: Commit, path: str) -> dict[str, Any]:
    """A file or a folder as listings show it."""
    last = {"id": commit.oid, "title": commit.title, "date": timestamp(commit.date)}
    detail = {"lastCommit": last} if request.values.get("expand", "").lower() in ("true", "1") else {}
    if path not in commit.files:
        return {"type": "directory", "path": path, "oid": commit.folders()[path], "size": 0} | detail
    file = commit.files[path]
    facts = {"type": "file", "path": path, "oid": file.blob_id, "size": len(file.content)} | detail
    if file.is_large:
        facts["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": len(file.pointer)}
    return facts


def one_page(entries: list[dict[str, Any]]) -> Response:
    """The part of a long list that the request's cursor asks for, and where the next one is found."""
    begin = int(request.args.get("cursor", 0))
    end = begin + settings().page_size
    answer = jsonify(entries[begin:end])
    if end < len(entries):
        more = "&".join(f"{key}={value}" for key, value in ({**request.args, "cursor": end}).items())
        answer.headers["Link"] = f'<{settings().endpoint}{request.path}?{more}>; rel="next"'
    return answer


@blueprint.post(f"{REPOSITORY}/paths-info/<path:revision>")
def paths_info(kinds: str, namespace: str, name: str, revision: str) -> Response:
    commit = readable(kinds, namespace, name).commit(revision)
    paths = [path.strip("/") for path in request.form.getlist("paths") or payload().get("paths", [])]
    folders = commit.folders()
    return jsonify([entry(commit, path) for path in paths if path in commit.files or path in folders])


@blueprint.get(f"{REPOSITORY}/commits/<path:revision>")
def history(kinds: str, namespace: str, name: str, revision: str) -> Response:
    repository = readable(kinds, namespace, name)
    return one_page(
        [
            {"id": commit.oid, "title": commit.title, "message": commit.message, "date": timestamp(commit.date),
             "authors": [{"user": commit.author}]}
            for commit in repository.history(revision)
        ]
    )  # fmt: skip


@blueprint.get(f"{REPOSITORY}/refs")
def refs(kinds: str, namespace: str, name: str) -> Response:
    repository = readable(kinds, namespace, name)

    def under(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
            for ref, oid in repository.refs.items()
            if ref.startswith(prefix)
        ]

    found = {"branches": under("refs/heads/"), "tags": under("refs/tags/"), "converts": []}
    if "include_prs" in request.args:
        found["pullRequests"] = [ref | {"name": ref["ref"]} for ref in under("refs/pr/")]
    return jsonify(found)


@blueprint.post(f"{REPOSITORY}/branch/<path:branch>")
def create_branch(kinds: str, namespace: str, name: str, branch: str) -> Response:
    repository = writable(kinds, namespace, name)
    return new_ref(repository, f"refs/heads/{branch}", payload().get("startingPoint", MAIN))


@blueprint.post(f"{REPOSITORY}/tag/<path:revision>")
def create_tag(kinds: str, namespace: str, name: str, revision: str) -> Response:
    return new_ref(writable(kinds, namespace, name), f"refs/tags/{payload()['tag']}", revision)


def new_ref(repository: Repository, ref: str, revision: str) -> Response:
    if ref in repository.refs:
        raise RefusedError(409, f"Reference already exists: {ref}")
    repository.refs[ref] = repository.commit(revision).oid
    return jsonify(success=True)


@blueprint.delete(f"{REPOSITORY}/branch/<path:ref>", defaults={"prefix": "refs/heads/"})
@blueprint.delete(f"{REPOSITORY}/tag/<path:ref>", defaults={"prefix": "refs/tags/"})
def delete_ref(kinds: str, namespace: str, name: str, ref: str, prefix: str) -> Response:
    repository = writable(kinds, namespace, name)
    if prefix + ref == f"refs/heads/{MAIN}":
        raise RefusedError(403, "The default branch cannot be deleted")
    if repository.refs.pop(prefix + ref, None) is None:
        raise NotHereError("RevisionNotFound", f"Invalid rev id: {ref}")
    return jsonify(success=True)
