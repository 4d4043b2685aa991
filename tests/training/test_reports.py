"""The run's numbers: averaged, written, drawn."""

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from hfgpt.training.events import StepReport
from hfgpt.training.meter import Meter
from hfgpt.training.optimization import learning_rate_at
from hfgpt.training.reports import LossCurve, MetricsLog, draw_loss_curve

TRAINING_KEYS = {"step", "train_loss", "learning_rate", "grad_norm", "tokens_seen", "tokens_per_second"}
EVALUATION_KEYS = {"step", "validation_loss", "validation_targets", "evaluation_seconds"}


def report(step: int, loss: float, targets: int, seconds: float) -> StepReport:
    return StepReport(step, loss, 0.1 * step, 2.0 * step, targets, seconds)


def test_the_meter_weighs_steps_by_their_targets_and_divides_by_their_time() -> None:
    meter = Meter("texts")
    meter.add(report(1, 4.0, 10, 0.5))
    meter.add(report(2, 1.0, 30, 1.5))
    assert meter.summary() == {
        "step": 2,
        "train_loss": pytest.approx((4.0 * 10 + 1.0 * 30) / 40),
        "learning_rate": pytest.approx(0.2),
        "grad_norm": 4.0,
        "texts_seen": 40,
        "texts_per_second": pytest.approx(20.0),
    }


def test_the_meter_begins_anew_after_each_summary_but_for_what_was_seen() -> None:
    meter = Meter("tokens")
    meter.add(report(1, 4.0, 10, 1.0))
    meter.summary()
    meter.add(report(2, 2.0, 5, 1.0))
    summary = meter.summary()
    assert (summary["train_loss"], summary["tokens_per_second"], summary["tokens_seen"]) == (2.0, 5.0, 15)


@pytest.fixture
def lines(laboratory) -> list[dict]:
    """What a run of 5 steps wrote."""
    laboratory.train(
        laboratory.model(), None, [MetricsLog(), LossCurve({"bigram": 3.0})], max_steps=5, logging_steps=2, eval_steps=3
    )
    text = (Path(laboratory.output_dir) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_metrics_are_a_line_of_json_each_in_the_order_of_events(lines) -> None:
    assert [(line["step"], "train_loss" in line) for line in lines] == [
        (0, False),
        (2, True),
        (3, False),
        (4, True),
        (5, True),
        (5, False),
    ]
    for line in lines:
        assert set(line) == (TRAINING_KEYS if "train_loss" in line else EVALUATION_KEYS)


def test_the_logged_learning_rates_are_the_schedule(lines, laboratory) -> None:
    config = laboratory.config(max_steps=5)
    logged = {line["step"]: line["learning_rate"] for line in lines if "train_loss" in line}
    assert logged == {step: learning_rate_at(step - 1, 5, config) for step in (2, 4, 5)}


def test_a_new_run_begins_a_new_file(lines, laboratory) -> None:
    laboratory.train(laboratory.model(), None, [MetricsLog()], max_steps=1, eval_steps=None)
    text = (Path(laboratory.output_dir) / "metrics.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 1, 1]


def test_the_loss_curve_is_a_png_of_a_readable_size_with_something_on_it(lines, laboratory) -> None:
    path = Path(laboratory.output_dir) / "loss_curve.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = imread(path)
    height, width, _ = picture.shape
    assert (width, height) == (960, 540)
    assert len({tuple(colour) for colour in picture[::2, ::2].reshape(-1, picture.shape[2]).round(1).tolist()}) > 5


def drawn(monkeypatch: pytest.MonkeyPatch, lines: list[dict], path: Path, baselines: dict[str, float]):
    """The axes that a call of `draw_loss_curve` made."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: (figures.append(figure), save(figure, *args, **kw))
    )
    draw_loss_curve(lines, path, baselines)
    return figures[0].axes[0]


def test_the_curves_are_the_lines_of_the_file(monkeypatch, lines, tmp_path) -> None:
    axes = drawn(monkeypatch, lines, tmp_path / "curve.png", {})
    training, validation = axes.lines
    assert list(training.get_xdata()) == [2, 4, 5]
    assert list(training.get_ydata()) == [line["train_loss"] for line in lines if "train_loss" in line]
    assert list(validation.get_xdata()) == [0, 3, 5]
    assert list(validation.get_ydata()) == [line["validation_loss"] for line in lines if "validation_loss" in line]


def test_every_baseline_is_drawn_and_named(monkeypatch, lines, tmp_path) -> None:
    baselines = {f"{order}-gram": 2.0 + order / 10 for order in range(1, 8)}
    axes = drawn(monkeypatch, lines, tmp_path / "curve.png", baselines)
    assert [line.get_ydata()[0] for line in axes.lines[2:]] == list(baselines.values())
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["train loss", "validation loss", *(f"{name} ({loss:.3f})" for name, loss in baselines.items())]


def test_a_run_without_log_lines_can_be_drawn(tmp_path) -> None:
    draw_loss_curve([{"step": 0, "validation_loss": 3.0}], tmp_path / "curve.png", {})
    assert imread(tmp_path / "curve.png").size
