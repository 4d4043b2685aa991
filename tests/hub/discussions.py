"""Routes of pull requests: open, list, look at, close, merge. Discussions without a pull request are not kept."""

from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from .access import RefusedError, payload, readable, settings, writable
from .store import MAIN, NotHereError, PullRequest, Repository, timestamp

__all__ = ["blueprint"]

blueprint = Blueprint("discussions", __name__, url_prefix="/api")
REPOSITORY = "/<any(models, datasets, spaces):kinds>/<namespace>/<name>"


def facts(repository: Repository, found: PullRequest) -> dict[str, Any]:
    return {
        "num": found.number,
        "title": found.title,
        "author": {"name": found.author},
        "createdAt": timestamp(found.date),
        "status": found.status,
        "isPullRequest": True,
        "repo": {"name": repository.repo_id, "type": repository.kind},
    }


def one(repository: Repository, number: int) -> PullRequest:
    if not 0 < number <= len(repository.pull_requests):
        raise NotHereError("EntryNotFound", f"There is no pull request {number}")
    return repository.pull_requests[number - 1]


@blueprint.get(f"{REPOSITORY}/discussions")
def listing(kinds: str, namespace: str, name: str) -> Response:
    repository = readable(kinds, namespace, name)
    author = request.args.get("author")
    found = [facts(repository, found) for found in repository.pull_requests if author in (None, found.author)]
    return jsonify(discussions=found, count=len(found), start=0)


@blueprint.post(f"{REPOSITORY}/discussions")
def open_one(kinds: str, namespace: str, name: str) -> Response:
    repository, wanted = writable(kinds, namespace, name, propose=True), payload()
    if not wanted.get("pullRequest"):
        raise RefusedError(400, "Only pull requests are kept here")
    with settings().store.lock:
        found = repository.open_pull_request(wanted["title"], wanted.get("description", ""), g.user.name, MAIN)
    return jsonify(num=found.number, url=f"{settings().endpoint}/{repository.path}/discussions/{found.number}")


@blueprint.get(f"{REPOSITORY}/discussions/<int:number>")
def details(kinds: str, namespace: str, name: str, number: int) -> Response:
    repository = readable(kinds, namespace, name)
    found = one(repository, number)
    commits = [
        {"id": commit.oid, "type": "commit", "createdAt": timestamp(commit.date), "author": {"name": commit.author},
         "data": {"subject": commit.title, "oid": commit.oid}}
        for commit in repository.history(f"refs/pr/{number}")
        if commit.oid not in {below.oid for below in repository.history(found.base)}
    ]  # fmt: skip
    changes = {"base": f"refs/heads/{found.base}", "mergeCommitId": found.merge_commit}
    return jsonify(facts(repository, found) | {"changes": changes, "filesWithConflicts": [], "events": commits[::-1]})


@blueprint.post(f"{REPOSITORY}/discussions/<int:number>/merge")
def merge(kinds: str, namespace: str, name: str, number: int) -> Response:
    repository = writable(kinds, namespace, name)
    found = one(repository, number)
    with settings().store.lock:
        repository.merge(found, g.user.name)
        settings().store.write_back(repository)
    return jsonify(success=True)


@blueprint.post(f"{REPOSITORY}/discussions/<int:number>/status")
def change_status(kinds: str, namespace: str, name: str, number: int) -> Response:
    repository, wanted = writable(kinds, namespace, name), payload()
    found = one(repository, number)
    found.status = wanted["status"]
    event = {"id": f"status-{number}", "type": "status-change", "createdAt": timestamp(found.date)}
    return jsonify(newStatus=event | {"author": {"name": g.user.name}, "data": {"status": found.status}})
