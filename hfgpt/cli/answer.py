"""`hfgpt answer`: a data set of conversations in, the model's answers and what they are worth out."""

import json
from pathlib import Path

from hfgpt import HfGptForCausalLM
from hfgpt.data.conversations import Form
from hfgpt.errors import UserError
from hfgpt.recipes.instruction_results import print_scores
from hfgpt.serving.defaults import DEFAULT_NEW_TOKENS
from hfgpt.serving.loading import inference_device, load_model
from hfgpt.serving.sampling import check_sampling
from hfgpt.training.disk import replace_text

from .answered_file import SUFFIXES, Drawing, Questions, answer_file
from .chat_tokenizer import load_chat_tokenizer
from .partial_file import check_destination, exit_on_signals


def run(
    model_name: str,
    data: str,
    destination: Path,
    *,
    split: str,
    form: Form | None,
    system_prompt: str | None,
    tokenizer_name: str | None,
    template: str | None,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    batch_size: int,
    report: Path | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Answer each conversation into a file, and say what came of it.

    A signal ends the process with 128 + its number; the answers so far are kept, and it says how to go on.

    Raises:
        UserError: If the model, its template, the data, a setting or a destination is not as it should be.
    """
    with exit_on_signals(destination, overwrite):
        # All that can be wrong without the model is said before it is loaded.
        check_destination(destination, SUFFIXES, resume=resume, overwrite=overwrite)
        _check_report(report, destination, resume or overwrite)
        if destination.exists() and Path(data).exists() and destination.samefile(data):
            raise UserError(f"{destination} holds the questions, and the answers would take their place: name another.")
        check_sampling(max_new_tokens=max_new_tokens or 1, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        if temperature == 0 and (top_k is not None or top_p is not None):
            raise UserError(
                "--top-k and --top-p choose among tokens that are drawn: give a --temperature above 0 with them."
            )
        tokenizer = load_chat_tokenizer(tokenizer_name or model_name, template)
        questions = Questions(data, split=split, form=form, system_prompt=system_prompt)
        if report is not None and not questions.references:
            raise UserError(f"{data} has no answers to compare the model's with, so there is no report: leave it out.")
        model = load_model(model_name, device_map=inference_device())
        assert isinstance(model, HfGptForCausalLM)
        drawing = Drawing(
            max_new_tokens=max_new_tokens or model.generation_config.max_new_tokens or DEFAULT_NEW_TOKENS,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
        )
        if not as_json:
            print("\n".join(questions.description), flush=True)
        summary = answer_file(
            model,
            tokenizer,
            questions,
            destination,
            drawing,
            batch_size=batch_size,
            resume=resume,
            overwrite=overwrite,
        )
    summary = {"out": str(destination), "model": model_name, "data": data, **summary}
    if report is not None:
        replace_text(report, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
        return
    cut_off = f", {summary['unfinished']:,} of them cut off" if summary["unfinished"] else ""
    print(f"{destination}: {summary['num_answers']:,} answers{cut_off}")
    if questions.references:
        print_scores(f"{summary['num_examples']:,} answers beside those that were wanted", summary)
    if report is not None:
        print(f"Report: {report}")


def _check_report(report: Path | None, destination: Path, may_replace: bool) -> None:
    if report is None:
        return
    if report.suffix.lower() != ".json":
        raise UserError(f"The report {report} is no .json file: name one.")
    if report.resolve() == destination.resolve():
        raise UserError(f"{report} is to hold both the answers and the report: name two files.")
    if not report.parent.is_dir():
        raise UserError(f"There is no folder {report.parent} to write {report.name} into: make it first.")
    if report.is_dir() or (report.exists() and not may_replace):
        raise UserError(f"{report} exists: name another file, or replace it with --overwrite.")
