"""The repository that receives a push: made where there is none, and given one commit."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # its docs name them so
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from hfgpt.errors import UserError

from .allow_list import CARD, RUN, RUN_CONFIG, LeftOut, PushedFile, is_model_file
from .facts_file import CARD_FACTS
from .hub_errors import TransportError, may_have_arrived, said_in_a_sentence, with_patience

__all__ = ["PushTarget", "Pushed", "description_of"]

logger = logging.getLogger(__name__)

PULL_REQUEST = "refs/pr/"


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
    """The hash of the newest commit, which is the push's unless it is `unchanged`; None in a dry run."""
    created: bool = False
    """Whether the repository was made for this push."""
    unchanged: bool = False
    """Whether all of it was there already, so that no commit was made and no pull request opened."""


def description_of(api: HfApi, repo_id: str) -> Any:
    """What the Hub says of a model repository; None if there is none."""
    try:
        return with_patience(lambda: api.model_info(repo_id))
    except RepositoryNotFoundError as error:
        if type(error) is not RepositoryNotFoundError:  # a gated one is there
            raise
        return None


class PushTarget:
    """The repository that receives a push."""

    def __init__(
        self, api: HfApi, repo_id: str, *, private: bool | None, revision: str | None, create_pr: bool
    ) -> None:
        self.api, self.repo_id, self.private = api, repo_id, private
        self.revision, self.create_pr = revision, create_pr
        self.url = f"{constants.ENDPOINT}/{repo_id}"
        self.created = False
        self.so_far = ""  # what was made, for the sentence of a failure
        self.is_in_doubt = False  # whether a commit was sent, and its answer did not come
        self.head: str | None = None  # of the branch, before the push
        self.refs: dict[str, str] = {}  # the commits of branches and pull requests, before the push
        self.operations: list[CommitOperationAdd | CommitOperationDelete] = []
        self.deleted: list[str] = []

    def receive(self, files: list[PushedFile], left_out: list[LeftOut], message: str) -> Pushed:
        """Create what is missing, send what the Hub has not, and make it one commit."""
        try:
            with said_in_a_sentence(self.repo_id, self._so_far):
                self._prepare()
                self._ask_for_storage()
                self._send(files)
                commit = with_patience(lambda: self._commit(message), lambda: self._look_again(files, message))
        except KeyboardInterrupt:
            if so_far := self._so_far():
                logger.warning("Interrupted%s; push again, and what has arrived is not sent a second time.", so_far)
            raise
        url, unchanged = commit.pr_url or self._place(), commit.oid == self.head
        return Pushed(self.repo_id, files, left_out, self.deleted, url, commit.oid, self.created, unchanged)

    def _place(self) -> str:
        if self.revision is None:
            return self.url
        if self.revision.startswith(PULL_REQUEST):
            return f"{self.url}/discussions/{self.revision.removeprefix(PULL_REQUEST)}"
        return f"{self.url}/tree/{self.revision}"

    def _prepare(self) -> None:
        """Have a repository, and the branch in it.

        Raises:
            UserError: If there is a public one where a private one was asked for, or the other way round; or none to
                propose something to.
        """
        description = description_of(self.api, self.repo_id)
        if description is None and self.create_pr:
            raise UserError(f"There is no {self.repo_id} on the Hub to propose a push to: push without --pr.")
        if description is None:
            with self._making(self.url):
                with_patience(self._create)
            self.created = True
        else:
            self.head = description.sha
            if self.private is not None and description.private != self.private and not self.create_pr:
                asked, found = ("private", "public") if self.private else ("public", "private")
                raise UserError(
                    f"{self.repo_id} is {found}, and a {asked} repository was asked for: change it on "
                    f"{self.url}/settings, or give another name."
                )
        if self.create_pr or self.revision is not None:
            refs = with_patience(lambda: self.api.list_repo_refs(self.repo_id, include_pull_requests=True))
            self.refs = {ref.ref: ref.target_commit for ref in [*refs.branches, *(refs.pull_requests or ())]}
        if self.revision is not None and not self.create_pr:
            self._prepare_branch(self.revision)

    def _create(self) -> None:
        """Make the repository; one that has come to be since, also by a request whose answer was lost, will do."""
        try:
            self.api.create_repo(self.repo_id, private=self.private)
        except HfHubHTTPError as error:
            # The library's own exist_ok takes each 409 for that, and stumbles over one that names no repository.
            if error.response.status_code != 409 or description_of(self.api, self.repo_id) is None:
                raise

    def _prepare_branch(self, name: str) -> None:
        ref = name if name.startswith(PULL_REQUEST) else f"refs/heads/{name}"
        if ref in self.refs:
            self.head = self.refs[ref]
            return
        if ref == name:
            raise UserError(f"{self.repo_id} has no {name}: see {self.url}/discussions, or open one with --pr.")
        with self._making(f"{self.url} with its branch {name}" if self.created else f"the branch {name} of {self.url}"):
            with_patience(lambda: self.api.create_branch(self.repo_id, branch=name, exist_ok=True))

    @contextmanager
    def _making(self, place: str) -> Iterator[None]:
        """Around a request that makes something: remember for later failures that it was made, or may have been."""
        try:
            yield
        except (TransportError, KeyboardInterrupt) as error:
            if may_have_arrived(error):
                self.so_far += f"; {place} may have been created for the push"
            raise
        self.so_far = f"; {place} was created for the push"

    def _so_far(self) -> str:
        if self.is_in_doubt and self.create_pr:
            return f"; the pull request may have been opened all the same ({self.url}/discussions)"
        if not self.so_far.endswith("was created for the push"):
            return self.so_far
        return f"{self.so_far} and {'may still be' if self.is_in_doubt else 'is still'} without the model"

    def _ask_for_storage(self) -> None:
        """Ask once for leave to write where hf_xet sends the large files, if that is what sends them.

        It asks by itself, but for minutes where the Hub has failed; and it does not tell a refusal from a broken line.
        https://huggingface.co/docs/xet/auth
        """
        if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None:
            return
        revision = "None?create_pr=1" if self.create_pr else quote(self.revision or constants.DEFAULT_REVISION, safe="")
        url = f"{constants.ENDPOINT}/api/models/{self.repo_id}/xet-write-token/{revision}"
        headers = build_hf_headers(token=self.api.token)
        with_patience(lambda: hf_raise_for_status(get_session().get(url, headers=headers)))

    def _send(self, files: list[PushedFile]) -> None:
        """Send the large files, and know what the commit is to hold; the library leaves out what is there already."""
        outdated = self._outdated({file.path for file in files})
        additions = [CommitOperationAdd(file.path, _content(file)) for file in files]
        # The library repeats these requests by itself, and the commit's not.
        self.api.preupload_lfs_files(
            self.repo_id, additions, revision=self.revision, create_pr=self.create_pr, free_memory=False
        )
        self.operations = [*additions, *(CommitOperationDelete(path) for path in outdated)]
        self.deleted = sorted({*self.deleted, *outdated})

    def _outdated(self, pushed: set[str]) -> list[str]:
        """Weights, tokenizers and the like of another model, which `from_pretrained` would mix with this one's.

        With a card that is made of no facts go the facts of another model, and its numbers and pictures.
        """
        if self.created:
            return []
        found = with_patience(lambda: self.api.list_repo_files(self.repo_id, revision=self.revision))
        replaced = (CARD_FACTS, RUN_CONFIG, *RUN) if CARD in pushed and CARD_FACTS in {*found} - pushed else ()
        return sorted(path for path in found if path not in pushed and (is_model_file(path) or path in replaced))

    def _commit(self, message: str) -> Any:
        try:
            return self.api.create_commit(
                self.repo_id,
                self.operations,
                commit_message=message,
                revision=self.revision,
                create_pr=self.create_pr,
            )
        except (TransportError, KeyboardInterrupt) as error:
            self.is_in_doubt = self.is_in_doubt or may_have_arrived(error)
            raise

    def _look_again(self, files: list[PushedFile], message: str) -> None:
        """Before a commit is repeated: the one before may have been made, and only its answer been lost.

        Then nothing of it is left to do; a pull request that was opened so is gone on with, in place of a second one.
        """
        if not self.is_in_doubt:
            return
        if self.create_pr:
            author = with_patience(self.api.whoami)["name"]
            opened = with_patience(lambda: list(self.api.get_repo_discussions(self.repo_id, author=author)))
            for found in opened:
                if found.git_reference not in {None, *self.refs} and message.startswith(found.title):
                    self.revision, self.create_pr = found.git_reference, False
        self._send(files)


def _content(file: PushedFile) -> str | bytes:
    return str(file.source) if file.content is None else file.content
