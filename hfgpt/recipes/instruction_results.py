"""What a finetuning for instructions leaves behind: the model, its answers to the test prompts, report and pictures."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from hfgpt import HfGptForCausalLM
from hfgpt.chat_templates import printable
from hfgpt.data.conversation_split import prompt_of
from hfgpt.evaluation.answer_pictures import draw_exact_match
from hfgpt.evaluation.answers import score_answers
from hfgpt.hub.run_record import RunRecord
from hfgpt.serving.answering import Answer, answer_prompts
from hfgpt.training.disk import replace_text
from hfgpt.training.events import TrainingRun
from hfgpt.training.processes import on_every_process, on_main_process

from .assistant_card import write_assistant_card
from .console import print_table
from .instruction_config import InstructionConfig
from .instruction_corpus import InstructionCorpus
from .lora import count_trained, merged_weights
from .run_folder import save_final, write_results

__all__ = ["ANSWERS", "InstructionResults", "print_samples", "print_scores"]

REPORT, ANSWERS, PICTURE = "report.json", "test_answers.jsonl", "exact_match.png"


class InstructionResults:
    """Answers the test prompts when training is over, and writes, draws and prints what came of it."""

    def __init__(
        self,
        config: InstructionConfig,
        corpus: InstructionCorpus,
        model: HfGptForCausalLM,
        accelerator: Accelerator,
        record: RunRecord,
    ) -> None:
        self.config, self.corpus, self.model, self.accelerator = config, corpus, model, accelerator
        self.record = record
        self.started = time.perf_counter()

    def begin(self, resume_from: Path | None) -> None:
        """Show what is learned of one conversation; remove what a run that is replaced left in the folder."""
        if not self.accelerator.is_main_process:
            return
        self.corpus.print_example()
        if resume_from is None:
            for name in (REPORT, ANSWERS, PICTURE):
                (Path(self.config.output_dir) / name).unlink(missing_ok=True)

    def finish(self, run: TrainingRun, folder: Path) -> None:
        """Answer the test prompts, save the model, and report."""
        answers = self._answer()
        on_main_process(self.accelerator, lambda: self._save_and_report(run, folder, answers))

    def _answer(self) -> list[Answer]:
        """An answer to each test prompt, in their order, on every process; each process answers its share."""
        rank, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        prompts = self.corpus.test_prompts[: self.config.max_test_examples]
        own = range(rank, len(prompts), num_processes)
        settings = self.model.generation_config
        bar = tqdm(total=len(own), desc="answer", unit="prompt", disable=rank > 0 or not own, dynamic_ncols=True)

        def answer() -> list[tuple[int, Answer]]:
            answers = answer_prompts(
                self.model,
                self.corpus.tokenizer,
                [prompts[index] for index in own],
                stop_token_ids=settings.eos_token_id,
                max_new_tokens=settings.max_new_tokens,
                on_progress=bar.update,
            )
            return list(zip(own, answers, strict=True))

        with bar:
            found = dict(on_every_process(self.accelerator, answer))
        return [found[index] for index in range(len(prompts))]

    def _save_and_report(self, run: TrainingRun, folder: Path, answers: list[Answer]) -> None:
        corpus, weights = self.corpus, merged_weights(self.model)
        final = save_final(folder, self.model, corpus.tokenizer, self.config, weights)
        messages = corpus.test["messages"][: len(answers)]
        references = [conversation[-1]["content"].strip() for conversation in messages]
        tasks = corpus.test["task"][: len(answers)] if "task" in corpus.test.column_names else None
        lines = [
            {
                "prompt": "\n".join(prompt_of(conversation)),
                **({} if tasks is None else {"task": tasks[index]}),
                "reference": references[index],
                "answer": answers[index].text,
                "finished": answers[index].finished,
            }
            for index, conversation in enumerate(messages)
        ]
        report: dict[str, Any] = {
            "counts": corpus.counts,
            "validation_before": run.evaluations[0].metrics,
            "validation_after": run.evaluations[-1].metrics,
        }
        if answers:
            scores = score_answers([line["answer"].strip() for line in lines], references, tasks)
            report["test"] = {**scores, "unfinished": sum(not answer.finished for answer in answers)}
        replace_text(folder / ANSWERS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        replace_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        write_results(folder, self._summary(run, report))
        if report.get("test", {}).get("by_task"):
            draw_exact_match(report["test"]["by_task"], folder / PICTURE)
        seconds = time.perf_counter() - self.started
        write_assistant_card(run, corpus, self.config, self.record, final, self.model, report, lines, seconds=seconds)
        self._print(run, report, lines, final)

    def _summary(self, run: TrainingRun, report: dict[str, Any]) -> dict[str, Any]:
        """What `results.json` holds, for programs that compare runs."""
        test = report.get("test", {})
        return {
            "steps": run.step,
            "trained_parameters": count_trained(self.model),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": round(time.perf_counter() - self.started, 1),
            "validation_before": report["validation_before"],
            "validation_after": report["validation_after"],
            **{f"test_{name}": value for name, value in test.items() if name in ("exact_match", "rouge_l", "chrf")},
            "test_exact_match_by_task": test.get("by_task", {}),
        }

    def _print(self, run: TrainingRun, report: dict[str, Any], lines: list[dict[str, Any]], final: Path) -> None:
        folder = final.parent
        pictures = [folder / "loss_curve.png"]
        minutes = (time.perf_counter() - self.started) / 60
        before, after = (report[f"validation_{moment}"]["loss"] for moment in ("before", "after"))
        print(
            f"validation loss on {self.config.loss_on} tokens: {before:.3f} before, {after:.3f} after {run.step} steps"
        )
        if "test" in report:
            test = report["test"]
            print_scores(f"{len(lines):,} test prompts, after {minutes:.1f} minutes", test)
            if test["unfinished"]:
                print(
                    f"answers cut off, at {self.model.generation_config.max_new_tokens} tokens or where the context "
                    f"ends: {test['unfinished']:,}"
                )
            if test["by_task"]:
                pictures.append(folder / PICTURE)
            print_samples(lines)
        print(f"Report:     {folder / REPORT}   Answers: {folder / ANSWERS}   Pictures: {' '.join(map(str, pictures))}")
        print(f"Try it:     hfgpt chat --model {final}")


def print_scores(title: str, scores: dict[str, Any]) -> None:
    """Print a table of what `score_answers` gives: each metric over all prompts, then the exact match of each task."""
    names = {"exact_match": "exact match", "rouge_l": "ROUGE-L", "chrf": "chrF"}
    number = f"{scores['num_examples']:,}"
    rows = [[name, number, with_interval(scores[key])] for key, name in names.items() if key in scores]
    for task, score in scores["by_task"].items():
        rows.append(
            [f"exact match: {task or '(no task)'}", f"{score['num_examples']:,}", with_interval(score["exact_match"])]
        )
    print_table(title, ["", "prompts", "score [95%]"], rows)
    if missing := [names[key] for key in scores["not_measured"]]:
        print(f"not measured: {', '.join(missing)} (pip install 'hfgpt[answers]')")


def with_interval(score: dict[str, Any]) -> str:
    """A share in percent with its interval."""
    low, high = score["interval"]
    return f"{100 * score['value']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def print_samples(lines: Sequence[dict[str, Any]], number: int = 3) -> None:
    """Print the first answer of each of the first tasks; of the first questions, where these have no task."""
    chosen: dict[Any, dict[str, Any]] = {}
    for index, line in enumerate(lines):
        chosen.setdefault(line.get("task", index), line)
    for line in list(chosen.values())[:number]:
        verdict = "right" if line["answer"].strip() == line["reference"] else f"expected {line['reference']!r}"
        print(f"{printable(line['prompt'])}\n  -> {line['answer'].strip()!r} ({verdict})")
