"""Pushing a model to the Hub: what is on the list, searched for what is private, in one commit.

What goes over the network, and what is done about a network that fails, is huggingface_hub's: contents that the Hub has
by their hash are not sent again, so that an interrupted push goes on by being begun again.
"""

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # its docs name it so
from jinja2 import TemplateError

from hfgpt.errors import UserError
from hfgpt.serving.gpt2_layout import HEADS, head_of, save_as_gpt2
from hfgpt.serving.loading import load_model

from .allow_list import CARD, LeftOut, PushedFile, Selection, files_to_push, is_model_file
from .cards import render_card
from .facts_file import CARD_FACTS, read_facts
from .hub_errors import said_in_a_sentence, with_patience
from .minimal_card import minimal_card
from .secrets import refuse_private

__all__ = ["Layout", "Pushed", "add_card", "check_account", "push", "rendered_card"]

logger = logging.getLogger(__name__)

Layout = Literal["hfgpt", "gpt2"]


@dataclass(frozen=True)
class Pushed:
    """What was pushed, or would be."""

    repo_id: str
    files: list[PushedFile]
    left_out: list[LeftOut]
    deleted: list[str] = field(default_factory=list)
    """Files of another model that stood in the repository and would have been loaded with this one."""
    url: str | None = None
    """Of the repository, or of the pull request; None in a dry run."""
    commit: str | None = None
    """The commit's hash; None in a dry run."""
    created: bool = False
    """Whether the repository was made for this push."""


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
        revision: The branch to push to, which is created where there is none. Default: the main one.
        create_pr: Propose the push as a pull request, to a repository that is there.
        dry_run: Find out what would be pushed, and ask the Hub nothing.
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
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UserError("What is given as --token is no token: it is empty, or has a blank, a line's end or the like.")
    api = HfApi(token=token)
    with _selected(folder, layout) as selection:
        refuse_private(selection.files, repo_id)  # before anything is asked of the Hub
        if not dry_run:
            repo_id = check_account(repo_id, api, propose=create_pr)
        files = add_card(selection, repo_id, layout) if with_card else selection.files
        refuse_private([file for file in files if file.path == CARD], repo_id)
        for card in (file for file in files if file.path == CARD):
            _head_of(card)
        if dry_run:
            return Pushed(repo_id, files, selection.left_out)
        target = _Target(api, repo_id, private=private, revision=revision, create_pr=create_pr)
        return target.receive(files, selection.left_out, commit_message or "Push the model with hfgpt")


def _check_name(repo_id: str) -> None:
    """Refuse what cannot be a repository's name, before the network is needed."""
    for kind in ("datasets", "spaces", "models"):
        if repo_id.startswith((f"{kind}/", f"{constants.ENDPOINT}/{kind}/")):
            raise UserError(f"{repo_id!r} begins with {kind}/: give the model's own name, like your-name/my-model.")
    with said_in_a_sentence(repo_id):
        validate_repo_id(repo_id)


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
        if _description(api, full_name) is None:
            for kind in ("dataset", "space"):
                if with_patience(lambda kind=kind: api.repo_exists(full_name, repo_type=kind)):  # type: ignore[misc]
                    raise UserError(f"{full_name} is a {kind} on the Hub: give the model another name.")
    return full_name


def _description(api: HfApi, repo_id: str) -> Any:
    """What the Hub says of a model repository; None if there is none."""
    try:
        return with_patience(lambda: api.model_info(repo_id))
    except RepositoryNotFoundError as error:
        if type(error) is not RepositoryNotFoundError:  # a gated one is there
            raise
        return None


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


def add_card(selection: Selection, repo_id: str, layout: Layout) -> list[PushedFile]:
    """The files, and a card that knows the repository's name.

    A card that was written by hand, or changed, is left as it is.
    """
    own, recorded = selection.find(CARD), selection.find(CARD_FACTS)
    if recorded is not None:
        if own is not None and own.read().decode().strip() != rendered_card(recorded).strip():
            logger.warning(
                "%s is not the card that %s makes (edited, or by another hfgpt): it is pushed as it is.",
                own.source,
                CARD_FACTS,
            )
            return selection.files
        card, source = rendered_card(recorded, repo_id=repo_id, layout=layout), recorded.source
    elif own is not None:
        return selection.files
    else:
        config = selection.find("config.json")
        assert config is not None  # or there would be no selection
        card, source = str(minimal_card(json.loads(config.read()), repo_id)), config.source
    files = [file for file in selection.files if file.path != CARD]
    return sorted([*files, PushedFile(CARD, source, card.encode())], key=lambda file: file.path)


def _head_of(card: PushedFile) -> ModelCard:
    """The card as huggingface_hub reads it.

    Raises:
        UserError: If its machine-readable head is no YAML, or says what a head cannot.
    """
    try:
        return ModelCard(card.read().decode())
    except (yaml.YAMLError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"The head of {card.source} cannot be read ({said}): mend it.") from error


def rendered_card(recorded: PushedFile, **options: Any) -> str:
    """The card that the facts in a file make.

    Raises:
        UserError: If they are not whole.
    """
    try:
        return str(render_card(read_facts(recorded.source), **options))
    except (TemplateError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{recorded.source} is not whole ({' '.join(str(error).split())}), so that no card can be made of it: "
            f"delete it, and {CARD} is pushed as it is."
        ) from error


class _Target:
    """The repository that receives a push."""

    def __init__(
        self, api: HfApi, repo_id: str, *, private: bool | None, revision: str | None, create_pr: bool
    ) -> None:
        self.api, self.repo_id, self.private = api, repo_id, private
        self.revision, self.create_pr = revision, create_pr
        self.url = f"{constants.ENDPOINT}/{repo_id}"
        self.created = False

    def receive(self, files: list[PushedFile], left_out: list[LeftOut], message: str) -> Pushed:
        """Create what is missing, send what the Hub has not, and make it one commit."""
        try:
            with said_in_a_sentence(self.repo_id, self._so_far):
                for card in (file for file in files if file.path == CARD):  # before anything is made
                    with_patience(lambda card=card: _head_of(card).validate())  # type: ignore[misc]
                self._prepare()
                deleted = self._outdated({file.path for file in files})
                additions = [CommitOperationAdd(file.path, _content(file)) for file in files]
                # The library repeats these requests by itself, and the commit's not.
                self.api.preupload_lfs_files(
                    self.repo_id, additions, revision=self.revision, create_pr=self.create_pr, free_memory=False
                )
                operations = [*additions, *(CommitOperationDelete(path) for path in deleted)]
                commit = with_patience(lambda: self._commit(operations, message))
        except KeyboardInterrupt:
            if self.created:
                logger.warning(
                    "Interrupted%s; push again, and what has arrived is not sent a second time.", self._so_far()
                )
            raise
        url = commit.pr_url or (self.url if self.revision is None else f"{self.url}/tree/{self.revision}")
        return Pushed(self.repo_id, files, left_out, deleted, url, commit.oid, self.created)

    def _commit(self, operations: list[Any], message: str) -> Any:
        return self.api.create_commit(
            self.repo_id, operations, commit_message=message, revision=self.revision, create_pr=self.create_pr
        )

    def _so_far(self) -> str:
        return f"; {self.url} was created for the push and is still without the model" if self.created else ""

    def _prepare(self) -> None:
        """Have a repository, and the branch in it.

        Raises:
            UserError: If there is a public one where a private one was asked for, or the other way round; or none to
                propose something to.
        """
        description = _description(self.api, self.repo_id)
        if description is None and self.create_pr:
            raise UserError(f"There is no {self.repo_id} on the Hub to propose a push to: push without --pr.")
        if description is None:
            with_patience(lambda: self.api.create_repo(self.repo_id, private=self.private, exist_ok=True))
            self.created = True
        elif self.private is not None and description.private != self.private and not self.create_pr:
            asked, found = ("private", "public") if self.private else ("public", "private")
            raise UserError(
                f"{self.repo_id} is {found}, and a {asked} repository was asked for: change it on {self.url}/settings, "
                "or give another name."
            )
        if self.revision is not None and not self.create_pr:
            branch = self.revision
            with_patience(lambda: self.api.create_branch(self.repo_id, branch=branch, exist_ok=True))

    def _outdated(self, pushed: set[str]) -> list[str]:
        """Weights, tokenizers and the like of another model, which `from_pretrained` would mix with this one's."""
        if self.created:
            return []
        found = with_patience(lambda: self.api.list_repo_files(self.repo_id, revision=self.revision))
        return sorted(path for path in found if is_model_file(path) and path not in pushed)


def _content(file: PushedFile) -> str | bytes:
    return str(file.source) if file.content is None else file.content
