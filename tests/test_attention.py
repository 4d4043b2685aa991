"""Chapter 3: masks, scores, rotations; each against its equation or against transformers' own."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig
from transformers.masking_utils import create_causal_mask
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptModel
from hfgpt.modeling_hfgpt import ACTIVATIONS, causal_mask, eager_attention_forward, rotary_angles, rotate

MakeConfig = Callable[..., HfGptConfig]


def transformers_mask(config: HfGptConfig, implementation: str, num_tokens: int, padding: Tensor) -> Tensor:
    config._attn_implementation = implementation
    embeddings = torch.zeros(len(padding), num_tokens, config.hidden_size)
    return create_causal_mask(
        config=config, inputs_embeds=embeddings, attention_mask=padding, past_key_values=DynamicCache()
    )


@pytest.mark.parametrize("num_tokens", [1, 2, 7])
def test_causal_mask_is_what_transformers_gives_the_forward_pass(tiny_config: MakeConfig, num_tokens: int) -> None:
    # A padded second sequence makes transformers write the mask out where it would leave it to the kernel.
    padding = torch.ones(2, num_tokens, dtype=torch.long)
    padding[1, 1:] = 0
    expected = causal_mask(num_tokens)
    additive = transformers_mask(tiny_config(), "eager", num_tokens, padding)
    assert additive.shape == (2, 1, num_tokens, num_tokens)
    assert torch.equal(additive[0, 0] == 0, expected)
    assert bool((additive[0, 0][~expected] == torch.finfo(torch.float32).min).all())
    if num_tokens > 1:
        boolean = transformers_mask(tiny_config(), "sdpa", num_tokens, padding)
        assert boolean.dtype == torch.bool
        assert torch.equal(boolean[0, 0], expected)


def test_causal_mask_lets_a_token_see_itself_and_what_came_before() -> None:
    mask = causal_mask(5)
    for row in range(5):
        assert mask[row].tolist() == [column <= row for column in range(5)]


def test_eager_attention_is_its_equation_token_by_token() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64).unbind()
    mask = torch.zeros(5, 5).masked_fill(~causal_mask(5), torch.finfo(torch.float32).min)[None, None]
    context, weights = eager_attention_forward(nn.Identity(), query, key, value, mask, scaling=1 / math.sqrt(4))
    for batch in range(2):
        for head in range(3):
            for token in range(5):
                seen = slice(token + 1)
                scores = [float(query[batch, head, token] @ other) / 2 for other in key[batch, head, seen]]
                odds = torch.tensor([math.exp(score) for score in scores], dtype=torch.float64)
                expected = (odds / odds.sum()) @ value[batch, head, seen]
                torch.testing.assert_close(context[batch, token, head], expected, rtol=1e-5, atol=1e-6)
                assert weights[batch, head, token, token + 1 :].tolist() == [0.0] * (4 - token)


@pytest.mark.parametrize("position_embedding_type", ["learned", "rotary", "none"])
@pytest.mark.parametrize("padded", [False, True])
def test_eager_and_sdpa_agree(tiny_config: MakeConfig, position_embedding_type: str, padded: bool) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(position_embedding_type=position_embedding_type)).eval()
    input_ids = torch.randint(97, (3, 20))
    mask = torch.ones_like(input_ids)
    labels = input_ids.clone()
    if padded:
        mask[0, :6] = 0
        mask[1, 15:] = 0
        labels[mask == 0] = -100
        labels[0, 6] = -100  # the first real token would be judged by what padding predicts
    results = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        outputs = model(input_ids, attention_mask=mask, labels=labels)
        outputs.loss.backward()
        gradient = model.model.layers[0].self_attn.q_proj.weight.grad
        results.append((outputs.logits[mask.bool()], outputs.loss, gradient))
    for eager, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(eager, sdpa, rtol=1e-5, atol=2e-5)


def test_attention_weights_sum_to_one_and_look_only_back(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    model = HfGptModel(tiny_config(num_hidden_layers=3, attn_implementation="eager")).eval()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    attentions = model(torch.randint(97, (2, 6)), attention_mask=mask, output_attentions=True).attentions
    assert len(attentions) == 3
    for weights in attentions:
        assert weights.shape == (2, 4, 6, 6)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 6))
        assert bool((weights[1][:, ~causal_mask(6)] == 0).all())
        assert bool((weights[0, :, 2:, :2] == 0).all())  # real tokens do not see padding
        assert bool((weights[1][:, causal_mask(6)] > 0).all())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_no_token_sees_a_later_one(tiny_config: MakeConfig, implementation: str) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(attn_implementation=implementation)).eval()
    input_ids = torch.randint(97, (1, 12))
    changed = input_ids.clone()
    changed[0, 7:] = (changed[0, 7:] + 1) % 97
    with torch.no_grad():
        before, after = model(input_ids).logits, model(changed).logits
    assert torch.equal(before[:, :7], after[:, :7])
    assert bool((before[:, 7:] != after[:, 7:]).any(-1).all())


# --- GELU -------------------------------------------------------------------------------------------------------------


def test_gelu_formulas_are_their_equations() -> None:
    for number in torch.linspace(-6, 6, 101, dtype=torch.float64):
        x = number.item()
        exact = x * 0.5 * (1 + math.erf(x / math.sqrt(2)))
        tanh = 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        assert ACTIVATIONS["gelu"](number).item() == pytest.approx(exact, abs=1e-12)
        assert ACTIVATIONS["gelu_pytorch_tanh"](number).item() == pytest.approx(tanh, abs=1e-12)


def test_the_activation_of_the_configuration_is_the_one_computed(tiny_config: MakeConfig) -> None:
    features = torch.linspace(-3, 3, 31)
    for name, approximate in (("gelu", "none"), ("gelu_pytorch_tanh", "tanh")):
        activation = HfGptModel(tiny_config(hidden_act=name)).layers[1].mlp.activation
        assert torch.equal(activation(features), nn.functional.gelu(features, approximate=approximate))


# --- Positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theta", [10_000, 500.0])
def test_rotation_is_the_one_of_llama(tiny_config: MakeConfig, theta: float) -> None:
    torch.manual_seed(0)
    config = tiny_config(position_embedding_type="rotary", rope_theta=theta, num_attention_heads=2)
    llama = LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
    )
    positions = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 17, 30, 31]])
    query, key = torch.randn(2, 2, 2, 5, 16).unbind()
    cosine, sine = LlamaRotaryEmbedding(llama)(query, positions)
    expected_query, expected_key = apply_rotary_pos_emb(query, key, cosine, sine)
    angles = rotary_angles(positions, config, torch.float32)
    torch.testing.assert_close(rotate(query, *angles), expected_query, rtol=0, atol=1e-5)
    torch.testing.assert_close(rotate(key, *angles), expected_key, rtol=0, atol=1e-5)


def test_rotation_turns_each_pair_by_its_own_angle(tiny_config: MakeConfig) -> None:
    config = tiny_config(
        position_embedding_type="rotary"
    )  # four heads of width 8: pairs (0, 4), (1, 5), (2, 6), (3, 7)
    features = torch.arange(1.0, 9.0).view(1, 1, 1, 8)
    rotated = rotate(features, *rotary_angles(torch.tensor([[3]]), config, torch.float32)).flatten().tolist()
    for pair in range(4):
        angle = 3 * 10_000 ** (-2 * pair / 8)
        turned = complex(pair + 1, pair + 5) * complex(math.cos(angle), math.sin(angle))
        assert complex(rotated[pair], rotated[pair + 4]) == pytest.approx(turned, abs=1e-5)


def test_rotary_positions_are_relative_and_learned_ones_are_not(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    input_ids, positions = torch.randint(97, (2, 9)), torch.arange(9).expand(2, 9)
    for kind, relative in (("rotary", True), ("learned", False)):
        model = HfGptForCausalLM(tiny_config(position_embedding_type=kind)).eval()
        with torch.no_grad():
            here = model(input_ids, position_ids=positions, use_cache=False).logits
            there = model(input_ids, position_ids=positions + 11, use_cache=False).logits
        assert ((here - there).abs().max() < 1e-4) == relative
        stretched = model(input_ids, position_ids=positions * 2, use_cache=False).logits
        assert (here - stretched).abs().max() > 0.01  # but distances count for both


def test_without_positions_only_the_mask_knows_the_order(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(position_embedding_type="none", num_hidden_layers=1)).eval()
    assert not any("position" in name for name, _ in model.named_parameters())
    input_ids = torch.tensor([[3, 14, 15, 92, 65]])
    shuffled = torch.tensor([[92, 3, 15, 14, 65]])
    with torch.no_grad():
        # One block: the last token sees the others as a set.
        torch.testing.assert_close(model(input_ids).logits[:, -1], model(shuffled).logits[:, -1], rtol=0, atol=1e-5)
        # A token in the middle sees other tokens before it.
        assert (model(input_ids).logits[0, 2] - model(shuffled).logits[0, 2]).abs().max() > 0.01


def test_rotary_positions_survive_mixed_precision(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(position_embedding_type="rotary", initializer_range=0.05)).eval()
    input_ids = torch.randint(97, (2, 9))
    with torch.no_grad():
        exact = model(input_ids).logits
        for implementation in ("eager", "sdpa"):
            model.set_attn_implementation(implementation)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                torch.testing.assert_close(model(input_ids).logits.float(), exact, rtol=0, atol=0.05)
