"""95 % intervals: how much a result owes to the choice of the test examples."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

__all__ = ["CONFIDENCE", "NUM_RESAMPLES", "percentile_interval", "resampled_means", "wilson_interval"]

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000

CHUNK = 4_000_000  # the bootstrap holds about so many numbers of one kind at a time

Floats = NDArray[np.float64]


def percentile_interval(samples: Floats) -> list[float]:
    """The interval [low, high] of one number by its values on resampled examples. (resamples,)"""
    return [float(bound) for bound in np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])]


def resampled_means(values: Floats, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> Floats:
    """Means of `values`, drawn anew as many at a time as there are. (resamples,)"""
    chunk = max(1, CHUNK // len(values))
    return np.concatenate(
        [
            values[generator.integers(len(values), size=(min(chunk, num_resamples - start), len(values)))].mean(axis=1)
            for start in range(0, num_resamples, chunk)
        ]
    )


def wilson_interval(number: int, total: int) -> list[float]:
    """The interval [low, high] of a share, which is not of width 0 where all or none are right.

    E. B. Wilson, Journal of the American Statistical Association 22, 1927.
    """
    interval = binomtest(number, total).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]
