"""`hfgpt push`: a trained model to the Hub, or, with --dry-run, what that would send."""

import json
from pathlib import Path

from hfgpt.hub.pushing import Layout, Pushed, push
from hfgpt.recipes.console import print_table

__all__ = ["run"]


def run(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None,
    revision: str | None,
    create_pr: bool,
    dry_run: bool,
    layout: Layout,
    token: str | None,
    message: str | None,
    as_json: bool,
) -> None:
    """Push, and say what went and what stayed.

    Raises:
        UserError: As `hfgpt.hub.pushing.push`.
        OutageError: Likewise.
    """
    pushed = push(
        folder,
        repo_id,
        private=private,
        revision=revision,
        create_pr=create_pr,
        dry_run=dry_run,
        layout=layout,
        token=token,
        commit_message=message,
    )
    if as_json:
        print(json.dumps(_as_dict(pushed), indent=2, ensure_ascii=False))
    else:
        _print(pushed)


def _as_dict(pushed: Pushed) -> dict[str, object]:
    return {
        "repo_id": pushed.repo_id,
        "url": pushed.url,
        "commit": pushed.commit,
        "created": pushed.created,
        "unchanged": pushed.unchanged,
        "files": [{"path": file.path, "bytes": file.num_bytes, "lfs": file.is_lfs} for file in pushed.files],
        "left_out": [{"path": item.path, "reason": item.reason} for item in pushed.left_out],
        "deleted": pushed.deleted,
    }


def _print(pushed: Pushed) -> None:
    total = sum(file.num_bytes for file in pushed.files)
    if pushed.url is None:
        rows = [[file.path, f"{file.num_bytes:,}", "LFS" if file.is_lfs else "git"] for file in pushed.files]
        print_table(f"Would be pushed to {pushed.repo_id}", ["file", "bytes", "kept in"], rows)
        for item in pushed.left_out:
            print(f"left out: {item.path} ({item.reason})")
        print("deleted there: what another model has left, if anything; only a push looks for it, and names it")
        print(f"{len(pushed.files)} files, {total:,} bytes; nothing was sent.")
        return
    for item in pushed.left_out:
        print(f"left out: {item.path} ({item.reason})")
    for path in pushed.deleted:
        print(f"deleted there: {path}, which was another model's")
    if pushed.unchanged:
        print(f"All {len(pushed.files)} files are in {pushed.repo_id} already, and no commit was made: {pushed.url}")
        return
    created = " (new)" if pushed.created else ""
    print(f"Pushed {len(pushed.files)} files, {total:,} bytes, to {pushed.repo_id}{created}: {pushed.url}")
