"""A finetuning for instructions that is killed and resumed is the one that never was, and two processes are as one."""

import functools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

DROPOUT = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)

# Evaluations, log lines and checkpoints at odd steps: the end may fall between any of them.
LONG: dict[str, Any] = {"max_steps": 100, "logging_steps": 3, "eval_steps": 40, "save_steps": 15, "keep_last": 100}

VARIANTS: dict[str, dict[str, Any]] = {
    "length groups": {},
    "packing": {"batching": "packing", "global_batch_size": 4},
    "LoRA with new tokens": {"trainable": "lora", "lora_rank": 2, "lora_dropout": 0.1},
}


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def straight(instruct_in, fork, tmp_path_factory) -> Callable[[str], Path]:
    """The run of a variant that is never killed, once for all tests."""

    @functools.cache
    def run(variant: str) -> Path:
        folder = tmp_path_factory.mktemp("straight")
        recipe = instruct_in(folder)
        fields = {"model": DROPOUT, **LONG, **VARIANTS[variant]}
        fork(folder / "fork", recipe.arguments(**fields), recipe=recipe.module.__name__).finish()
        return recipe.output_dir

    return run


@pytest.mark.parametrize(
    ("variant", "sent"), [*((variant, signal.SIGKILL) for variant in VARIANTS), ("length groups", signal.SIGTERM)]
)
def test_a_run_that_is_killed_and_resumed_is_the_run_that_never_was(
    instruct, fork, tmp_path, straight, comparison, variant, sent
) -> None:
    expected = straight(variant)
    arguments = instruct.arguments(model=DROPOUT, resume="auto", **LONG, **VARIANTS[variant])
    cut = fork(tmp_path / "cut", arguments, recipe=instruct.module.__name__)
    cut.wait_for(instruct.output_dir / "checkpoint-30")
    cut.send(sent)
    assert cut.wait() == [-sent if sent is signal.SIGKILL else 128 + sent], cut.printed
    for name in ("final", "report.json", "results.json", "test_answers.jsonl"):
        assert not (instruct.output_dir / name).exists()

    printed = fork(tmp_path / "resumed", arguments, recipe=instruct.module.__name__).finish()
    assert "resumed from" in printed
    assert "embeddings: the last 2 ids" not in printed, "the checkpoint has them"
    comparison.assert_same_run(instruct.output_dir, expected, last_step=100)
    assert report(instruct.output_dir) == report(expected)


def test_other_targets_or_batches_are_not_the_run_that_was_begun(instruct) -> None:
    instruct.run(max_steps=2)
    before = {path: path.read_bytes() for path in instruct.output_dir.rglob("*") if path.is_file()}
    for changed, words in (
        ({"loss_on": "all"}, "another data set"),
        ({"template": "phi3"}, "another"),
        ({"batching": "random"}, "another batching (fingerprint length_groups, now random)"),
        ({"trainable": "lora"}, "cannot be resumed from with trainable = 'lora'"),
        ({"test_fraction": 0.3}, "another data set"),
    ):
        assert words in instruct.refusal(max_steps=4, resume="auto", **changed)
    after = {path: path.read_bytes() for path in instruct.output_dir.rglob("*") if path.is_file()}
    assert after == before


def test_rows_packed_anew_are_not_those_that_were_begun(instruct) -> None:
    instruct.run(max_steps=2, batching="packing", max_test_examples=0)
    sentence = instruct.refusal(max_steps=4, batching="packing", max_length=90, resume="auto")
    assert "another data set" in sentence, "the conversations are the same, but not what stands in a batch"


def test_two_processes_train_and_answer_as_one_does(instruct, fork, tmp_path) -> None:
    # See tests/training/conftest.py on the epsilon: without it, rounding decides the step of the keys' bias.
    fields = {"model": dict.fromkeys(DROPOUT, 0.0), "adam_epsilon": 1e-3, "micro_batch_size": 2}
    instruct.run(**fields)
    together = tmp_path / "together"
    arguments = [*instruct.arguments(**fields), "--output_dir", str(together)]
    printed = fork(tmp_path / "fork", arguments, recipe=instruct.module.__name__, num_processes=2).finish()
    assert printed.count("step     20: validation loss") == 1
    assert printed.count("24 test prompts") == 1
    assert {path.name for path in together.iterdir()} == {path.name for path in instruct.output_dir.iterdir()}
    for line, expected in zip(instruct.metrics(together), instruct.metrics(), strict=True):
        assert line.keys() == expected.keys()
        for name in expected.keys() - {"tokens_per_second", "evaluation_seconds"}:
            assert line[name] == pytest.approx(expected[name], rel=1e-4), (line["step"], name)
    answers = [
        (folder / "test_answers.jsonl").read_text(encoding="utf-8") for folder in (together, instruct.output_dir)
    ]
    assert answers[0] == answers[1]
    weights = [load_file(folder / "final" / "model.safetensors") for folder in (together, instruct.output_dir)]
    for name, weight in weights[1].items():
        assert_close(weights[0][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_a_mistake_on_two_processes_ends_them_both_and_its_sentence_is_printed_once(instruct, fork, tmp_path) -> None:
    """One that is found when the source is read."""
    path = tmp_path / "broken.jsonl"
    path.write_text('{"instruction": "say", "output": "it"}\n{"instruction": "say", "output": ""}\n')
    arguments = instruct.arguments(source=str(path))
    run = fork(tmp_path / "fork", arguments, recipe=instruct.module.__name__, num_processes=2)
    assert run.wait() == [2, 2], run.printed
    assert run.printed.count("hfgpt: error: ") == 1
    assert "Traceback" not in run.printed
    assert not instruct.output_dir.exists()


FAILING = """
from hfgpt.errors import UserError
from hfgpt.recipes import instruction_results

answer_prompts = instruction_results.answer_prompts

def fail(model, tokenizer, prompts, **settings):
    if os.environ["RANK"] == "1":
        raise UserError("Memory runs out with a single prompt.")
    return answer_prompts(model, tokenizer, prompts, **settings)

instruction_results.answer_prompts = fail
"""


def test_a_process_that_cannot_answer_ends_the_others_and_its_sentence_is_printed_once(
    instruct, fork, tmp_path
) -> None:
    arguments = instruct.arguments(max_steps=1)
    run = fork(tmp_path / "fork", arguments, recipe=instruct.module.__name__, num_processes=2, prelude=FAILING)
    assert run.wait() == [2, 2], run.printed
    assert run.printed.count("hfgpt: error: Memory runs out with a single prompt.") == 1
    assert not (instruct.output_dir / "final").exists()
