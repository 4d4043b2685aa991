"""Steps, averaged between two log lines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .events import StepReport

__all__ = ["Meter"]


class Meter:
    """Sums steps up until the next log line."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.num_targets = 0
        self._reports: list[dict[str, Any]] = []

    def add(self, report: "StepReport") -> None:
        """Note one step; of one that was left out, not its loss and norm: JSON has no numbers that are not finite."""
        unknown = {"loss": None, "grad_norm": None} if report.skipped else {}
        self._reports.append(vars(report) | unknown)

    def summary(self) -> dict[str, float | None]:
        """What happened since the last summary: losses averaged over targets, targets divided by wall-clock time.

        A step that was left out counts with its time and targets, not with its loss, which is no number; `train_loss`
        is None if all were left out.
        """
        reports, self._reports = self._reports, []
        taken = [report for report in reports if not report["skipped"]]
        num_targets = _sum(reports, "num_targets")
        self.num_targets += num_targets
        loss = sum(report["loss"] * report["num_targets"] for report in taken)
        summary: dict[str, float | None] = {
            "step": reports[-1]["step"],
            "train_loss": loss / _sum(taken, "num_targets") if taken else None,
            "learning_rate": reports[-1]["learning_rate"],
            "grad_norm": taken[-1]["grad_norm"] if taken else None,
            f"{self.unit}_seen": self.num_targets,
            f"{self.unit}_per_second": num_targets / _sum(reports, "seconds"),
        }
        skipped = len(reports) - len(taken)
        return summary | ({"skipped_steps": skipped} if skipped else {})

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to write the next line as if it had never ended."""
        return {"num_targets": self.num_targets, "reports": self._reports}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.num_targets, self._reports = state["num_targets"], list(state["reports"])


def _sum(reports: Sequence[dict[str, Any]], name: str) -> Any:
    return sum(report[name] for report in reports)
