"""A classifier's measures and intervals, against scikit-learn, loops and closed forms."""

import json
import math

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as sklearn_metrics

from hfgpt.errors import UserError
from hfgpt.evaluation import classification, intervals
from hfgpt.evaluation.calibration import scaled_probabilities
from hfgpt.evaluation.classification import evaluate_classifier, paired_difference


def scored(num_examples: int, num_classes: int, seed: int = 0, strength: float = 1.5):
    """Logits that know something of the labels. The classes are not equally frequent."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(
        num_classes, size=num_examples, p=np.arange(1, num_classes + 1) / sum(range(num_classes + 1))
    )
    return generator.normal(size=(num_examples, num_classes)) + strength * np.eye(num_classes)[labels], labels


@pytest.mark.parametrize("num_classes", [2, 5])
def test_every_measure_is_scikit_learns(num_classes) -> None:
    logits, labels = scored(300, num_classes)
    names = [f"class {i}" for i in range(num_classes)]
    measured = evaluate_classifier(logits, labels, names, num_resamples=10)
    predictions, probabilities = logits.argmax(axis=1), scaled_probabilities(logits)
    assert measured["num_examples"] == 300
    assert measured["loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))
    assert measured["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
    assert measured["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, predictions, average="macro"))
    assert measured["matthews_correlation"] == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predictions))
    scores = probabilities[:, 1] if num_classes == 2 else probabilities
    assert measured["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    assert measured["confusion_matrix"] == sklearn_metrics.confusion_matrix(labels, predictions).tolist()
    by_class = sklearn_metrics.precision_recall_fscore_support(labels, predictions)
    for i, record in enumerate(measured["per_class"]):
        assert record["name"] == names[i]
        values = [record[measure] for measure in ("precision", "recall", "f1", "support")]
        assert values == pytest.approx([column[i] for column in by_class])
    for i, measure in enumerate(("precision", "recall")):
        assert measured[f"macro_{measure}"] == pytest.approx(np.mean(by_class[i]))


def test_the_measures_can_be_written_as_json_and_are_the_same_again() -> None:
    logits, labels = scored(50, 3)
    measured = [evaluate_classifier(logits, labels, "abc", num_resamples=50) for _ in range(2)]
    assert json.loads(json.dumps(measured[0], allow_nan=False)) == measured[1]


def resampled(logits, labels, measure, count=2000):
    """The percentile interval from examples that are drawn one sample after the other."""
    generator = np.random.default_rng(99)
    values = []
    for _ in range(count):
        drawn = generator.integers(len(labels), size=len(labels))
        values.append(measure(labels[drawn], logits[drawn]))
    return np.quantile(values, [0.025, 0.975])


MEASURES = {
    "accuracy": lambda labels, logits: (logits.argmax(1) == labels).mean(),
    "macro_f1": lambda labels, logits: sklearn_metrics.f1_score(labels, logits.argmax(1), average="macro"),
    "matthews_correlation": lambda labels, logits: sklearn_metrics.matthews_corrcoef(labels, logits.argmax(1)),
    "loss": lambda labels, logits: sklearn_metrics.log_loss(labels, scaled_probabilities(logits), labels=[0, 1, 2]),
}


@pytest.mark.parametrize("name", MEASURES)
def test_an_interval_is_that_of_examples_drawn_anew_one_sample_after_the_other(name) -> None:
    logits, labels = scored(80, 3)
    interval = evaluate_classifier(logits, labels, "abc", num_resamples=20_000)["intervals"][name]
    # What 2,000 samples say of a quantile varies by about a twentieth of the interval's width.
    np.testing.assert_allclose(
        interval, resampled(logits, labels, MEASURES[name]), atol=0.12 * (interval[1] - interval[0])
    )


def test_the_measures_of_resampled_matrices_are_scikit_learns_even_where_classes_are_missing() -> None:
    generator = np.random.default_rng(3)
    samples = [(generator.integers(4, size=6), generator.integers(4, size=6)) for _ in range(200)]
    samples.append((np.zeros(6, dtype=int), np.zeros(6, dtype=int)))
    matrices = np.stack([sklearn_metrics.confusion_matrix(t, p, labels=range(4)) for t, p in samples])
    measures = classification._measures(matrices)
    for i, (true, predicted) in enumerate(samples):
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            true, predicted, average="macro", zero_division=0
        )
        expected = {
            "accuracy": (true == predicted).mean(),
            "macro_precision": precision,
            "macro_recall": recall,
            "macro_f1": f1,
            "matthews_correlation": sklearn_metrics.matthews_corrcoef(true, predicted),
        }
        assert {name: measures[name][i] for name in expected} == pytest.approx(expected)


def test_the_interval_of_the_accuracy_agrees_with_scipys_bootstrap_and_with_the_normal_approximation() -> None:
    logits, labels = scored(400, 2)
    right = logits.argmax(axis=1) == labels
    measured = evaluate_classifier(logits, labels, "ab", num_resamples=20_000)
    other = bootstrap((right,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(1))
    assert measured["intervals"]["accuracy"] == pytest.approx(list(other.confidence_interval), abs=0.006)
    half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert measured["intervals"]["accuracy"] == pytest.approx([right.mean() - half, right.mean() + half], abs=0.006)


def test_the_seed_alone_decides_the_interval_however_the_samples_are_cut(monkeypatch) -> None:
    logits, labels = scored(40, 3)

    def measured(seed):
        return evaluate_classifier(logits, labels, "abc", bootstrap_seed=seed, num_resamples=100)["intervals"]

    whole = measured(0)
    assert whole == measured(0) != measured(1)
    for module in (classification, intervals):
        monkeypatch.setattr(module, "CHUNK", 70)
    assert measured(0) == whole


def test_a_class_without_examples_leaves_no_area_under_the_curve_and_says_why() -> None:
    measured = evaluate_classifier([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5]], [0, 1], ["a", "b", "c"], num_resamples=5)
    assert (measured["roc_auc"], measured["roc_auc_reason"]) == (None, "no example of c")
    assert measured["macro_f1"] == 1  # c occurs neither among labels nor predictions
    assert measured["per_class"][2]["support"] == 0


def test_a_probability_of_zero_gives_an_infinite_loss_only_where_it_is_the_labels() -> None:
    logits = np.log([[0.5, 0.5], [1.0, 0.0]], where=[[True, True], [True, False]], out=np.full((2, 2), -np.inf))
    assert evaluate_classifier(logits, [0, 0], "ab", num_resamples=5)["loss"] == pytest.approx(math.log(2) / 2)
    measured = evaluate_classifier(logits, [0, 1], "ab", num_resamples=5)
    assert measured["loss"] == math.inf
    assert measured["intervals"]["loss"] is None


def test_metrics_of_ones_own_are_given_predictions_and_references(tmp_path, monkeypatch) -> None:
    class Share:
        def compute(self, *, predictions, references):
            return {"share": np.float64((predictions == references).mean()), "by_class": np.array([1, 2])}

    def load(name):
        return Share() if name == "share.py" else shipped(name)

    shipped = classification.load_metric
    monkeypatch.setattr(classification, "load_metric", load)
    logits, labels = scored(30, 2)
    measured = evaluate_classifier(logits, labels, "ab", extra_metrics=["share.py", "accuracy"], num_resamples=5)
    assert measured["extra_metrics"] == {"share.py": {"share": measured["accuracy"], "by_class": [1, 2]}}


def test_a_metric_that_wants_something_else_is_named(monkeypatch) -> None:
    class Picky:
        def compute(self, **inputs):
            raise ValueError("Evaluation module inputs are missing:\n ['sources'].")

    shipped = classification.load_metric
    monkeypatch.setattr(classification, "load_metric", lambda name: Picky() if name == "picky" else shipped(name))
    logits, labels = scored(30, 2)
    with pytest.raises(UserError, match=r"'picky' cannot be computed .*missing: \['sources'\]\); leave it out"):
        evaluate_classifier(logits, labels, "ab", extra_metrics=["picky"], num_resamples=5)


def test_names_and_resamples_must_make_sense() -> None:
    with pytest.raises(UserError, match="3 names for 2 classes"):
        evaluate_classifier([[0.0, 1.0]], [0], "abc")
    with pytest.raises(UserError, match="num_resamples is 0"):
        evaluate_classifier([[0.0, 1.0]], [0], "ab", num_resamples=0)


def test_the_paired_difference_counts_and_its_p_value_is_the_binomial_sum() -> None:
    a = np.array([True] * 50 + [True] * 9 + [False] * 2 + [False] * 10)
    b = np.array([True] * 50 + [False] * 9 + [True] * 2 + [False] * 10)
    difference = paired_difference(a, b)
    assert (difference["only_a_right"], difference["only_b_right"], difference["num_examples"]) == (9, 2, 71)
    assert difference["difference"] == pytest.approx(a.mean() - b.mean())
    assert difference["p_value"] == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    opposite = paired_difference(b, a)
    assert opposite["difference"] == -difference["difference"]
    assert opposite["p_value"] == difference["p_value"]


def test_the_interval_of_the_difference_is_that_of_pairs_drawn_anew() -> None:
    generator = np.random.default_rng(4)
    a = generator.random(200) < 0.9
    b = np.where(generator.random(200) < 0.8, a, generator.random(200) < 0.8)
    differences = a.astype(int) - b
    means = [differences[generator.integers(200, size=200)].mean() for _ in range(5000)]
    interval = paired_difference(a, b, num_resamples=20_000)["interval"]
    np.testing.assert_allclose(interval, np.quantile(means, [0.025, 0.975]), atol=0.006)
    assert paired_difference(a, b) == paired_difference(a, b)
    # The pairs matter: that of two independent samples would be far wider.
    independent = 1.96 * math.sqrt((a.var() + b.var()) / 200)
    assert interval[1] - interval[0] < 1.6 * independent


def test_two_classifiers_that_agree_do_not_differ() -> None:
    same = paired_difference([True, False, True], [True, False, True])
    assert (same["difference"], same["interval"], same["p_value"]) == (0, [0, 0], 1)


@pytest.mark.parametrize(("a", "b"), [([True], [True, False]), ([], []), ([[True]], [[True]])])
def test_answers_to_other_examples_cannot_be_paired(a, b) -> None:
    with pytest.raises(UserError, match="cannot be paired"):
        paired_difference(a, b)
