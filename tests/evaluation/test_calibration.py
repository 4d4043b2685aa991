"""Reliability bins against a loop, temperatures against closed forms."""

import math

import numpy as np
import pytest
from scipy.special import log_softmax

from hfgpt.errors import UserError
from hfgpt.evaluation.calibration import (
    calibration_error_of_bins,
    expected_calibration_error,
    fit_temperature,
    mean_loss,
    reliability_bins,
    scaled_probabilities,
)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits of four classes, and labels drawn from their softmax: calibrated as they are."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, size=(4000, 4))
    cumulative = scaled_probabilities(logits).cumsum(axis=1)
    return logits, (generator.random((4000, 1)) > cumulative).sum(axis=1)


def plain_bins(probabilities, labels, num_bins):
    """(count, sum of confidences, number right) of each bin, one example at a time."""
    bins = [[0, 0.0, 0] for _ in range(num_bins)]
    for row, label in zip(probabilities, labels, strict=True):
        confidence = max(row)
        for i in range(num_bins):
            if i / num_bins < confidence <= (i + 1) / num_bins:
                bins[i][0] += 1
                bins[i][1] += confidence
                bins[i][2] += int(list(row).index(confidence) == label)
    return bins


@pytest.mark.parametrize("num_bins", [1, 7, 15])
def test_bins_and_their_error_are_those_of_a_loop(scored, num_bins) -> None:
    logits, labels = scored
    probabilities = scaled_probabilities(logits, 0.5)[:500]
    expected = plain_bins(probabilities, labels[:500], num_bins)
    bins = reliability_bins(probabilities, labels[:500], num_bins)
    assert [entry["count"] for entry in bins] == [count for count, _, _ in expected]
    for entry, (count, confidence, right) in zip(bins, expected, strict=True):
        assert entry["confidence"] == (pytest.approx(confidence / count) if count else None)
        assert entry["accuracy"] == (pytest.approx(right / count) if count else None)
    error = sum(abs(right - confidence) for _, confidence, right in expected) / 500
    assert expected_calibration_error(probabilities, labels[:500], num_bins) == pytest.approx(error)
    assert calibration_error_of_bins(bins) == pytest.approx(error)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    counts = [entry["count"] for entry in reliability_bins([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]], [0, 1, 0], 4)]
    assert counts == [0, 1, 1, 1]


def test_answers_that_are_right_and_sure_have_no_error_and_wrong_ones_all() -> None:
    probabilities = np.eye(3)[[0, 1, 2, 0]]
    assert expected_calibration_error(probabilities, [0, 1, 2, 0]) == 0
    assert expected_calibration_error(probabilities, [1, 2, 0, 1]) == 1


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scored, factor) -> None:
    logits, labels = scored
    plain, scaled = fit_temperature(logits, labels), fit_temperature(factor * logits, labels)
    assert plain.value == pytest.approx(1.0, abs=0.05)  # the labels were drawn from these logits
    assert scaled.value == pytest.approx(factor * plain.value, rel=1e-4)
    assert scaled.loss_after == pytest.approx(plain.loss_after, rel=1e-9)
    assert (plain.reason, scaled.reason) == (None, None)


def test_the_temperature_of_two_classes_with_one_margin_is_a_closed_form() -> None:
    # The margin is 2 in all examples, and 3 of 4 are right: p = sigmoid(2 / T) is 3/4 where T = 2 / ln 3.
    fitted = fit_temperature([[2.0, 0.0]] * 4, [0, 0, 0, 1])
    assert fitted.value == pytest.approx(2 / math.log(3), rel=1e-4)
    assert fitted.loss_after == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert fitted.loss_before == pytest.approx(mean_loss([[2.0, 0.0]] * 4, [0, 0, 0, 1]))


def test_no_temperature_on_a_fine_grid_is_better(scored) -> None:
    logits, labels = scored
    fitted = fit_temperature(2.5 * logits, labels)
    grid = [mean_loss(2.5 * logits, labels, t) for t in np.linspace(0.5, 5, 200)]
    assert fitted.loss_after <= min(grid)
    assert fitted.loss_after == mean_loss(2.5 * logits, labels, fitted.value) < fitted.loss_before


def test_the_loss_is_the_mean_of_minus_the_log_probabilities(scored) -> None:
    logits, labels = scored
    rows = log_softmax(logits / 3, axis=1)
    assert mean_loss(logits, labels, 3) == pytest.approx(
        -np.mean([row[k] for row, k in zip(rows, labels, strict=True)])
    )


@pytest.mark.parametrize(
    ("logits", "labels", "reason"),
    [
        ([[3.0, 1.0], [0.0, 2.0]], [0, 1], "all of the 2 validation examples are right"),
        ([[1.0, 1.0], [0.0, 2.0]], [1, 1], "all of the 2"),  # a tie does not end the fall towards 0 either
        ([[3.0, 1.0], [0.0, 2.0]], [1, 0], "no larger than the others"),
        ([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [0, 1, 1], "no larger"),
        ([[1e4, 0.0]] * 3, [0, 0, 1], "lies outside of 0.01 ... 100"),
    ],
)
def test_where_no_temperature_can_be_fitted_it_is_one_and_says_why(logits, labels, reason) -> None:
    fitted = fit_temperature(logits, labels)
    assert fitted.value == 1.0
    assert fitted.loss_after == fitted.loss_before
    assert reason in fitted.reason


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[0.0, 1.0]], [0, 1], "do not fit"),
        ([0.0, 1.0], [0, 1], "do not fit"),
        ([[0.0], [1.0]], [0, 0], "two classes"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "0 examples"),
        ([[0.0, 1.0]], [2], "from 0 to 1"),
        ([[0.0, 1.0]], [-1], "from 0 to 1"),
        ([[0.0, 1.0]], [0.5], "whole numbers"),
        ([[0.0, 1.0], [math.nan, 1.0]], [0, 1], "example 1 are not numbers"),
        ([[0.0, math.inf]], [0], "example 0 are not numbers"),
        ([[-math.inf, -math.inf]], [0], "example 0 are not numbers"),
    ],
)
def test_what_cannot_be_measured_is_named(logits, labels, message) -> None:
    with pytest.raises(UserError, match=message):
        mean_loss(logits, labels)


def test_a_temperature_needs_finite_logits_and_bins_a_number() -> None:
    with pytest.raises(UserError, match="minus infinity"):
        fit_temperature([[0.0, -math.inf], [0.0, 1.0]], [0, 0])
    with pytest.raises(UserError, match="num_bins is 0"):
        reliability_bins([[0.5, 0.5]], [0], 0)
