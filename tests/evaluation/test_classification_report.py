"""The report of a classifier: what it holds, its table, its pictures."""

import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from hfgpt.errors import UserError
from hfgpt.evaluation.calibration import Temperature, expected_calibration_error, fit_temperature, scaled_probabilities
from hfgpt.evaluation.classification import evaluate_classifier, paired_difference
from hfgpt.evaluation.classification_pictures import (
    draw_accuracy_curve,
    draw_confusion_matrix,
    draw_reliability_diagram,
)
from hfgpt.evaluation.classification_report import (
    build_report,
    draw_pictures,
    most_confident_errors,
    report_table,
    write_report,
)
from hfgpt.evaluation.text_baselines import log_probabilities, majority_baseline

NAMES = ["ham", "spam"]
LINES = [
    {"step": 0, "validation_loss": 0.7, "validation_accuracy": 0.5},
    {"step": 10, "train_loss": 0.5},
    {"step": 20, "train_loss": 0.3},
    {"step": 20, "validation_loss": 0.35, "validation_accuracy": 0.9},
]


@pytest.fixture(scope="module")
def inputs() -> dict:
    """Labels, texts and the logits of three models."""
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=120)
    noise = generator.normal(size=(120, 2))
    return {
        "labels": labels,
        "texts": [f"text {i}" for i in range(120)],
        "logits": {
            "before": noise,
            "after": 6 * np.eye(2)[labels] + 3 * noise,
            "majority": log_probabilities(majority_baseline([0, 1, 1], labels, 2)),
        },
    }


@pytest.fixture(scope="module")
def report(inputs) -> dict:
    temperature = fit_temperature(inputs["logits"]["after"], inputs["labels"])
    return build_report(
        inputs["logits"],
        inputs["labels"],
        NAMES,
        model="after",
        texts=inputs["texts"],
        temperature=temperature,
        num_examples={"train": 3, "validation": 120, "test": 120},
        seeds={"split": 5},
        num_resamples=100,
    )


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that were saved."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: (saved.append(figure), save(figure, *args, **kw))
    )
    return saved


def test_the_report_holds_every_model_and_its_difference_to_the_one_it_is_about(report, inputs) -> None:
    labels = inputs["labels"]
    assert list(report["models"]) == ["before", "after", "majority"]
    for name, logits in inputs["logits"].items():
        assert report["models"][name] == evaluate_classifier(logits, labels, NAMES, num_resamples=100)
    right = {name: np.argmax(logits, axis=1) == labels for name, logits in inputs["logits"].items()}
    assert report["comparisons"] == [
        {"other": name, **paired_difference(right["after"], right[name], num_resamples=100)}
        for name in ("before", "majority")
    ]


def test_the_report_says_how_it_came_about(report) -> None:
    assert (report["model"], report["names"]) == ("after", NAMES)
    assert report["num_examples"] == {"train": 3, "validation": 120, "test": 120}
    assert report["seeds"] == {"split": 5}
    assert report["intervals"] == {
        "method": "percentile bootstrap over test examples, not stratified",
        "confidence": 0.95,
        "num_resamples": 100,
        "seed": 0,
    }


def test_the_calibration_is_that_of_the_scaled_probabilities(report, inputs) -> None:
    calibration = report["calibration"]
    probabilities = scaled_probabilities(inputs["logits"]["after"], calibration["temperature"])
    error = expected_calibration_error(probabilities, inputs["labels"])
    assert calibration["expected_calibration_error"] == pytest.approx(error)
    # Here the temperature was fitted to these very examples.
    assert calibration["loss"] == pytest.approx(calibration["validation_loss_after"])
    assert calibration["validation_loss_before"] == pytest.approx(report["models"]["after"]["loss"])
    assert calibration["reason"] is None


def test_the_file_is_the_report(report, tmp_path) -> None:
    write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report


def test_an_infinite_loss_is_null_in_the_file(tmp_path) -> None:
    write_report({"models": [{"loss": math.inf, "names": ["é"]}]}, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {
        "models": [{"loss": None, "names": ["é"]}]
    }


def test_the_table_has_a_row_for_each_model(report) -> None:
    columns, rows = report_table(report)
    assert columns == ["model", "accuracy [95 %]", "macro F1", "Matthews", "ROC AUC", "ECE"]
    assert [row[0] for row in rows] == ["before", "after", "majority"]
    after = report["models"]["after"]
    low, high = after["intervals"]["accuracy"]
    assert rows[1][1] == f"{100 * after['accuracy']:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"
    measures = ("macro_f1", "matthews_correlation", "roc_auc", "expected_calibration_error")
    assert rows[1][2:] == [f"{after[name]:.3f}" for name in measures]


def test_what_is_not_defined_is_a_dash_in_the_table() -> None:
    report = build_report({"m": [[1.0, 0.0]]}, [0], NAMES, model="m", texts=["x"], num_resamples=5)
    assert report_table(report)[1][0][4] == "-"
    assert report["calibration"] is None


def test_the_errors_are_the_surest_first_and_of_equal_ones_the_first_example() -> None:
    probabilities = [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.99, 0.01]]
    errors = most_confident_errors(list("abcde"), probabilities, [1, 1, 1, 0, 0], NAMES)
    assert [error["text"] for error in errors] == ["b", "d", "a"]
    assert errors[0] == {
        "index": 1,
        "text": "b",
        "label": "spam",
        "prediction": "ham",
        "confidence": 0.9,
        "label_probability": 0.1,
    }
    assert most_confident_errors(list("abcde"), probabilities, [1, 1, 1, 0, 0], NAMES, limit=2) == errors[:2]
    assert most_confident_errors(list("abcde"), probabilities, [0, 0, 1, 1, 0], NAMES) == []


def test_a_model_or_texts_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match="no logits of 'other', only of m"):
        build_report({"m": [[1.0, 0.0]]}, [0], NAMES, model="other", texts=["x"])
    with pytest.raises(UserError, match="2 texts for 1 labels"):
        most_confident_errors(["x", "y"], [[1.0, 0.0]], [0], NAMES)


def test_all_pictures_are_drawn(report, tmp_path) -> None:
    paths = draw_pictures(report, LINES, {"majority class": 0.5}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths}
    assert {path.name for path in paths} == {"confusion_matrix.png", "reliability_diagram.png", "accuracy_curve.png"}
    for path in paths:
        height, width, _ = imread(path).shape
        assert 400 <= height <= 2000
        assert 400 <= width <= 2000


@pytest.mark.parametrize("num_classes", [2, 6, 20])
def test_the_confusion_matrix_names_counts_and_shares(num_classes, figures, tmp_path) -> None:
    matrix = np.random.default_rng(0).integers(10, 50, size=(num_classes, num_classes))
    names = [f"a ${i}$ class whose name goes on and on" for i in range(num_classes)]
    draw_confusion_matrix(matrix.tolist(), names, tmp_path / "matrix.png")
    axes = figures[0].axes[0]
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    cells = [text.get_text() for text in axes.texts]
    assert cells == [f"{count}\n{share:.0%}" for count, share in zip(matrix.ravel(), shares.ravel(), strict=True)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"a ${i}$ class whose name goe"[:23] + "…" for i in range(num_classes)
    ]
    assert f"accuracy {np.trace(matrix) / matrix.sum():.1%}" in axes.get_title()


def test_a_class_without_examples_is_an_empty_row(figures, tmp_path) -> None:
    draw_confusion_matrix([[3, 0], [0, 0]], NAMES, tmp_path / "matrix.png")
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["3\n100%", "0\n0%", "0\n0%", "0\n0%"]


def test_a_share_that_is_not_nothing_does_not_read_so(figures, tmp_path) -> None:
    draw_confusion_matrix([[399, 1], [1, 199]], NAMES, tmp_path / "matrix.png")
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["399\n>99%", "1\n<1%", "1\n<1%", "199\n>99%"]


def test_the_reliability_diagram_shows_accuracies_and_counts_before_and_after(report, figures, tmp_path) -> None:
    bins = report["models"]["after"]["reliability_bins"]
    after = report["calibration"]["reliability_bins"]
    draw_reliability_diagram(bins, tmp_path / "diagram.png", calibrated_bins=after, temperature=1.25)
    upper_left, upper_right, lower_left, lower_right = figures[0].axes
    for upper, lower, panel in ((upper_left, lower_left, bins), (upper_right, lower_right, after)):
        filled = [entry for entry in panel if entry["count"]]
        heights = [bar.get_height() for bar in upper.containers[0]]
        assert heights == [entry["accuracy"] for entry in filled]
        (marks,) = upper.collections
        assert [segment[0][1] for segment in marks.get_segments()] == [entry["confidence"] for entry in filled]
        assert [bar.get_height() for bar in lower.containers[0]] == [entry["count"] for entry in filled]
    assert "1.25" in upper_right.get_title()


def test_without_a_temperature_there_is_one_panel(report, figures, tmp_path) -> None:
    draw_reliability_diagram(report["models"]["after"]["reliability_bins"], tmp_path / "diagram.png")
    assert len(figures[0].axes) == 2


def test_the_curves_are_the_lines_of_the_file_and_the_baselines_dashed(figures, tmp_path) -> None:
    draw_accuracy_curve(LINES, tmp_path / "curve.png", {"majority class": 0.5, "TF-IDF": 0.8})
    upper, lower = figures[0].axes
    drawn = [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in upper.lines]
    assert drawn == [("train loss", [10, 20], [0.5, 0.3]), ("validation loss", [0, 20], [0.7, 0.35])]
    assert (list(lower.lines[0].get_xdata()), list(lower.lines[0].get_ydata())) == ([0, 20], [0.5, 0.9])
    assert [line.get_linestyle() for line in lower.lines] == ["-", "--", "--"]
    labels = [text.get_text() for text in lower.get_legend().get_texts()]
    assert labels == ["validation accuracy", "majority class (50.0%)", "TF-IDF (80.0%)"]
    assert "90.0%, at step 20" in upper.get_title()


def test_curves_of_a_run_without_lines_can_be_drawn(tmp_path) -> None:
    draw_accuracy_curve([], tmp_path / "curve.png", {})
    assert imread(tmp_path / "curve.png").size


def test_a_temperature_that_could_not_be_fitted_is_reported_with_its_reason(inputs) -> None:
    report = build_report(
        inputs["logits"],
        inputs["labels"],
        NAMES,
        model="after",
        texts=inputs["texts"],
        temperature=Temperature(1.0, 0.1, 0.1, "all of the 9 validation examples are right"),
        num_resamples=5,
    )
    assert report["calibration"]["reason"] == "all of the 9 validation examples are right"
    assert report["calibration"]["loss"] == pytest.approx(report["models"]["after"]["loss"])
