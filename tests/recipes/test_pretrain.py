"""`hfgpt pretrain` from text to a model that opens elsewhere, on texts of a few kilobytes."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast, pipeline

from hfgpt import HfGptForCausalLM
from hfgpt.recipes.pretrain import bits_per_byte, main

RUN_FILES = {"config.yaml", "metrics.jsonl", "samples.jsonl", "loss_curve.png", "results.json", "final"}
RUN_FILES |= {".lock", "card_facts.json", "checkpoint-2", "checkpoint-4"}
# What two runs of one configuration do not share.
TIMES = {"tokens_per_second", "evaluation_seconds"}


def without_times(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_of_a_run_holds_what_is_documented(recipe) -> None:
    printed = recipe.run(ngram_baselines=[1, 2])
    assert {path.name for path in recipe.output_dir.iterdir()} == RUN_FILES
    assert "step      4: validation loss" in printed
    assert f"hfgpt generate --model {recipe.final}" in printed

    results = json.loads((recipe.output_dir / "results.json").read_text(encoding="utf-8"))
    lines = recipe.metrics()
    evaluations = [line for line in lines if "validation_loss" in line]
    assert [line["step"] for line in evaluations] == [0, 2, 4]
    for moment, line in (("validation_before", evaluations[0]), ("validation_after", evaluations[-1])):
        assert {f"validation_{name}": value for name, value in results[moment].items()}.items() <= line.items()
    assert results["steps"] == 4
    assert results["parameters"] == AutoModelForCausalLM.from_pretrained(recipe.final).num_parameters()
    assert set(results["baseline_losses"]) == {"unigram", "bigram"}
    assert 0 < results["baseline_losses"]["bigram"] < results["baseline_losses"]["unigram"] < math.log(280)

    samples = (recipe.output_dir / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in samples] == [0, 2, 4]
    assert (recipe.output_dir / "config.yaml").read_text() == (recipe.final / "run_config.yaml").read_text()


def test_the_saved_tokenizer_truncates_to_what_the_saved_model_sees(recipe) -> None:
    recipe.run(model={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "n_positions": 40})
    context = AutoModelForCausalLM.from_pretrained(recipe.final).config.max_position_embeddings
    assert AutoTokenizer.from_pretrained(recipe.final).model_max_length == context == 40


def test_the_configuration_that_was_written_is_whole_and_repeats_the_run(recipe) -> None:
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.1)
    recipe.run("--model.hidden_size=32", model={"num_hidden_layers": 1, "num_attention_heads": 2, **dropouts})
    written = recipe.output_dir / "config.yaml"
    content = yaml.safe_load(written.read_text(encoding="utf-8"))
    assert content["model"] == {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, **dropouts}
    assert content["adam_beta2"] == 0.95

    again = recipe.folder / "again"
    main(["--config", str(written), "--output_dir", str(again)])
    assert without_times(recipe.metrics(again)) == without_times(recipe.metrics())
    assert (again / "samples.jsonl").read_text() == (recipe.output_dir / "samples.jsonl").read_text()
    assert (again / "final/model.safetensors").read_bytes() == (recipe.final / "model.safetensors").read_bytes()


def test_another_seed_is_another_run(recipe) -> None:
    recipe.run()
    recipe.run("--seed", "43", "--output_dir", str(recipe.folder / "other"))
    assert recipe.metrics(recipe.folder / "other")[0]["validation_loss"] != recipe.metrics()[0]["validation_loss"]


def test_the_finished_model_opens_with_the_auto_classes_and_a_pipeline(recipe) -> None:
    recipe.run()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(recipe.final), AutoTokenizer.from_pretrained(recipe.final)
    assert isinstance(model, HfGptForCausalLM)
    assert len(tokenizer) == model.config.vocab_size == 280
    assert model.config.max_position_embeddings == tokenizer.model_max_length == 16
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id == 279
    # The pipeline's own default of 256 new tokens would not fit into this model's context of 16.
    (answer,) = pipeline("text-generation", model=str(recipe.final))("the cat")
    assert answer["generated_text"].startswith("the cat")


def test_the_model_that_is_saved_is_the_one_that_was_judged_last(recipe, text_file) -> None:
    """Evaluation, perplexity and bits per byte recomputed from the text alone, with the model that was written."""
    recipe.run(max_eval_batches=None)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(recipe.final), AutoTokenizer.from_pretrained(recipe.final)
    loss, tokens_per_byte = loss_on_validation_text(model.eval(), tokenizer, text_file)
    line = recipe.metrics()[-1]
    assert line["validation_loss"] == pytest.approx(loss, rel=1e-5)
    assert line["validation_perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert line["validation_bits_per_byte"] == pytest.approx(loss / math.log(2) * tokens_per_byte, rel=1e-5)


def loss_on_validation_text(model, tokenizer, text_file: Path) -> tuple[float, float]:
    """Mean loss on the last tenth of a text in blocks of 16, one block at a time; and its tokens per byte."""
    text = text_file.read_text(encoding="utf-8")
    validation = text[int(0.9 * len(text)) :]
    tokens = torch.tensor([*tokenizer(validation, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])
    losses = []
    with torch.no_grad():
        for start in range(0, len(tokens) - 16, 16):
            logits = model(tokens[None, start : start + 16]).logits[0]
            losses.append(F.cross_entropy(logits, tokens[start + 1 : start + 17]).item())
    return sum(losses) / len(losses), len(tokens) / len(validation.encode("utf-8"))


def test_bits_per_byte_of_a_uniform_guess_over_bytes_is_eight() -> None:
    assert bits_per_byte(math.log(256), tokens_per_byte=1.0) == pytest.approx(8.0)
    assert bits_per_byte(math.log(256), tokens_per_byte=0.25) == pytest.approx(2.0)


def test_the_built_in_stories_are_trained_on(recipe) -> None:
    printed = recipe.run(
        source="builtin:stories", tokenizer_vocab_size=300, max_steps=2, max_eval_batches=1, ngram_baselines=None
    )
    assert "source: builtin:stories, split by documents" in printed
    assert recipe.metrics()[0]["validation_loss"] == pytest.approx(math.log(300), abs=0.2)
    assert HfGptForCausalLM.from_pretrained(recipe.final).config.vocab_size == 300


@pytest.mark.parametrize("layout", ["hfgpt", "gpt2"])
def test_training_continues_from_either_layout(recipe, checkpoint, gpt2_checkpoint, text_file, layout: str) -> None:
    source = {"hfgpt": checkpoint, "gpt2": gpt2_checkpoint}[layout]
    model_class = {"hfgpt": HfGptForCausalLM, "gpt2": GPT2LMHeadModel}[layout]
    recipe.run(init_from=str(source), tokenizer=None, model=None, max_eval_batches=None, learning_rate=0.01)
    model = model_class.from_pretrained(source).eval()
    before, _ = loss_on_validation_text(model, AutoTokenizer.from_pretrained(source), text_file)
    evaluations = [line["validation_loss"] for line in recipe.metrics() if "validation_loss" in line]
    assert evaluations[0] == pytest.approx(before, rel=1e-5)
    assert evaluations[-1] < evaluations[0]
    assert type(AutoModelForCausalLM.from_pretrained(recipe.final)) is HfGptForCausalLM


def test_dropouts_of_a_checkpoint_can_be_changed(recipe, checkpoint) -> None:
    recipe.run("--model.residual_dropout", "0.25", init_from=str(checkpoint), tokenizer=None, model=None)
    assert HfGptForCausalLM.from_pretrained(recipe.final).config.residual_dropout == 0.25


def test_a_local_text_can_be_streamed(recipe, tokenizer_folder, tmp_path, text_file) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, line in enumerate(text_file.read_text(encoding="utf-8").splitlines()[:60]):
        (folder / f"{number}.txt").write_text(line, encoding="utf-8")
    recipe.run(source=str(folder), streaming=True, tokenizer=str(tokenizer_folder), validation_fraction=0.3)
    assert recipe.metrics()[-1]["step"] == 4


def test_bfloat16_training_writes_an_fp32_model_that_opens(recipe) -> None:
    recipe.run(mixed_precision="bf16")
    model = AutoModelForCausalLM.from_pretrained(recipe.final)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_run_may_replace_another_one_only_where_that_is_asked_for(recipe) -> None:
    recipe.run()
    before = contents(recipe.final)
    assert "is not empty" in recipe.refusal(max_steps=2)
    assert contents(recipe.final) == before
    recipe.run(max_steps=2, overwrite_output_dir=True)
    assert recipe.metrics()[-1]["step"] == 2
    assert {path.name for path in recipe.output_dir.iterdir()} == RUN_FILES - {"checkpoint-4"}
    assert contents(recipe.final) != before


@pytest.mark.parametrize("failing", ["model", "tokenizer"])
def test_a_failed_save_leaves_the_former_model_and_nothing_half_written(recipe, monkeypatch, failing: str) -> None:
    recipe.run()
    before = contents(recipe.final)

    def fail(saved, folder, *args, **kwargs) -> None:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        {"model": HfGptForCausalLM, "tokenizer": PreTrainedTokenizerFast}[failing], "save_pretrained", fail
    )
    assert "no space left" in recipe.refusal(max_steps=2, overwrite_output_dir=True).lower()
    assert contents(recipe.final) == before
    former = {"results.json", "card_facts.json", "checkpoint-2", "checkpoint-4"}  # of the run that was to be replaced
    assert {path.name for path in recipe.output_dir.iterdir()} == RUN_FILES - former


def test_leftovers_of_a_killed_save_do_no_harm(recipe) -> None:
    for name in (".final.unfinished", ".final.replaced"):
        (recipe.output_dir / name).mkdir(parents=True)
        (recipe.output_dir / name / "model.safetensors").write_bytes(b"half")
    recipe.run(overwrite_output_dir=True)
    assert {path.name for path in recipe.output_dir.iterdir()} == RUN_FILES
    AutoModelForCausalLM.from_pretrained(recipe.final)
