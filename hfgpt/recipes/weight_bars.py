"""transformers' progress bars for weights, which stand in the way of what a program prints.

A module of its own, since the `hfgpt` command needs it before anything that is slow to import.
"""

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging as transformers_logging

__all__ = ["hide_weight_bars"]


def hide_weight_bars() -> None:
    """Turn off the bars for loading and saving weights, which would break up the lines and the bar of a training.

    transformers' switch turns off the bars of downloads, too, for which one waits: these are turned on again.
    """
    if not are_progress_bars_disabled():
        transformers_logging.disable_progress_bar()
        enable_progress_bars()
