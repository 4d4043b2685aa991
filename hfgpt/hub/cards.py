"""The model card: `README.md` with its machine-readable head, made from facts and nothing else.

The same facts give the same card, byte for byte. The text stands in `templates/`, one file a section.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hfgpt.training.disk import replace_text

from .allow_list import CARD
from .lineage import ancestors, hub_ancestor

__all__ = ["CARD", "Layout", "render_card", "write_card"]

# By the recipe: what the Hub calls the task, and what it is in words.
PIPELINES = {"pretrain": "text-generation", "classify_train": "text-classification", "instruct": "text-generation"}
TASK_NAMES = {"pretrain": "Text generation", "classify_train": "Text classification", "instruct": "Answering"}
RECIPE_TAGS = {"pretrain": ["causal-lm"], "classify_train": ["classification"], "instruct": ["conversational"]}

# Of the metrics that the recipes measure, those that https://huggingface.co/metrics lists.
HUB_METRICS = ("perplexity", "accuracy", "f1", "matthews_correlation", "roc_auc", "exact_match", "rouge", "chrf")

# The type of a data set that is not on the Hub, which takes none but an id.
OFF_THE_HUB = "unknown"

Layout = Literal["hfgpt", "gpt2"]

# Where a card is read before it is known where the model will lie.
FOLDER = "path/to/this/folder"


def render_card(facts: Mapping[str, Any], *, repo_id: str | None = None, layout: Layout = "hfgpt") -> ModelCard:
    """The card of a model.

    Args:
        facts: What `collect_facts` returns.
        repo_id: Under which the model will lie on the Hub. Default: not known, and the card names a folder.
        layout: Of the weights beside the card: hfgpt's, with the code that opens it, or GPT-2's, which needs none.
    """
    name = facts["name"] if repo_id is None else repo_id.split("/")[-1]
    head = ModelCardData(
        language=_languages(facts),
        license=facts["licence"],
        library_name="transformers",
        pipeline_tag=PIPELINES[facts["recipe"]],
        tags=_tags(facts),
        base_model=hub_ancestor(facts),
        datasets=list(dict.fromkeys(source["repository"]["id"] for source in facts["data"] if source["kind"] == "hub"))
        or None,
        metrics=_metrics(facts),
        widget=_widget(facts),
        model_name=name,
        eval_results=_results(facts),
    )
    template = _environment().get_template("model_card.jinja")
    text = template.render(
        facts=facts, name=name, model_id=repo_id or FOLDER, ancestors=list(ancestors(facts)), layout=layout
    )
    body = re.sub(r"\n{3,}", "\n\n", text).strip()
    return ModelCard(f"---\n{head.to_yaml()}\n---\n\n{body}\n")


def write_card(folder: Path, facts: Mapping[str, Any], repo_id: str | None = None) -> Path:
    """Write the card beside a model, whole or as it was."""
    path = folder / CARD
    replace_text(path, str(render_card(facts, repo_id=repo_id)))
    return path


def _languages(facts: Mapping[str, Any]) -> list[str] | None:
    """Those that every training text's source names; None where one names none."""
    named = [source["languages"] for source in facts["data"] if source["use"] == "training"]
    return sorted({language for languages in named for language in languages}) if all(named) and named else None


def _tags(facts: Mapping[str, Any]) -> list[str]:
    from_scratch = ["from-scratch"] if not any(not parent["only_shape"] for parent in ancestors(facts)) else []
    return ["hfgpt", "gpt", *RECIPE_TAGS[facts["recipe"]], *from_scratch]


def _metrics(facts: Mapping[str, Any]) -> list[str]:
    """Each once, in the order of the tables: those that the Hub lists."""
    measured = dict.fromkeys(metric["type"] for table in facts["evaluation"] for metric in table["metrics"])
    return [name for name in measured if name in HUB_METRICS]


def _widget(facts: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """What a page of the Hub offers to try."""
    prompts = [example["prompt"] for example in facts["examples"] if example["prompt"]]
    if facts["recipe"] == "instruct":
        return [{"messages": [{"role": "user", "content": prompt}]} for prompt in prompts] or None
    return [{"text": prompt} for prompt in prompts] or None


def _results(facts: Mapping[str, Any]) -> list[EvalResult] | None:
    """This model's own numbers, for the machine-readable `model-index`; intervals are arguments of the metric."""
    found = []
    for table in facts["evaluation"]:
        data_set, of_the_set = _evaluated_on(facts["data"], table["split"])
        own: Mapping[str, Any] = next((row["values"] for row in table["rows"] if row.get("this_model")), {})
        for metric in table["metrics"]:
            measured = own.get(metric["key"], {"value": None})
            if measured["value"] is None:
                continue
            interval = measured["interval"]
            found.append(
                EvalResult(
                    task_type=PIPELINES[facts["recipe"]],
                    task_name=TASK_NAMES[facts["recipe"]],
                    **data_set,
                    metric_type=metric["type"],
                    metric_name=metric["name"] + of_the_set,
                    metric_value=_rounded(measured["value"]),
                    metric_args=None
                    if interval is None or None in interval
                    else {"confidence": 0.95, "interval": [_rounded(bound) for bound in interval]},
                )
            )
    return found or None


def _evaluated_on(data: Sequence[Mapping[str, Any]], part: str) -> tuple[dict[str, Any], str]:
    """The data set behind a part, in the fields of `EvalResult`, and what the names of metrics must add to it.

    What hfgpt held out of a split of the Hub lies in that split; the Hub has no name for the part.
    """
    own = next((source for source in data if source["use"] == part), None)
    source = data[0] if own is None else own
    on_hub = source["kind"] == "hub"
    fields = {
        "dataset_type": source["repository"]["id"] if on_hub else OFF_THE_HUB,
        "dataset_name": source["source"] + (" (held out by hfgpt)" if own is None else ""),
        "dataset_config": source["config"],
        "dataset_split": source["split"] if on_hub else part,
        "dataset_revision": source["repository"]["revision"] if on_hub else None,
    }
    return fields, f" ({part} set)" if on_hub and own is None else ""


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701  # Markdown, whose own characters the filters below take care of
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"plain": plain, "code": code, "score": score, "duration": duration}
    environment.filters |= {"shell": shlex.quote, "python": lambda text: json.dumps(text, ensure_ascii=False)}
    return environment


def plain(text: Any) -> str:
    """A text that says in Markdown, also within a table, what it says by itself, on one line."""
    return re.sub(r"([\\`*_\[\]<>|~#$])", r"\\\1", " ".join(str(text).split()))


def code(value: Any) -> str:
    """A value between backticks, on one line; within a table, too."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text.replace("\n", "\\n").replace("|", "\\|")
    if not text:
        return "` `"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def score(measured: Mapping[str, Any], style: str) -> str:
    """A value with its interval, as a table shows it; what was not finite, or not measured, is a dash."""
    value, interval = measured["value"], measured["interval"]
    if value is None:
        return "-"
    show = (lambda share: f"{100 * share:.1f}") if style == "percent" else number
    unit = " %" if style == "percent" else ""
    bounds = ["-" if bound is None else show(bound) for bound in interval or ()]
    return f"{show(value)}{unit}" + (f" [{', '.join(bounds)}]" if bounds else "")


def number(value: float) -> str:
    """Three decimals, fewer of large numbers."""
    return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
