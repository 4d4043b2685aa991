"""The shipped metrics: those of scikit-learn and of answers, without a network, and the door to all others."""

import os
import random
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import sacrebleu
from sklearn import metrics as sklearn_metrics

import hfgpt.evaluation
from hfgpt.errors import UserError
from hfgpt.evaluation.metrics import SHIPPED_METRICS, load_metric

MODULES = Path(hfgpt.evaluation.__file__).parent / "modules"

OWN_METRIC = """
import datasets
import evaluate

class ErrorRate(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        wrong = sum(p != r for p, r in zip(predictions, references, strict=True))
        return {"error_rate": wrong / len(references)}
"""


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references of three classes."""
    generator = np.random.default_rng(0)
    references = generator.integers(3, size=60)
    return np.where(generator.random(60) < 0.7, references, generator.integers(3, size=60)), references


@pytest.fixture
def own_metric(tmp_path, monkeypatch) -> Path:
    """The folder of a metric that somebody wrote; evaluate keeps its copies in the test's folder."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    folder = tmp_path / "error_rate"
    folder.mkdir()
    (folder / "error_rate.py").write_text(OWN_METRIC)
    return folder


def test_every_folder_of_the_modules_is_a_shipped_metric() -> None:
    folders = {path.name for path in MODULES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(SHIPPED_METRICS)
    assert [load_metric(name).name for name in SHIPPED_METRICS] == list(SHIPPED_METRICS)


def test_predictions_are_measured_as_scikit_learn_does(answers) -> None:
    predictions, references = answers

    def value(name, **settings):
        return load_metric(name).compute(predictions=predictions, references=references, **settings)[name]

    assert value("accuracy") == sklearn_metrics.accuracy_score(references, predictions)
    assert value("accuracy", normalize=False) == (predictions == references).sum()
    assert value("matthews_correlation") == sklearn_metrics.matthews_corrcoef(references, predictions)
    np.testing.assert_array_equal(
        value("confusion_matrix", labels=[2, 0, 1]),
        sklearn_metrics.confusion_matrix(references, predictions, labels=[2, 0, 1]),
    )
    for name in ("f1", "precision", "recall"):
        score = getattr(sklearn_metrics, f"{name}_score")
        for average in ("macro", "micro", "weighted"):
            assert value(name, average=average) == score(references, predictions, average=average)
        np.testing.assert_array_equal(value(name, average=None), score(references, predictions, average=None))


def test_the_area_under_the_curve_takes_scores_of_two_classes_and_probabilities_of_any_number() -> None:
    generator = np.random.default_rng(1)
    references = generator.integers(3, size=60)
    probabilities = generator.dirichlet(np.ones(3), size=60)
    assert load_metric("roc_auc").compute(references=references, prediction_scores=probabilities)[
        "roc_auc"
    ] == sklearn_metrics.roc_auc_score(references, probabilities, multi_class="ovr", average="macro")
    binary, score = references % 2, probabilities[:, 0]
    expected = sklearn_metrics.roc_auc_score(binary, score)
    for scores in (score, np.stack([1 - score, score], axis=1)):
        assert load_metric("roc_auc").compute(references=binary, prediction_scores=scores)["roc_auc"] == expected


def test_the_calibration_error_is_that_of_a_case_worked_by_hand() -> None:
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]
    # Bins of a half: none below, and all four above, with a mean confidence of 0.775 and an accuracy of 3/4.
    # Bins of a quarter: (0.5, 0.75] holds 0.6 (right) and 0.7 (right), (0.75, 1] holds 0.9 (right) and 0.9 (wrong).
    metric = load_metric("expected_calibration_error")
    inputs = {"references": [0, 1, 1, 1], "prediction_scores": probabilities}
    assert metric.compute(**inputs, num_bins=2)["expected_calibration_error"] == pytest.approx(0.025)
    expected = (2 * abs(1 - 0.65) + 2 * abs(0.5 - 0.9)) / 4
    assert metric.compute(**inputs, num_bins=4)["expected_calibration_error"] == pytest.approx(expected)


def sentences(number: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(["the", "cat", "sat", "on", "a", "mat"], k=chance.randint(1, 9)))
            for _ in range(number)]  # fmt: skip


def test_an_exact_match_overlooks_nothing_but_what_it_is_told_to() -> None:
    texts = {"predictions": ["Yes.", "no", "4 cats", " no"], "references": ["yes", "no", "5 cats", "no"]}

    def share(**options):
        return load_metric("exact_match").compute(**texts, **options)["exact_match"]

    assert share() == 1 / 4
    assert share(ignore_case=True) == share(ignore_punctuation=True) == 1 / 4
    assert share(ignore_case=True, ignore_punctuation=True) == share(ignore_numbers=True) == 2 / 4
    assert share(regexes_to_ignore=[r"^\s+", r"\d"]) == 3 / 4


def longest_common_subsequence(first: list[str], second: list[str]) -> int:
    """By its definition: the longest of all subsequences of the first that the second has, too."""
    if not first or not second:
        return 0
    if first[0] == second[0]:
        return 1 + longest_common_subsequence(first[1:], second[1:])
    return max(longest_common_subsequence(first[1:], second), longest_common_subsequence(first, second[1:]))


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence_of_words() -> None:
    predictions, references = sentences(40, 0), sentences(40, 1)
    expected = []
    for prediction, reference in zip(predictions, references, strict=True):
        found, wanted = prediction.split(), reference.split()
        common = longest_common_subsequence(found, wanted)
        precision, recall = common / len(found), common / len(wanted)
        expected.append(2 * precision * recall / (precision + recall) if common else 0)
    texts = {"predictions": [text.upper() + "!" for text in predictions], "references": references}
    metric = load_metric("rouge_l")
    assert metric.compute(**texts, use_aggregator=False)["rouge_l"] == pytest.approx(expected)
    assert metric.compute(**texts)["rouge_l"] == pytest.approx(np.mean(expected))
    assert 0.1 < np.mean(expected) < 0.9


def test_chrf_is_that_of_sacrebleu_and_of_a_case_worked_by_hand() -> None:
    predictions, references = sentences(40, 0), sentences(40, 1)
    metric = load_metric("chrf")
    for options in ({}, {"word_order": 2, "beta": 1}):
        theirs = sacrebleu.corpus_chrf(predictions, [references], **options).score / 100
        assert metric.compute(predictions=predictions, references=references, **options)["chrf"] == theirs
    # "abc" beside "abd": 2 of 3 letters, 1 of 2 pairs, no triple in common, the same of either; 0.39 on average.
    found = metric.compute(predictions=["abc"], references=["abd"], char_order=3)["chrf"]
    assert found == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_chrf_of_texts_drawn_anew_is_that_of_the_drawn_texts() -> None:
    predictions, references = sentences(5, 0), [*sentences(4, 1), ""]
    resampled = load_metric("chrf").compute(
        predictions=predictions, references=references, num_resamples=20, bootstrap_seed=3
    )["resampled"]
    generator = np.random.default_rng(3)
    for value in resampled:
        drawn = generator.integers(5, size=5)
        theirs = sacrebleu.corpus_chrf([predictions[i] for i in drawn], [[references[i] for i in drawn]])
        assert value == pytest.approx(theirs.score / 100)
    assert len(set(resampled)) > 10


@pytest.mark.parametrize(("name", "package"), [("rouge_l", "rouge_score"), ("chrf", "sacrebleu")])
def test_a_metric_without_its_package_names_the_extra(name, package, monkeypatch) -> None:
    for module in [
        known for known in sys.modules if known.split(".")[0] == package or known.endswith(f"{name}.{name}")
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"{name!r} needs the package {package}.*pip install 'hfgpt\\[answers\\]'"):
        load_metric(name)


LOADED_BY_PATH = """
import sys, evaluate
from pathlib import Path
for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if (path / f"{path.name}.py").exists()):
    metric = evaluate.load(str(folder))
    if "prediction_scores" in metric._feature_names():
        inputs = {"references": [0, 1, 1], "prediction_scores": [[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]}
    elif metric.name in ("chrf", "exact_match", "rouge_l"):
        inputs = {"references": ["a cat", "a dog"], "predictions": ["a cat", "the dog"]}
    else:
        inputs = {"references": [0, 1, 1], "predictions": [0, 1, 1]}
    print(metric.name, sorted(metric.compute(**inputs)))
"""


def test_evaluate_loads_the_modules_by_their_path_without_a_network_in_two_processes_at_once(tmp_path) -> None:
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", LOADED_BY_PATH, MODULES]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert printed.splitlines() == [f"{name} ['{name}']" for name in SHIPPED_METRICS]


def test_the_shipped_metrics_need_no_folder_that_can_be_written(tmp_path, answers) -> None:
    (tmp_path / "home").write_text("a file, below which no folder can be made, even by root")
    program = (
        "from hfgpt.evaluation.metrics import load_metric\n"
        "print(load_metric('accuracy').compute(predictions=[0, 1], references=[0, 0]))"
    )
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "home" / "cache"),
        "HF_DATASETS_CACHE": str(tmp_path / "data"),
    }
    completed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert completed.stdout.splitlines()[-1] == "{'accuracy': 0.5}"


def test_a_shipped_metric_leaves_no_file_behind(tmp_path, monkeypatch, answers) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    predictions, references = answers
    load_metric("accuracy").compute(predictions=predictions, references=references)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_of_ones_own_is_loaded_by_its_folder(own_metric) -> None:
    result = load_metric(str(own_metric)).compute(predictions=[0, 1, 1, 1], references=[0, 1, 0, 1])
    assert result == {"error_rate": 0.25}


@pytest.mark.parametrize("name", ["no_such_metric", "no/such_metric", "./no/such/folder", "", "/"])
def test_a_metric_that_is_not_there_is_one_sentence(name, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", False)
    with pytest.raises(UserError, match="cannot be loaded .*name one of accuracy, .*needs a network") as raised:
        load_metric(name)
    assert "\n" not in str(raised.value)


def test_a_metric_whose_package_is_missing_names_it(own_metric) -> None:
    (own_metric / "error_rate.py").write_text("import a_package_that_nobody_has\n" + OWN_METRIC)
    with pytest.raises(UserError, match="a_package_that_nobody_has"):
        load_metric(str(own_metric))
