"""`hfgpt convert`: there and back, bit for bit."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from hfgpt import HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel

HEADS = {
    "causal-lm": (HfGptForCausalLM, GPT2LMHeadModel, AutoModelForCausalLM),
    "classification": (
        HfGptForSequenceClassification,
        GPT2ForSequenceClassification,
        AutoModelForSequenceClassification,
    ),
    "base": (HfGptModel, GPT2Model, AutoModel),
}


def equal_weights(left, right) -> bool:
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@torch.no_grad()
def output(model) -> torch.Tensor:
    tokens = torch.arange(1, 13)[None]
    return model.eval()(tokens, attention_mask=torch.ones_like(tokens))[0]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tied", [True, False])
def test_to_gpt2_and_back_is_bit_equal(hfgpt, save, tmp_path, head: str, tied: bool) -> None:
    ours_class, gpt2_class, auto_class = HEADS[head]
    source = save(ours_class, tie_word_embeddings=tied, id2label={0: "ham", 1: "spam", 2: "other"})
    there = hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2")
    assert there.status == 0
    assert f"({head}) written to" in there.out
    back = hfgpt("convert", tmp_path / "gpt2", tmp_path / "back", "--to", "hfgpt")
    assert back.status == 0

    original = ours_class.from_pretrained(source)
    gpt2, info = gpt2_class.from_pretrained(tmp_path / "gpt2", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(auto_class.from_pretrained(tmp_path / "gpt2")) is gpt2_class
    torch.testing.assert_close(output(gpt2), output(original), rtol=1e-5, atol=1e-5)
    returned = ours_class.from_pretrained(tmp_path / "back")
    assert equal_weights(returned, original)
    assert torch.equal(output(returned), output(original))
    for name in ("hidden_size", "tie_word_embeddings", "hidden_act", "id2label", "eos_token_id"):
        assert getattr(returned.config, name) == getattr(original.config, name), name


@pytest.mark.parametrize("head", HEADS)
def test_a_gpt2_checkpoint_comes_through_both_ways_bit_equal(hfgpt, tmp_path, head: str) -> None:
    gpt2_class = HEADS[head][1]
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "pad_token_id": 0}
    gpt2_class(GPT2Config(**sizes)).save_pretrained(tmp_path / "source")
    assert hfgpt("convert", tmp_path / "source", tmp_path / "ours", "--to", "hfgpt").status == 0
    assert hfgpt("convert", tmp_path / "ours", tmp_path / "back", "--to", "gpt2").status == 0
    original, returned = (gpt2_class.from_pretrained(tmp_path / name) for name in ("source", "back"))
    assert equal_weights(original, returned)
    assert torch.equal(output(original), output(returned))


def test_the_number_format_stays(hfgpt, save, tmp_path) -> None:
    source = save()
    HfGptForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    assert hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").status == 0
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2").dtype == torch.bfloat16


def test_the_tokenizer_and_the_defaults_for_drawing_go_along(hfgpt, model_folder, tmp_path, tokenizer) -> None:
    assert hfgpt("convert", model_folder, tmp_path / "gpt2", "--to", "gpt2").status == 0
    copied = AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    assert copied("the cat <|endoftext|>")["input_ids"] == tokenizer("the cat <|endoftext|>")["input_ids"]
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2").generation_config.top_k == 50


def test_a_missing_tokenizer_is_said(hfgpt, save, tmp_path) -> None:
    source = save(with_tokenizer=False)
    assert "No tokenizer" in hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").out


def test_biases_that_gpt2_always_has_are_zero_and_said(hfgpt, save, tmp_path) -> None:
    source = save(qkv_bias=False)
    answer = hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2")
    assert "Zero biases were added to q, k and v" in answer.out
    gpt2 = GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    assert not gpt2.transformer.h[0].attn.c_attn.bias.any()
    torch.testing.assert_close(output(gpt2), output(HfGptForCausalLM.from_pretrained(source)), rtol=1e-5, atol=1e-5)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"datasets_cache"}


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_what_gpt2_cannot_hold_is_refused_and_nothing_is_left(hfgpt, save, tmp_path, positions: str) -> None:
    source = save(position_embedding_type=positions)
    assert positions in hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").sentence
    assert leftovers(tmp_path) == {"model"}


def test_a_destination_with_something_in_it_is_refused_and_left_alone(hfgpt, model_folder, tmp_path) -> None:
    destination = tmp_path / "mine"
    destination.mkdir()
    (destination / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "not an empty folder" in hfgpt("convert", model_folder, destination, "--to", "gpt2").sentence
    assert leftovers(tmp_path) == {"model", "mine"}
    assert leftovers(destination) == {"thesis.txt"}


def test_an_empty_destination_is_used(hfgpt, model_folder, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert hfgpt("convert", model_folder, tmp_path / "empty", "--to", "gpt2").status == 0
    assert leftovers(tmp_path) == {"model", "empty"}


def test_a_destination_deep_down_is_made(hfgpt, model_folder, tmp_path) -> None:
    assert hfgpt("convert", model_folder, tmp_path / "a" / "b", "--to", "gpt2").status == 0
    assert (tmp_path / "a" / "b" / "config.json").is_file()


def test_a_destination_below_a_file_is_one_sentence(hfgpt, model_folder, tmp_path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert "cannot be written" in hfgpt("convert", model_folder, tmp_path / "file" / "x", "--to", "gpt2").sentence


def test_a_source_that_is_not_there_leaves_nothing(hfgpt, tmp_path) -> None:
    assert "There is no folder" in hfgpt("convert", tmp_path / "nothing", tmp_path / "gpt2", "--to", "gpt2").sentence
    assert leftovers(tmp_path) == set()


def test_a_classification_head_is_not_invented(hfgpt, model_folder, tmp_path) -> None:
    answer = hfgpt("convert", model_folder, tmp_path / "new", "--to", "hfgpt", "--head", "classification")
    assert "no classification head" in answer.sentence
    assert leftovers(tmp_path) == {"model"}
