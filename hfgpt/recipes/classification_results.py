"""What a finetuning for classification leaves behind: the classifier, its report, its pictures."""

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hfgpt.evaluation.calibration import Temperature, fit_temperature
from hfgpt.evaluation.classification import evaluate_classifier
from hfgpt.evaluation.classification_report import build_report, draw_pictures, report_table, write_report
from hfgpt.evaluation.metrics import load_metric
from hfgpt.evaluation.text_baselines import MAJORITY, TFIDF, log_probabilities, majority_baseline, tfidf_baseline
from hfgpt.hub.run_record import RunRecord
from hfgpt.training.events import TrainingRun
from hfgpt.training.memory import MicroBatching, in_parts
from hfgpt.training.processes import on_main_process
from hfgpt.training.task import Batch, Task

from .classification_config import ClassificationConfig
from .classifier_card import write_classifier_card
from .console import print_table
from .finetuned_classifier import FinetunedClassifier
from .labelled_corpus import LabelledCorpus
from .lora import count_trained
from .run_folder import save_final, write_results

__all__ = ["ClassificationResults", "check_metrics", "class_logits"]

BEFORE = "logits_before_training.npy"
TEXTS_AT_ONCE = 64


def check_metrics(names: Sequence[str]) -> None:
    """Load metrics that are needed when training is over.

    Raises:
        UserError: If one cannot be loaded.
    """
    for name in names:
        load_metric(name)


def class_logits(
    task: Task, model: torch.nn.Module, examples: Dataset, accelerator: Accelerator
) -> NDArray[np.float64]:
    """Logits `(examples, classes)` of all examples, in their order, on every process; each process computes its share.

    The batches are made by length, and are the same on any number of processes.
    """
    lengths = task.lengths(examples)
    order = np.arange(len(examples)) if lengths is None else np.argsort(lengths, kind="stable")  # type: ignore[arg-type]
    batches = [order[start : start + TEXTS_AT_ONCE].tolist() for start in range(0, len(order), TEXTS_AT_ONCE)]
    batching = MicroBatching()
    was_training = model.training
    model.eval()

    def compute(batch: Batch) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        with torch.no_grad(), accelerator.autocast():
            logits: torch.Tensor = model(**send_to_device(inputs, accelerator.device)).logits
        return logits.cpu().double()  # in this order, for Apple's GPU has no doubles

    own = []
    for batch in batches[accelerator.process_index :: accelerator.num_processes]:
        logits = torch.cat(in_parts(task.collate([examples[index] for index in batch]), batching, compute))
        own.append((batch, logits.numpy()))
    model.train(was_training)
    everything = gather_object(own)
    found = np.concatenate([logits for _, logits in everything])
    indices = np.concatenate([batch for batch, _ in everything])
    return found[np.argsort(indices)]


class ClassificationResults:
    """Measures the classifier before and after training, and writes, draws and prints what came of it."""

    def __init__(
        self,
        config: ClassificationConfig,
        corpus: LabelledCorpus,
        task: Task,
        parts: dict[str, Dataset],
        classifier: FinetunedClassifier,
        accelerator: Accelerator,
        record: RunRecord,
    ) -> None:
        self.config, self.corpus, self.task, self.parts = config, corpus, task, parts
        self.classifier, self.accelerator, self.record = classifier, accelerator, record
        self.started = time.perf_counter()

    def _logits(self, part: str) -> NDArray[np.float64]:
        return class_logits(self.task, self.classifier, self.parts[part], self.accelerator)

    def measure_baselines(self) -> None:
        """Measure classifiers without a neural network, which takes seconds; on the first process.

        Raises:
            UserError: If the texts have no words, or a metric that was asked for cannot be computed.
        """
        corpus, num_labels = self.corpus, len(self.corpus.names)
        judged = [*corpus.validation.texts(), *corpus.test.texts()]
        weights = None if corpus.class_weights is None else dict(enumerate(corpus.class_weights.tolist()))
        # Probabilities (texts, classes) on the validation texts, and then on the test texts.
        self._baselines = {
            MAJORITY: majority_baseline(corpus.train.labels, judged, num_labels),
            TFIDF: tfidf_baseline(corpus.train.texts(), corpus.train.labels, judged, num_labels, class_weight=weights),
        }
        if self.config.extra_metrics:  # known now, and not only when training is over
            labels, guesses = corpus.validation.labels, self._baselines[MAJORITY][: len(corpus.validation)]
            extra = self.config.extra_metrics
            evaluate_classifier(log_probabilities(guesses), labels, corpus.names, extra_metrics=extra, num_resamples=1)

    def measure_before_training(self) -> None:
        """Have the new head judge the test texts; a run that goes on has done that when it began."""
        logits = self._logits("test")
        if self.accelerator.is_main_process:
            np.save(Path(self.config.output_dir) / BEFORE, logits)

    def finish(self, run: TrainingRun, folder: Path) -> None:
        """Judge validation and test texts, save the classifier, and report."""
        validation, test = self._logits("validation"), self._logits("test")
        on_main_process(self.accelerator, lambda: self._save_and_report(run, folder, validation, test))

    def _save_and_report(
        self, run: TrainingRun, folder: Path, validation: NDArray[np.float64], test: NDArray[np.float64]
    ) -> None:
        temperature = None
        if self.config.calibrate:
            temperature = fit_temperature(validation, self.corpus.validation.labels)
            with torch.no_grad():  # the head has no bias: so this divides the logits
                self.classifier.model.score.weight.div_(temperature.value)
        final = save_final(
            folder,
            self.classifier.model,
            self.corpus.tokenizer,
            self.config,
            self.classifier.plain_weights(),
        )
        report, validation_accuracies = self._report(run, folder, test, temperature)
        write_report(report, folder / "report.json")
        write_results(folder, self._summary(run, report))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        pictures = draw_pictures(report, lines, validation_accuracies, folder)
        seconds = time.perf_counter() - self.started
        model = self.classifier.model
        write_classifier_card(run, self.corpus, self.config, self.record, final, model, report, seconds=seconds)
        self._print(report, [folder / "loss_curve.png", *pictures], final)

    def _report(
        self, run: TrainingRun, folder: Path, test: NDArray[np.float64], temperature: Temperature | None
    ) -> tuple[dict[str, Any], dict[str, float]]:
        """The report, and the baselines' accuracies on the validation texts."""
        corpus, num_validation = self.corpus, len(self.corpus.validation)
        logits = {name: log_probabilities(found[num_validation:]) for name, found in self._baselines.items()}
        if (folder / BEFORE).is_file():
            logits["GPT before training"] = np.load(folder / BEFORE)
        else:
            print(f"Not measured before training, for {folder / BEFORE} is not there.")
        model = f"GPT after {run.step} steps"
        logits[model] = test
        report = build_report(
            logits,
            corpus.test.labels,
            corpus.names,
            model=model,
            texts=corpus.test.texts(),
            temperature=temperature,
            num_examples={name: len(getattr(corpus, name)) for name in ("train", "validation", "test")},
            seeds={"seed": self.config.seed},
            extra_metrics=self.config.extra_metrics,
        )
        accuracies = {
            name: float((found[:num_validation].argmax(axis=1) == corpus.validation.labels).mean())
            for name, found in self._baselines.items()
        }
        return report, accuracies

    def _summary(self, run: TrainingRun, report: dict[str, Any]) -> dict[str, Any]:
        """What `results.json` holds, for programs that compare runs."""
        measured = report["models"][report["model"]]
        return {
            "steps": run.step,
            "trained_parameters": count_trained(self.classifier),
            "parameters": sum(p.numel() for p in self.classifier.parameters()),
            "seconds": round(time.perf_counter() - self.started, 1),
            "validation_before": run.evaluations[0].metrics,
            "validation_after": run.evaluations[-1].metrics,
            "test_accuracy": measured["accuracy"],
            "test_accuracy_interval": measured["intervals"]["accuracy"],
            "test_macro_f1": measured["macro_f1"],
            "test_accuracies": {name: found["accuracy"] for name, found in report["models"].items()},
        }

    def _print(self, report: dict[str, Any], pictures: list[Path], final: Path) -> None:
        minutes = (time.perf_counter() - self.started) / 60
        columns, rows = report_table(report)
        print_table(f"{report['num_examples']['test']:,} test texts, after {minutes:.1f} minutes", columns, rows)
        if (calibration := report["calibration"]) is not None:
            print(
                f"final/ has the temperature {calibration['temperature']:.2f}: expected calibration error (ECE) "
                f"{calibration['expected_calibration_error']:.3f}"
            )
        for comparison in report["comparisons"]:
            low, high = comparison["interval"]
            print(
                f"accuracy less that of {comparison['other']}: {100 * comparison['difference']:+.1f} points "
                f"[{100 * low:+.1f}, {100 * high:+.1f}]"
            )
        for error in report["most_confident_errors"][:3]:
            print(
                f"wrong, {error['confidence']:.0%} sure of {error['prediction']} where it is {error['label']}: "
                f"{error['text'][:100]!r}"
            )
        print(f"Report:     {final.parent / 'report.json'}   Pictures: {' '.join(path.name for path in pictures)}")
        command = f"hfgpt classify predict --model {final}"
        if self.config.text_pair_column:
            print(f"Try it:     {command} --file FILE --text-pair-column {self.config.text_pair_column} --out OUT.csv")
        else:
            print(f"Try it:     {command} {shlex.quote(self.corpus.test.rows['text'][0])}")
