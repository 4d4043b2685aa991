"""Text that the model writes as it learns: at each evaluation, from the same prompts and the same seed."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from hfgpt.serving.defaults import DEFAULT_TEMPERATURE, DEFAULT_TOP_K
from hfgpt.serving.generation import continue_prompt
from hfgpt.training.events import Callback, Evaluation, TrainingRun
from hfgpt.training.reports import RunFile

from .console import say

__all__ = ["SampleText"]


class SampleText(Callback):
    """Continues each prompt, prints the text and appends it to `samples.jsonl`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: list[str], max_new_tokens: int, seed: int) -> None:
        self.tokenizer, self.prompts, self.max_new_tokens, self.seed = tokenizer, prompts, max_new_tokens, seed
        self.file = RunFile("samples.jsonl")

    def on_train_begin(self, run: TrainingRun) -> None:
        self.file.begin(run)

    def state_dict(self) -> dict[str, Any]:
        return self.file.state_dict()

    def load_state_dict(self, run: TrainingRun, state: dict[str, Any]) -> None:
        self.file.load_state_dict(state)

    def on_evaluation(self, run: TrainingRun, evaluation: Evaluation) -> None:
        if run.is_main_process:
            for prompt in self.prompts:
                self._sample(run, prompt)

    def _sample(self, run: TrainingRun, prompt: str) -> None:
        was_training = run.model.training
        run.model.eval()
        (text,) = continue_prompt(
            run.model,  # type: ignore[arg-type]
            self.tokenizer,
            prompt,
            max_new_tokens=self.max_new_tokens,
            temperature=DEFAULT_TEMPERATURE,
            top_k=DEFAULT_TOP_K,
            seed=self.seed,
        )
        run.model.train(was_training)
        self.file.append(run, {"step": run.step, "prompt": prompt, "text": text})
        say(run, f"             sample: {' '.join((prompt + text).split())}")
