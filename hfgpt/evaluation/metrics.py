"""The one door to metrics: those that the package ships, and any other that Hugging Face evaluate can load."""

from importlib import import_module
from tempfile import TemporaryDirectory

import evaluate
from huggingface_hub import constants

from hfgpt.errors import UserError

__all__ = ["ANSWER_METRICS", "CLASSIFICATION_METRICS", "SHIPPED_METRICS", "load_metric"]

# Each is a folder of `hfgpt/evaluation/modules/`.
CLASSIFICATION_METRICS = (
    "accuracy",
    "confusion_matrix",
    "expected_calibration_error",
    "f1",
    "matthews_correlation",
    "precision",
    "recall",
    "roc_auc",
)
ANSWER_METRICS = ("chrf", "exact_match", "rouge_l")
SHIPPED_METRICS = tuple(sorted(CLASSIFICATION_METRICS + ANSWER_METRICS))


def load_metric(name: str) -> evaluate.EvaluationModule:
    """A metric that is ready to `compute`, keeping its inputs in memory.

    Args:
        name: one of `SHIPPED_METRICS`, which needs no network and writes nothing; or what `evaluate.load` takes: a
            folder or file of one's own, or the name of a metric on the Hub, which is fetched once.

    Raises:
        UserError: there is no such metric, it cannot be fetched, or a package that it needs is missing.
    """
    if name in SHIPPED_METRICS:
        try:
            module = import_module(f"hfgpt.evaluation.modules.{name}.{name}")
        except ModuleNotFoundError as error:
            raise UserError(
                f"the metric {name!r} needs the package {error.name}, which is not installed: pip install "
                "'hfgpt[answers]'."
            ) from error
        # Imported, not loaded by its path: `evaluate.load` would copy it into a cache in the user's home, which may be
        # read-only. The constructor makes a folder, too, which a metric that keeps its inputs in memory never uses.
        with TemporaryDirectory() as folder:
            metric: evaluate.EvaluationModule = getattr(module, name.title().replace("_", ""))(
                keep_in_memory=True, cache_dir=folder, seed=0
            )
        return metric
    # evaluate has an offline switch of its own; it follows the Hub's here, or it would wait for a network in vain.
    evaluate.config.HF_EVALUATE_OFFLINE |= constants.HF_HUB_OFFLINE
    try:
        if not name.strip("/ "):
            raise FileNotFoundError("it has no name")
        return evaluate.load(name, keep_in_memory=True, seed=0)
    except (OSError, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"the metric {name!r} cannot be loaded ({reason}); name one of {', '.join(SHIPPED_METRICS)}, the folder of "
            "a module of Hugging Face evaluate, or a metric on the Hub, which needs a network the first time."
        ) from error
