"""Checkpoints of nanoGPT against transformers' GPT-2 with the same weights, and all that is refused.

The book's own code is the oracle of `oracles/test_book_checkpoints.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hfgpt import HfGptForCausalLM
from hfgpt.foreign_checkpoints import recognise

MODEL_ARGS = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 32, "bias": True, "vocab_size": 97, "dropout": 0.2}

TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def nanogpt_state_dict(gpt2: torch.nn.Module, *, bias: bool = True, prefix: str = "", masks: bool = False) -> dict:
    """GPT-2's weights as nanoGPT saves its own: GPT-2's names, `nn.Linear`'s orientation, perhaps without biases."""
    weights = {}
    for name, weight in gpt2.state_dict().items():
        if bias or not name.endswith(".bias"):
            weights[prefix + name] = weight.T.contiguous() if name.endswith(TRANSPOSED) else weight
    if masks:
        for layer in range(2):
            weights[f"{prefix}transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
    return weights


@pytest.fixture
def gpt2(random_gpt2: Callable[..., Any]) -> torch.nn.Module:
    """transformers' GPT-2 with the exact GELU, which nanoGPT computes today."""
    return random_gpt2(activation_function="gelu")


@pytest.fixture
def weights(gpt2: torch.nn.Module) -> dict[str, Tensor]:
    return nanogpt_state_dict(gpt2)


@pytest.fixture
def token_ids() -> Tensor:
    return torch.randint(97, (3, 29), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("masks", [True, False])
@torch.no_grad()
def test_nanogpts_model_has_the_logits_of_gpt2_with_its_weights(gpt2, token_ids, prefix: str, masks: bool) -> None:
    found = recognise(nanogpt_state_dict(gpt2, prefix=prefix, masks=masks), MODEL_ARGS)
    model = found.to_model()
    assert type(model) is HfGptForCausalLM
    assert "nanoGPT's GPT: 2 layers of width 32, 4 heads, context 32, vocabulary 97" in found.description
    assert model.config.tie_word_embeddings
    assert model.config.residual_dropout == 0.2
    assert model.num_parameters() == gpt2.num_parameters()
    torch.testing.assert_close(model(token_ids).logits, gpt2(token_ids).logits, rtol=0, atol=3e-5)


@torch.no_grad()
def test_a_checkpoint_without_biases_is_a_model_without_biases(gpt2, token_ids, tmp_path) -> None:
    for name, parameter in gpt2.named_parameters():
        if name.endswith(".bias"):
            parameter.zero_()
    found = recognise(nanogpt_state_dict(gpt2, bias=False), MODEL_ARGS | {"bias": False})
    assert (found.config.qkv_bias, found.config.use_bias) == (False, False)
    assert "without biases" in found.description
    found.to_model().save_pretrained(tmp_path)
    model = HfGptForCausalLM.from_pretrained(tmp_path).eval()
    assert not [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    torch.testing.assert_close(model(token_ids).logits, gpt2(token_ids).logits, rtol=0, atol=3e-5)


def test_which_gelu_was_taken_is_said(weights) -> None:
    today = recognise(weights, MODEL_ARGS)
    assert today.config.hidden_act == "gelu"
    assert any("exact GELU is assumed" in note and "--hidden-act" in note for note in today.notes)
    without_bias_option = {name: value for name, value in MODEL_ARGS.items() if name != "bias"}
    oldest = recognise(weights, without_bias_option)
    assert oldest.config.hidden_act == "gelu_pytorch_tanh"
    assert any("tanh formula is assumed" in note for note in oldest.notes)


@torch.no_grad()
def test_the_gelu_that_is_asked_for_is_computed(random_gpt2, token_ids) -> None:
    gpt2 = random_gpt2(activation_function="gelu_new")
    found = recognise(nanogpt_state_dict(gpt2), MODEL_ARGS, hidden_act="gelu_pytorch_tanh")
    assert not any("assumed" in note for note in found.notes)
    torch.testing.assert_close(found.to_model()(token_ids).logits, gpt2(token_ids).logits, rtol=0, atol=3e-5)


def test_a_padded_vocabulary_stays(random_gpt2) -> None:
    gpt2 = random_gpt2(vocab_size=128)  # 97 ids, made a multiple of 64
    found = recognise(nanogpt_state_dict(gpt2), MODEL_ARGS | {"vocab_size": 128})
    assert found.config.vocab_size == len(found.weights["model.embed_tokens.weight"]) == 128


def test_weights_without_model_args_need_the_number_of_heads(weights) -> None:
    with pytest.raises(ValueError, match="--num-attention-heads"):
        recognise(weights)
    assert recognise(weights, num_attention_heads=4).config.num_attention_heads == 4


def test_a_number_of_heads_against_model_args_is_refused(weights) -> None:
    assert recognise(weights, MODEL_ARGS, num_attention_heads=4).config.num_attention_heads == 4
    with pytest.raises(ValueError, match="n_head = 4: leave out --num-attention-heads 2"):
        recognise(weights, MODEL_ARGS, num_attention_heads=2)


def test_an_alpha_without_lora_layers_is_refused(weights) -> None:
    with pytest.raises(ValueError, match="no LoRA layers.*leave out --lora-alpha"):
        recognise(weights, MODEL_ARGS, lora_alpha=1.0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_layer": 3}, "n_layer = 3, but by its weights it is 2"),
        ({"vocab_size": 50304}, "vocab_size = 50304, but by its weights it is 97"),
        ({"bias": False}, "bias = False, but by its weights it is True"),
        ({"n_head": 5}, "must be a multiple of num_attention_heads"),
        ({"use_rmsnorm": True}, "'use_rmsnorm', which nanoGPT does not know"),
    ],
)
def test_model_args_that_the_weights_contradict_or_nanogpt_does_not_know_are_refused(
    weights, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        recognise(weights, MODEL_ARGS | changes)


@pytest.mark.parametrize(
    "name", ["transformer.wte.weight", "transformer.h.1.ln_2.bias", "transformer.h.0.mlp.c_fc.weight", "lm_head.weight"]
)
def test_a_missing_weight_is_named(weights, name: str) -> None:
    del weights[name]
    with pytest.raises(ValueError, match=f"lacks .*{name}"):
        recognise(weights, MODEL_ARGS)


def test_a_missing_layer_is_named(weights) -> None:
    gap = {name.replace("transformer.h.1.", "transformer.h.7."): weight for name, weight in weights.items()}
    with pytest.raises(ValueError, match=r"lacks 12 of the weights of nanoGPT's GPT \(transformer.h.1.ln_1.weight"):
        recognise(gap, MODEL_ARGS)


def test_a_weight_too_many_is_named(weights) -> None:
    weights["transformer.h.0.attn.rotary"] = torch.zeros(4)
    with pytest.raises(ValueError, match=r"1 weights too many for nanoGPT's GPT \(transformer.h.0.attn.rotary\)"):
        recognise(weights, MODEL_ARGS)


def test_a_weight_of_another_shape_is_named(weights) -> None:
    weights["transformer.h.1.mlp.c_proj.weight"] = weights["transformer.h.1.mlp.c_proj.weight"][:, :-1]
    with pytest.raises(ValueError, match=r"h.1.mlp.c_proj.weight has shape \(32, 127\), but .* \(32, 128\)"):
        recognise(weights, MODEL_ARGS)
    weights["transformer.wte.weight"] = torch.zeros(7)
    with pytest.raises(ValueError, match="wte.weight has 1 dimensions and not 2"):
        recognise(weights, MODEL_ARGS)


def test_mixed_number_formats_and_integers_are_refused(weights) -> None:
    mixed = weights | {"transformer.wpe.weight": weights["transformer.wpe.weight"].half()}
    with pytest.raises(ValueError, match="number format float16 and float32"):
        recognise(mixed, MODEL_ARGS)
    with pytest.raises(ValueError, match="number format int64"):
        recognise({name: weight.long() for name, weight in weights.items()}, MODEL_ARGS)


def test_the_number_format_stays(weights) -> None:
    model = recognise({name: weight.bfloat16() for name, weight in weights.items()}, MODEL_ARGS).to_model()
    assert model.dtype == torch.bfloat16


def test_layouts_of_transformers_are_told_to_come_as_folders(gpt2, weights) -> None:
    for state_dict in (gpt2.state_dict(), gpt2.transformer.state_dict(), recognise(weights, MODEL_ARGS).weights):
        with pytest.raises(ValueError, match="give the folder with its config.json instead"):
            recognise(state_dict)


def test_another_code_bases_weights_are_refused_by_their_names() -> None:
    with pytest.raises(
        ValueError, match=r"neither as the book's GPTModel nor as nanoGPT's GPT \(but fc.bias, fc.weight"
    ):
        recognise({"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)})
