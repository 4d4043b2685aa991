"""`push_to_hub` of a model that is at hand: with what lay beside it where it was loaded, under a card that is true."""

import filecmp
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import safe_open

from hfgpt import HfGptPreTrainedModel
from hfgpt.errors import UserError
from hfgpt.tokenization import TOKENIZER_FILES

from .allow_list import CARD, CONFIG, RUN, RUN_CONFIG, PushedFile, files_to_push, is_weights_file, leads_out
from .facts_file import CARD_FACTS
from .hub_errors import said_in_a_sentence
from .present import is_made, present_files, read_json
from .pushed_card import add_card, read_card
from .pushing import check_account, push

__all__ = ["push_model"]

logger = logging.getLogger(__name__)

# What says something of these very weights.
OF_THE_TRAINING = (CARD, CARD_FACTS, RUN_CONFIG, *RUN)


def push_model(
    model: HfGptPreTrainedModel,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str = "50GB",
    tags: str | Sequence[str] | None = None,
) -> CommitInfo:
    """Push a model as `hfgpt push` pushes a folder: files on a list, searched for what is private, in one commit.

    A model that is still as it was loaded takes along what lay beside it: tokenizer, numbers, pictures, and its card,
    which is made anew for this repository. One whose weights have changed since is another model, of which nothing is
    known; its tokenizer goes along if it knows as many tokens as before. A card that somebody has written in the
    repository stays, and so does the tokenizer that it has.

    The arguments are those of `PreTrainedModel.push_to_hub`; the errors are those of `push`.
    """
    token = None if token is True else token
    api, tags = HfApi(token=token), [tags] if isinstance(tags, str) else tags or []
    repo_id = check_account(repo_id, api, propose=create_pr)
    name_or_path = model.name_or_path or ""
    home = _home(api, name_or_path)
    title = commit_message or "Upload model"
    with TemporaryDirectory(prefix="hfgpt-push-") as name, _named_after(home, Path(name)):
        folder = Path(name)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        if home is not None:
            _bring_along(home, folder, name_or_path)
        with said_in_a_sentence(repo_id):
            theirs = present_files(api, repo_id, revision, [CARD, CARD_FACTS, CONFIG, *TOKENIZER_FILES])
        if theirs is not None:
            _keep_tokenizer(theirs, folder, repo_id)
        _put_card(theirs, folder, repo_id, [*(model.model_tags or []), *tags])
        pushed = push(
            folder,
            repo_id,
            private=private,
            revision=revision,
            create_pr=create_pr,
            token=token or None,
            commit_message=title if commit_description is None else f"{title}\n\n{commit_description}",
            with_card=False,
        )
    return CommitInfo(
        commit_url=f"{constants.ENDPOINT}/{repo_id}/commit/{pushed.commit}",
        commit_message=title,
        commit_description=commit_description or "",
        oid=str(pushed.commit),
        _endpoint=constants.ENDPOINT,
        pr_url=pushed.url if create_pr and not pushed.unchanged else None,
    )


def _bring_along(home: Path, folder: Path, name_or_path: str) -> None:
    """Copy what lay beside a model where it was loaded and is true of the model that is now saved in `folder`."""
    wanted: list[tuple[Path, Sequence[str]]] = []
    if _same_weights(home, folder):
        if home.name == "final":  # a run has its numbers above its model
            wanted.append((home.parent, (CARD_FACTS, *RUN)))
        wanted.append((home, (*OF_THE_TRAINING, *TOKENIZER_FILES)))
    elif read_json(home / CONFIG).get("vocab_size") == read_json(folder / CONFIG)["vocab_size"]:
        wanted.append((home, TOKENIZER_FILES))
    # In the cache of the Hub a repository's files are links to its blobs, two folders up.
    given = home.parents[1] if home.parent.name == "snapshots" else home.parent if home.name == "final" else home
    for place, names in wanted:
        for path in [place / name for name in names if (place / name).is_file()]:
            if leads_out(path, given):
                logger.warning("%s is a link to a file outside %s, and does not go with the model.", path, given)
            else:
                shutil.copyfile(path, folder / path.name)
    if is_made(folder, None if Path(name_or_path).is_dir() else name_or_path):
        (folder / CARD).unlink()


@contextmanager
def _named_after(home: Path | None, folder: Path) -> Iterator[None]:
    """Name files in sentences by where the user has them, not by the temporary copy."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(folder), str(home or folder))) from error


def _home(api: HfApi, name_or_path: str) -> Path | None:
    """The folder that a model was loaded from; that of the cache if it was the Hub."""
    if not name_or_path or Path(name_or_path).is_dir():
        return Path(name_or_path) if name_or_path else None
    wanted = [CONFIG, *OF_THE_TRAINING, *TOKENIZER_FILES, "model*.safetensors"]
    try:
        return Path(api.snapshot_download(name_or_path, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        logger.warning(
            "What lay beside the model in %s does not go with it, for it cannot be had: %s",
            name_or_path,
            " ".join(str(error).split()),
        )
        return None


def _same_weights(first: Path, second: Path) -> bool:
    """Whether two folders hold the same numbers under the same names, in however many files."""
    places, others = _places(first), _places(second)
    if not places or places.keys() != others.keys():
        return False
    return all(torch.equal(_read(places[name], name), _read(others[name], name)) for name in places)


def _places(folder: Path) -> dict[str, Path]:
    """In which file each weight lies, as transformers looks for it."""
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else [path for path in folder.iterdir() if is_weights_file(path.name)]
    places: dict[str, Path] = {}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as opened:
                places |= dict.fromkeys(opened.keys(), path)
    return places


def _read(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, "pt") as opened:
        weight: torch.Tensor = opened.get_tensor(name)
    return weight


def _keep_tokenizer(theirs: Path, folder: Path, repo_id: str) -> None:
    """Push the tokenizer that the repository has, if it has one: it may have been pushed first, for this model."""
    if not any((theirs / name).is_file() for name in TOKENIZER_FILES):
        return
    own, other = folder / "tokenizer.json", theirs / "tokenizer.json"
    if own.is_file() and not (other.is_file() and filecmp.cmp(own, other, shallow=False)):
        logger.warning(
            "%s has a tokenizer that is not the one which lay beside the model, and keeps it: "
            "tokenizer.push_to_hub replaces it.",
            repo_id,
        )
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (theirs / name).is_file():
            shutil.copyfile(theirs / name, folder / name)


def _put_card(theirs: Path | None, folder: Path, repo_id: str, tags: Sequence[str]) -> None:
    """Put the card in place that goes with the model, unless somebody has written one in the repository."""
    path = folder / CARD
    if theirs is not None and (theirs / CARD).is_file() and not is_made(theirs, repo_id):
        logger.warning("%s keeps the card that was written there: see that it is true of this model.", repo_id)
        path.unlink(missing_ok=True)
        if not tags:
            return
        file = PushedFile(CARD, theirs / CARD)
    else:
        [file] = [file for file in add_card(files_to_push(folder), repo_id, "hfgpt") if file.path == CARD]
    text = file.read().decode()
    if tags:
        card = read_card(file)
        data: Any = card.data
        data.tags = list(dict.fromkeys([*(data.tags or []), *tags]))
        text = str(card)
    path.write_text(text, encoding="utf-8")
