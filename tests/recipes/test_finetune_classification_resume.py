"""A training of a classifier that is killed and resumed is the one that never was, and two processes are as one."""

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
    "the last block, on what the frozen part was": {"trainable": "last_block", "cache_frozen": "true"},
    "everything": {"trainable": "all"},
    "LoRA": {"trainable": "lora", "lora_rank": 2, "lora_dropout": 0.1},
}


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def straight(classify_in, fork, tmp_path_factory) -> Callable[[str], Path]:
    """The run of a variant that is never killed, once for all tests."""

    @functools.cache
    def run(variant: str) -> Path:
        folder = tmp_path_factory.mktemp("straight")
        recipe = classify_in(folder)
        fields = {"model": DROPOUT, **LONG, **VARIANTS[variant]}
        fork(folder / "fork", recipe.arguments(**fields), recipe=recipe.module.__name__).finish()
        return recipe.output_dir

    return run


@pytest.mark.parametrize(
    ("variant", "sent"), [*((variant, signal.SIGKILL) for variant in VARIANTS), ("everything", signal.SIGTERM)]
)
def test_a_run_that_is_killed_and_resumed_is_the_run_that_never_was(
    classify, fork, tmp_path, straight, comparison, variant, sent
) -> None:
    expected = straight(variant)
    arguments = classify.arguments(model=DROPOUT, resume="auto", **LONG, **VARIANTS[variant])
    cut = fork(tmp_path / "cut", arguments, recipe=classify.module.__name__)
    cut.wait_for(classify.output_dir / "checkpoint-30")
    cut.send(sent)
    assert cut.wait() == [-sent if sent is signal.SIGKILL else 128 + sent], cut.printed
    if sent is not signal.SIGKILL:
        assert f"it received {sent.name}.\n" in cut.printed
    for name in ("final", "report.json", "results.json"):
        assert not (classify.output_dir / name).exists()

    resumed = fork(tmp_path / "resumed", arguments, recipe=classify.module.__name__)
    printed = resumed.finish()
    assert "resumed from" in printed
    assert ("read from" in printed) == ("cache_frozen" in VARIANTS[variant]), "it is not computed twice"
    comparison.assert_same_run(classify.output_dir, expected, last_step=100)
    assert report(classify.output_dir) == report(expected)


def test_another_part_to_train_is_not_the_run_that_was_begun(classify) -> None:
    """Its optimizer is another's, and LoRA's weights are not there."""
    fields = {"trainable": "last_n_blocks", "num_trainable_blocks": 1}
    classify.run(max_steps=2, **fields)
    before = {path: path.read_bytes() for path in classify.output_dir.rglob("*") if path.is_file()}
    for changed, words in (
        ({"trainable": "head"}, "another trainable (fingerprint last_n_blocks (1), now head)"),
        ({"num_trainable_blocks": 2}, "another trainable (fingerprint last_n_blocks (1), now last_n_blocks (2))"),
        ({"trainable": "lora"}, "cannot be resumed from with trainable = 'lora'"),
        ({"test_fraction": 0.3}, "another data set"),
    ):
        assert words in classify.refusal(max_steps=4, resume="auto", **fields | changed)
    after = {path: path.read_bytes() for path in classify.output_dir.rglob("*") if path.is_file()}
    assert after == before


def test_a_run_with_lora_is_not_resumed_with_another_scale(classify) -> None:
    """The same additions would count for more than they were trained to."""
    classify.run(max_steps=2, trainable="lora")
    words = "another trainable (fingerprint lora (rank 16, alpha 16), now lora (rank 16, alpha 256))"
    assert words in classify.refusal(max_steps=4, resume="auto", trainable="lora", lora_alpha=256)


def test_a_run_is_not_resumed_with_another_test_set(classify, labelled_file) -> None:
    """Of the first one it has been measured before training."""
    lines = labelled_file.read_text(encoding="utf-8").splitlines()
    test = classify.folder / "test.csv"
    test.write_text("\n".join([lines[0], *lines[-12:]]) + "\n", encoding="utf-8")
    classify.run(max_steps=2, test_source=str(test))
    test.write_text("\n".join([lines[0], *lines[-12:-2]]) + "\n", encoding="utf-8")
    sentence = classify.refusal(max_steps=4, resume="auto", test_source=str(test))
    assert "was trained with another" in sentence


@pytest.mark.parametrize("trainable", ["all", "last_block"])
def test_two_processes_train_and_judge_as_one_does(classify, fork, tmp_path, trainable) -> None:
    # See tests/training/conftest.py on the epsilon: without it, rounding decides the step of the keys' bias.
    fields = {"trainable": trainable, "model": dict.fromkeys(DROPOUT, 0.0), "adam_epsilon": 1e-3, "micro_batch_size": 2}
    classify.run(**fields)
    together = tmp_path / "together"
    arguments = [*classify.arguments(**fields), "--output_dir", str(together)]
    printed = fork(tmp_path / "fork", arguments, recipe=classify.module.__name__, num_processes=2).finish()
    assert printed.count("step     20: validation loss") == 1
    assert {path.name for path in together.iterdir()} == {path.name for path in classify.output_dir.iterdir()}
    for line, expected in zip(classify.metrics(together), classify.metrics(), strict=True):
        assert line.keys() == expected.keys()
        for name in expected.keys() - {"texts_per_second", "evaluation_seconds"}:
            assert line[name] == pytest.approx(expected[name], rel=1e-4), (line["step"], name)
    reports = [report(folder) for folder in (together, classify.output_dir)]
    for name, found in reports[0]["models"].items():
        assert found["confusion_matrix"] == reports[1]["models"][name]["confusion_matrix"]
        assert found["loss"] == pytest.approx(reports[1]["models"][name]["loss"], rel=1e-4)
    weights = [load_file(folder / "checkpoint-20" / "model.safetensors") for folder in (together, classify.output_dir)]
    for name, weight in weights[1].items():
        assert_close(weights[0][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_a_mistake_on_two_processes_ends_them_both_and_its_sentence_is_printed_once(classify, fork, tmp_path) -> None:
    """One that only the first process finds, when it measures the baselines."""
    path = tmp_path / "letters.csv"
    path.write_text("text,label\n" + "".join(f"{letter},{label}\n" for letter in "!.;?" for label in "ab"))
    rows = [f"{first}{second},{label}" for label, first in (("a", "!"), ("b", "?")) for second in "!.;:?-+*(="]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    arguments = classify.arguments(source=str(path), global_batch_size=2)
    run = fork(tmp_path / "fork", arguments, recipe=classify.module.__name__, num_processes=2)
    assert run.wait() == [2, 2], run.printed
    assert run.printed.count("hfgpt: error: the TF-IDF baseline finds no word") == 1
    assert "Traceback" not in run.printed
    assert not classify.output_dir.exists()
