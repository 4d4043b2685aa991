"""Scores of answers: what the metrics give, with intervals that hold the truth."""

import json

import numpy as np
import pytest
import sacrebleu
from scipy.stats import norm

import hfgpt.evaluation.answers
from hfgpt.errors import UserError
from hfgpt.evaluation.answers import score_answers

PREDICTIONS = ["Paris", " 7 \n", "a red cat", "", "down"]
REFERENCES = ["Paris", "7", "a red fox", "up", "up"]
TASKS = ["capital", "sum", "describe", "antonym", "antonym"]


def test_each_metric_is_measured_and_can_be_written_as_json() -> None:
    scores = score_answers(PREDICTIONS, REFERENCES, TASKS)
    assert json.loads(json.dumps(scores)) == scores
    assert scores["num_examples"] == 5
    assert scores["exact_match"]["value"] == 2 / 5
    assert scores["rouge_l"]["value"] == pytest.approx((1 + 1 + 2 / 3 + 0 + 0) / 5)
    stripped = [text.strip() for text in PREDICTIONS]
    assert scores["chrf"]["value"] == sacrebleu.corpus_chrf(stripped, [REFERENCES]).score / 100
    assert scores["not_measured"] == []
    for name in ("exact_match", "rouge_l", "chrf"):
        low, high = scores[name]["interval"]
        assert 0 <= low < scores[name]["value"] < high <= 1


def test_exact_matches_are_told_by_task() -> None:
    by_task = score_answers(PREDICTIONS, REFERENCES, TASKS)["by_task"]
    assert list(by_task) == ["antonym", "capital", "describe", "sum"]
    assert {task: score["num_examples"] for task, score in by_task.items()} == {
        "antonym": 2, "capital": 1, "describe": 1, "sum": 1
    }  # fmt: skip
    values = {task: score["exact_match"]["value"] for task, score in by_task.items()}
    assert values == {"antonym": 0, "capital": 1, "describe": 0, "sum": 1}
    assert score_answers(PREDICTIONS, REFERENCES)["by_task"] == {}


@pytest.mark.parametrize(("right", "total"), [(0, 12), (3, 12), (12, 12), (1, 1)])
def test_the_interval_of_the_exact_match_is_wilsons(right: int, total: int) -> None:
    scores = score_answers(["a"] * right + ["b"] * (total - right), ["a"] * total)
    z, share = norm.ppf(0.975), right / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    assert scores["exact_match"]["interval"] == pytest.approx([middle - half, middle + half], abs=1e-12)


def test_the_bootstrap_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(40):
        right = generator.random(60) < 0.7
        scores = score_answers(
            ["up" if r else "no" for r in right], ["up"] * 60, bootstrap_seed=seed, num_resamples=300
        )
        low, high = scores["rouge_l"]["interval"]
        held += low <= 0.7 <= high
    assert held >= 33  # of 95 %: 33 or fewer would come about with a probability of 2 in 10,000


def test_the_same_seed_gives_the_same_intervals() -> None:
    first, second, other = (score_answers(PREDICTIONS, REFERENCES, bootstrap_seed=seed) for seed in (1, 1, 2))
    assert first == second != other


def test_a_package_that_is_not_installed_is_named_and_the_rest_is_measured(monkeypatch) -> None:
    monkeypatch.setattr(hfgpt.evaluation.answers, "find_spec", lambda name: None)
    scores = score_answers(PREDICTIONS, REFERENCES)
    assert scores["not_measured"] == ["rouge_l", "chrf"]
    assert "rouge_l" not in scores
    assert scores["exact_match"]["value"] == 2 / 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "There are 0 answers, 0 references: give one reference"),
        ((["a"], ["a", "b"]), "1 answers, 2 references"),
        ((["a"], ["a"], ["t", "u"]), "1 answers, 1 references, 2 tasks"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        score_answers(*arguments)
