"""Pushing during and after a training: `push_to_hub: true`."""

import dataclasses
import json
import logging
import os
import shutil
import threading
from pathlib import Path
from types import TracebackType

from accelerate import Accelerator
from huggingface_hub import HfApi
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from hfgpt.errors import OutageError, UserError
from hfgpt.hub.allow_list import PushedFile, files_to_push
from hfgpt.hub.public_text import public_value
from hfgpt.hub.pushing import Pushed, check_account, push
from hfgpt.hub.repositories import is_repository
from hfgpt.hub.secrets import find_private
from hfgpt.training.background import BackgroundWriter
from hfgpt.training.config import TrainingConfig
from hfgpt.training.events import Callback, TrainingRun
from hfgpt.training.processes import on_main_process

__all__ = ["HubPush", "check_hub"]

logger = logging.getLogger(__name__)


def repository_of(config: TrainingConfig) -> str:
    """Where the model is to go."""
    return config.hub_model_id or Path(config.output_dir).resolve().name


def check_hub(config: TrainingConfig, accelerator: Accelerator) -> None:
    """See that the run could be pushed when it has ended, as far as the Hub tells before; hours would be late.

    Raises:
        UserError: If there is no token, it may not write there, the name cannot be one, or there is something private
            in the configuration.
        OutageError: If the Hub cannot be asked.
    """
    if config.push_to_hub:
        _check_configuration(config)
        on_main_process(accelerator, lambda: check_account(repository_of(config), HfApi()))


def _check_configuration(config: TrainingConfig) -> None:
    """Refuse what the search before the push would find in the configuration, which is pushed with the model."""
    found: list[str] = []
    for name, value in public_value(dataclasses.asdict(config)).items():
        if not (isinstance(value, str) and is_repository(value)):  # an account's name in that of a model is public
            text = json.dumps(value, ensure_ascii=False)
            field = PushedFile(name, Path(name), f"{name}: {text}".encode())
            found += [f"{finding.what} in {name}" for finding in find_private([field], repository_of(config))]
    if found:
        raise UserError(
            f"The trained model could not be pushed, for there is {'; '.join(found)} of the configuration, which goes "
            "with it: change that, or leave out push_to_hub."
        )


class HubPush(Callback):
    """Pushes each checkpoint in the background if it is asked to, and the finished model.

    A checkpoint that cannot be pushed is said, and training goes on; when the finished model cannot be, the run fails,
    with the model saved. Leaving the context waits for what is being pushed.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self._in_background = config.push_to_hub and config.hub_strategy == "every_save"
        self._writer = BackgroundWriter()
        self._lock = threading.Lock()
        self._waiting: Path | None = None  # a copy of the newest checkpoint, of which no push has begun
        self._is_pushing = False
        self._hidden_bars = False

    def __enter__(self) -> "HubPush":
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)
        self._show_bars()

    def on_train_begin(self, run: TrainingRun) -> None:
        """Remove copies that a run which was killed has left; keep the bars of uploads out of the training's."""
        if self._in_background and run.is_main_process:
            for left in run.output_dir.glob(".push-*"):
                shutil.rmtree(left)
            self._hidden_bars = not are_progress_bars_disabled()
            if self._hidden_bars:
                disable_progress_bars()

    def _show_bars(self) -> None:
        if self._hidden_bars:
            enable_progress_bars()
            self._hidden_bars = False

    def on_checkpoint(self, run: TrainingRun, folder: Path) -> None:
        """Have the checkpoint's model pushed after the push that is under way, in place of one that waits already."""
        if not self._in_background:
            return
        try:
            copy = _link_files(folder, run.output_dir / f".push-{folder.name}")
        except (UserError, OSError) as error:  # the checkpoint has been deleted to make room; the disk is full
            logger.warning("%s was not pushed, and training goes on: %s", folder.name, error)
            return
        with self._lock:
            passed_over, self._waiting = self._waiting, copy
            begin, self._is_pushing = not self._is_pushing, True
        if passed_over is not None:
            shutil.rmtree(passed_over)
        if begin:
            self._writer.submit(self._push_waiting)

    def _push_waiting(self) -> None:
        """Push until nothing waits; in the background."""
        while True:
            with self._lock:
                copy, self._waiting = self._waiting, None
                if copy is None:
                    self._is_pushing = False
                    return
            name = copy.name.removeprefix(".push-")
            try:
                # Without a card: that of the finished model, or of one that was pushed before, says more.
                self._push(copy, f"Training in progress: {name}", with_card=False)
            except (UserError, OutageError) as error:
                logger.warning("%s was not pushed, and training goes on: %s", name, error)
            except Exception:  # what nobody has foreseen must not cost the checkpoints to come, nor the model
                logger.exception("%s was not pushed, and training goes on:", name)
            finally:
                shutil.rmtree(copy)

    def push_final(self, folder: Path) -> None:
        """Push the finished run, after what is being pushed; on the first process.

        Raises:
            UserError: If that cannot be, for a reason that the user can mend.
            OutageError: If the Hub or the network fails.
        """
        if not self.config.push_to_hub:
            return
        self._writer.wait()
        self._show_bars()
        try:
            pushed = self._push(folder, "End of training")
        except (UserError, OutageError) as error:
            again = f"hfgpt push {folder} --repo {repository_of(self.config)}"
            raise type(error)(
                f"The model is trained and saved in {folder}, but not pushed ({again}): {error}"
            ) from error
        print(f"Pushed:     {pushed.url}")

    def _push(self, folder: Path, message: str, *, with_card: bool = True) -> Pushed:
        repo_id, private = repository_of(self.config), self.config.hub_private_repo
        return push(folder, repo_id, private=private, commit_message=message, with_card=with_card)


def _link_files(checkpoint: Path, copy: Path) -> Path:
    """The checkpoint's model under another name, which stays when the checkpoint itself is deleted to make room."""
    copy.mkdir()
    for file in files_to_push(checkpoint).files:
        try:
            os.link(file.source, copy / file.path)
        except OSError:  # a file system without links
            shutil.copyfile(file.source, copy / file.path)
    return copy
