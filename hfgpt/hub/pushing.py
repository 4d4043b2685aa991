"""Pushing a model to the Hub: what is on the list, searched for what is private, in one commit.

What goes over the network, and what is done about a network that fails, is huggingface_hub's: contents that the Hub has
by their hash are not sent again, so that an interrupted push goes on by being begun again.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its docs name it so

from hfgpt.errors import UserError
from hfgpt.serving.gpt2_layout import HEADS, head_of, save_as_gpt2
from hfgpt.serving.loading import load_model

from .allow_list import CARD, PushedFile, Selection, files_to_push
from .cards import Layout
from .facts_file import CARD_FACTS
from .hub_errors import said_in_a_sentence, with_patience
from .present import name_replaced_card
from .push_target import Pushed, PushTarget, description_of
from .pushed_card import add_card, read_card
from .secrets import refuse_private

__all__ = ["Layout", "Pushed", "check_account", "push"]

NO_BRANCH = re.compile(r"^$|^@$|^refs/(?!pr/\d+$)|^[-./]|[./]$|\.lock(/|$)|[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|/\.|@\{")


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    layout: Layout = "hfgpt",
    token: str | None = None,
    commit_message: str | None = None,
    with_card: bool = True,
) -> Pushed:
    """Push a model, and what belongs to it, to the Hub: all of it in one commit, or nothing.

    Args:
        folder: That of a run, or of a saved model such as a run's `final/`.
        repo_id: `organisation/name`, or `name` for one of your own. The repository is created where there is none.
        private: Whether a new repository is private. Default: as the account's settings say.
        revision: The branch to push to, which is created where there is none; or a pull request that is open, as
            `refs/pr/3`. Default: the main branch.
        create_pr: Propose the push as a pull request, to a repository that is there.
        dry_run: Find out what would be pushed, and ask the Hub nothing: what would be deleted there is not found out.
        layout: `gpt2` is what opens without hfgpt's code; refused where GPT-2 cannot compute the model.
        token: Default: the one that `hf auth login` has saved, or HF_TOKEN.
        commit_message: Default: "Push the model with hfgpt".
        with_card: Whether a card is made where the folder has none, or only facts.

    Raises:
        UserError: If there is no model in the folder, or something private in its files; or if the Hub refuses.
        OutageError: If the Hub, or the network on the way to it, has failed for longer than patience lasts.
    """
    folder = Path(folder).expanduser()
    _check_name(repo_id)
    _check_branch(revision, create_pr)
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UserError("What is given as --token is no token: it is empty, or has a blank, a line's end or the like.")
    api = HfApi(token=token)
    with _selected(folder, layout) as selection:
        message = commit_message or "Push the model with hfgpt"
        said = PushedFile("the commit's message", Path("the commit's message"), message.encode())
        refuse_private([said, *selection.files], repo_id)  # before anything is asked of the Hub
        if not dry_run:
            repo_id = check_account(repo_id, api, propose=create_pr)
        files = add_card(selection, repo_id, layout) if with_card else selection.files
        refuse_private([file for file in files if file.path in (CARD, CARD_FACTS)], repo_id)
        for card in (file for file in files if file.path == CARD):
            head = read_card(card)
            if not dry_run:  # before anything is made
                with said_in_a_sentence(repo_id):
                    with_patience(head.validate)
                    if with_card:
                        name_replaced_card(api, repo_id, revision, card)
        if dry_run:
            return Pushed(repo_id, files, selection.left_out)
        target = PushTarget(api, repo_id, private=private, revision=revision, create_pr=create_pr)
        return target.receive(files, selection.left_out, message)


def _check_name(repo_id: str) -> None:
    """Refuse what cannot be a repository's name, before the network is needed."""
    for kind in ("datasets", "spaces", "models"):
        if repo_id.startswith((f"{kind}/", f"{constants.ENDPOINT}/{kind}/")):
            raise UserError(f"{repo_id!r} begins with {kind}/: give the model's own name, like your-name/my-model.")
    with said_in_a_sentence(repo_id):
        validate_repo_id(repo_id)


def _check_branch(revision: str | None, create_pr: bool) -> None:
    """Refuse what cannot be a branch's name by the rules of git-check-ref-format, before the network is needed."""
    if revision is None:
        return
    if NO_BRANCH.search(revision):
        raise UserError(f"{revision!r} cannot be the name of a branch: give --revision one like trial-2.")
    if create_pr and revision != constants.DEFAULT_REVISION:
        raise UserError(
            f"A pull request is opened to the main branch, not to {revision}: leave out --revision or --pr."
        )


def check_account(repo_id: str, api: HfApi, *, propose: bool = False) -> str:
    """Check the name of a repository and that this account may write to it, as far as the Hub tells; writes nothing.

    Args:
        propose: Whether the push is to be a pull request only, which anybody may make.

    Returns:
        The repository's full name, with the account's where only a name was given.

    Raises:
        UserError: If name, token or rights are wrong, or another kind of repository has the name.
        OutageError: If the Hub cannot be asked.
    """
    _check_name(repo_id)
    with said_in_a_sentence(repo_id):
        account = with_patience(api.whoami)
    name, organizations = account["name"], [organization["name"] for organization in account.get("orgs", [])]
    full_name = repo_id if "/" in repo_id else f"{name}/{repo_id}"
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise UserError(
            f"The token of {name} may only read: make one that may write ({constants.ENDPOINT}/settings/tokens), and "
            "log in with hf auth login."
        )
    namespace = full_name.partition("/")[0]
    if role == "write" and not propose and namespace not in (name, *organizations):
        own = ", ".join([name, *organizations])
        raise UserError(
            f"{name} may not write to {full_name}, for {namespace} is no organisation of that account: push to one of "
            f"{own}, or propose the push with --pr."
        )
    with said_in_a_sentence(full_name):
        if description_of(api, full_name) is None:
            for kind in ("dataset", "space"):
                if with_patience(lambda kind=kind: api.repo_exists(full_name, repo_type=kind)):  # type: ignore[misc]
                    raise UserError(f"{full_name} is a {kind} on the Hub: give the model another name.")
    return full_name


@contextmanager
def _selected(folder: Path, layout: Layout) -> Iterator[Selection]:
    """What is pushed of a folder; in GPT-2's layout, weights and configuration are written anew, for so long."""
    selection = files_to_push(folder)
    if layout == "hfgpt":
        yield selection
        return
    model_folder = folder if (folder / "config.json").is_file() else folder / "final"
    head = head_of(str(model_folder))
    with tempfile.TemporaryDirectory(prefix="hfgpt-push-") as name:
        save_as_gpt2(load_model(model_folder, HEADS[head][0]), head, Path(name))
        converted = files_to_push(Path(name)).files
        written = {file.path for file in converted}
        kept = [
            file
            for file in selection.files
            if file.path not in written and not file.path.endswith((".py", ".safetensors", ".safetensors.index.json"))
        ]
        yield Selection(sorted([*kept, *converted], key=lambda file: file.path), selection.left_out)
