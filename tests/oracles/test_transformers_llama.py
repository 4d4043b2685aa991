"""With all its options set a Llama comes out, and a Mistral with a window: weight for weight, logit for logit."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from hfgpt import HfGptConfig, HfGptForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
}
THETA = 5000.0


def random_model(model_class: type[PreTrainedModel], config: Any, logit_scale: float = 5.0) -> PreTrainedModel:
    """Every weight random, the norms' too; features stay near 1 and logits near the scale."""
    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(generator=generator)
            if weight.ndim == 1:
                weight.mul_(0.2).add_(1)
            else:
                weight.mul_((logit_scale if "lm_head" in name or "embed" in name else 1) / weight.shape[1] ** 0.5)
    return model


def ours(llama: PreTrainedModel, **fields: Any) -> HfGptForCausalLM:
    """This package's model with the weights of a Llama, none missing and none left over."""
    config = HfGptConfig(
        **SIZES,
        num_key_value_heads=llama.config.num_key_value_heads,
        tie_word_embeddings=llama.config.tie_word_embeddings,
        position_embedding_type="rotary",
        rope_theta=THETA,
        norm_type="rms_norm",
        layer_norm_eps=llama.config.rms_norm_eps,
        hidden_act="swiglu",
        qkv_bias=False,
        use_bias=False,
        **fields,
    )
    model = HfGptForCausalLM(config).eval()
    names = {"mlp.up_proj": "mlp.fc1", "mlp.gate_proj": "mlp.fc_gate", "mlp.down_proj": "mlp.fc2"}
    weights = {}
    for name, weight in llama.state_dict().items():
        for llama_name, our_name in names.items():
            name = name.replace(llama_name, our_name)
        weights[name] = weight
    model.load_state_dict(weights, strict=True)
    assert model.num_parameters() == llama.num_parameters()
    return model


@pytest.fixture
def input_ids() -> Tensor:
    return torch.randint(101, (3, 40), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_same(model: HfGptForCausalLM, llama: PreTrainedModel, input_ids: Tensor) -> None:
    expected = llama(input_ids).logits
    assert 2 < expected.std() < 12
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        torch.testing.assert_close(model(input_ids).logits, expected, rtol=0, atol=3e-5)
    mask = torch.ones_like(input_ids)
    mask[0, :9] = 0
    padded = [m(input_ids, attention_mask=mask).logits[mask.bool()] for m in (model, llama)]
    torch.testing.assert_close(padded[0], padded[1], rtol=0, atol=3e-5)
    prompt: dict[str, Any] = {"attention_mask": mask[:, :12], "max_new_tokens": 20, "do_sample": False}
    generated = [m.generate(input_ids[:, :12], pad_token_id=0, **prompt) for m in (model, llama)]
    assert torch.equal(generated[0], generated[1])


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("num_key_value_heads", [6, 2, 1])
def test_a_llama_s_weights_give_its_logits(input_ids: Tensor, num_key_value_heads: int, tied: bool) -> None:
    config = LlamaConfig(
        **SIZES,
        num_key_value_heads=num_key_value_heads,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        eos_token_id=None,
    )
    llama = random_model(LlamaForCausalLM, config)
    assert_same(ours(llama), llama, input_ids)


@pytest.mark.parametrize("sliding_window", [2, 5, 16, 40, 64])
def test_a_mistral_s_weights_give_its_logits(input_ids: Tensor, sliding_window: int) -> None:
    config = MistralConfig(
        **SIZES,
        num_key_value_heads=2,
        sliding_window=sliding_window,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        eos_token_id=None,
    )
    mistral = random_model(MistralForCausalLM, config)
    assert_same(ours(mistral, sliding_window=sliding_window), mistral, input_ids)


def test_a_llama_s_gradients_are_the_same(input_ids: Tensor) -> None:
    config = LlamaConfig(
        **SIZES, num_key_value_heads=2, rope_parameters={"rope_type": "default", "rope_theta": THETA}, use_cache=False
    )
    llama = random_model(LlamaForCausalLM, config)
    model = ours(llama)
    losses = [m(input_ids, labels=input_ids).loss for m in (model, llama)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        loss.backward()
    for one, other in (
        (model.model.layers[0].self_attn.k_proj, llama.model.layers[0].self_attn.k_proj),
        (model.model.layers[1].mlp.fc_gate, llama.model.layers[1].mlp.gate_proj),
        (model.model.layers[2].input_layernorm, llama.model.layers[2].input_layernorm),
        (model.model.embed_tokens, llama.model.embed_tokens),
    ):
        torch.testing.assert_close(one.weight.grad, other.weight.grad, rtol=1e-3, atol=1e-5)
