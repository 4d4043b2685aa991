"""What a training shows on the terminal: a progress bar while it runs, a table at its end."""

import sys

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from hfgpt.training.events import Callback, Evaluation, TrainingRun

__all__ = ["ProgressBar", "print_table", "say"]


class ProgressBar(Callback):
    """A bar over the steps with loss and throughput, and a line for each evaluation."""

    bar: tqdm | None = None

    def on_train_begin(self, run: TrainingRun) -> None:
        self.bar = tqdm(
            total=run.num_steps,
            initial=run.step,
            desc="train",
            unit="step",
            disable=not run.is_main_process,
            dynamic_ncols=True,
        )

    def on_log(self, run: TrainingRun, summary: dict[str, float | None]) -> None:
        per_second = next(
            f"{value:,.0f} {name.removesuffix('_per_second')}/s"
            for name, value in summary.items()
            if "_per_second" in name
        )
        loss = summary["train_loss"]  # None where every step since the last line was left out
        assert self.bar is not None
        self.bar.set_postfix_str(f"loss {'-' if loss is None else f'{loss:.3f}'}, {per_second}", refresh=False)
        self.bar.update(run.step - self.bar.n)

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        metrics = ", ".join(f"{name.replace('_', ' ')} {value:,.3f}" for name, value in evaluation.metrics.items())
        say(run, f"step {evaluation.step:>6}: validation {metrics}")

    def on_train_end(self, run: TrainingRun) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands, so that what is printed next begins a line; also after an error."""
        if self.bar is not None:
            self.bar.close()


def say(run: TrainingRun, text: str) -> None:
    """Print a line above the progress bar, from the main process only."""
    if run.is_main_process:
        tqdm.write(text, file=sys.stdout)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table; the first column is words, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        # Where there is no room, words are folded, not cut.
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
