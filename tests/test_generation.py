"""Caches, padding and `generate`: however the tokens arrive, the same text comes out."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper

from hfgpt import HfGptConfig, HfGptForCausalLM

MakeConfig = Callable[..., HfGptConfig]
POSITIONS = ["learned", "rotary", "none"]
GREEDY: dict[str, Any] = {"do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module", params=POSITIONS)
def model(request: pytest.FixtureRequest, tiny_config: MakeConfig) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(position_embedding_type=request.param)).eval()


@pytest.fixture
def input_ids() -> Tensor:
    return torch.randint(97, (2, 14), generator=torch.Generator().manual_seed(3))


def count_forward_passes(model: HfGptForCausalLM) -> list[int]:
    """A list that grows by one at each forward pass of a copy-proof hook."""
    passes: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


@pytest.mark.parametrize("masked", [False, True], ids=["no-mask", "mask"])
@pytest.mark.parametrize("cache_class", [DynamicCache, StaticCache])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_token_by_token_with_a_cache_is_all_at_once(
    model: HfGptForCausalLM, input_ids: Tensor, implementation: str, cache_class: type, masked: bool
) -> None:
    model.set_attn_implementation(implementation)
    expected = model(input_ids, use_cache=False).logits
    limit = {"max_cache_len": 20} if cache_class is StaticCache else {}
    cache = cache_class(config=model.config, **limit)
    pieces = []
    for start, end in ((0, 6), (6, 7), (7, 10), *((i, i + 1) for i in range(10, 14))):  # position_ids are not passed
        mask = torch.ones(2, end, dtype=torch.long) if masked else None
        outputs = model(input_ids[:, start:end], attention_mask=mask, past_key_values=cache)
        assert outputs.past_key_values is cache
        pieces.append(outputs.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_plain_forward_makes_a_cache_and_one_without_does_not(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    outputs = model(input_ids)
    assert outputs.past_key_values.get_seq_length() == 14
    assert len(outputs.past_key_values.layers) == 2
    assert outputs.past_key_values.layers[1].keys.shape == (2, 4, 14, 8)
    assert model(input_ids, use_cache=False).past_key_values is None
    uncached = copy.deepcopy(model)
    uncached.config.use_cache = False
    assert uncached(input_ids).past_key_values is None


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_padding_does_not_touch_the_real_tokens(
    model: HfGptForCausalLM, input_ids: Tensor, implementation: str, side: str
) -> None:
    model.set_attn_implementation(implementation)
    short = input_ids[:1, :5]
    padding = torch.full((1, 9), 42)  # a token like any other
    parts = [padding, short] if side == "left" else [short, padding]
    mask_parts = [torch.zeros_like(padding), torch.ones_like(short)]
    batch = torch.cat([torch.cat(parts, dim=1), input_ids[1:]])
    mask = torch.cat(mask_parts if side == "left" else mask_parts[::-1], dim=1)
    mask = torch.cat([mask, torch.ones(1, 14, dtype=torch.long)])
    logits = model(batch, attention_mask=mask).logits
    torch.testing.assert_close(logits[0][mask[0].bool()], model(short).logits[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(logits[1], model(input_ids[1:]).logits[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
def test_a_left_padded_batch_is_continued_as_each_prompt_alone(
    model: HfGptForCausalLM, input_ids: Tensor, cache: str
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "dynamic": {},
        "static": {"cache_implementation": "static", "disable_compile": True},
        "none": {"use_cache": False},
    }
    prompts = [input_ids[0, :3], input_ids[1, :9], input_ids[0, 4:10]]
    alone = [model.generate(prompt[None], max_new_tokens=12, **GREEDY)[0, len(prompt) :] for prompt in prompts]
    assert len(set(alone[0].tolist())) > 1
    batch = torch.stack([torch.cat([torch.zeros(9 - len(prompt)).long(), prompt]) for prompt in prompts])
    mask = torch.stack([torch.arange(9) >= 9 - len(prompt) for prompt in prompts]).long()
    together = model.generate(batch, attention_mask=mask, max_new_tokens=12, **ways[cache], **GREEDY)[:, 9:]
    assert torch.equal(together, torch.stack(alone))


def test_embeddings_are_continued_like_the_tokens_they_stand_for(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    embeddings = model.get_input_embeddings()(input_ids)
    expected = model.generate(input_ids, max_new_tokens=10, **GREEDY)[:, 14:]
    assert torch.equal(model.generate(inputs_embeds=embeddings, max_new_tokens=10, **GREEDY), expected)


def test_guessing_ahead_does_not_change_the_text(model: HfGptForCausalLM, tiny_config: MakeConfig) -> None:
    prompt = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    torch.manual_seed(1)
    assistant = HfGptForCausalLM(tiny_config(num_hidden_layers=1)).eval()
    expected = model.generate(prompt, max_new_tokens=12, **GREEDY)
    assert torch.equal(model.generate(prompt, max_new_tokens=12, assistant_model=assistant, **GREEDY), expected)
    assert torch.equal(model.generate(prompt, max_new_tokens=12, prompt_lookup_num_tokens=2, **GREEDY), expected)


def test_the_same_seed_draws_the_same_text_and_another_one_another(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        arguments = {"do_sample": True, "temperature": 1.5, "top_k": 40, "top_p": 0.95, "pad_token_id": 0}
        return model.generate(input_ids, max_new_tokens=12, **arguments)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_temperature_and_top_k_give_the_book_s_probabilities() -> None:
    # Section 5.3: nine words, the three most likely kept.
    logits = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
    top_three = TopKLogitsWarper(3)(None, logits.clone()).softmax(dim=-1)[0]
    expected = torch.zeros(9).scatter(0, torch.tensor([3, 7, 0]), torch.tensor([0.5775, 0.3610, 0.0615]))
    torch.testing.assert_close(top_three, expected, rtol=0, atol=5e-5)
    cold, hot = (TemperatureLogitsWarper(t)(None, logits.clone()).softmax(dim=-1)[0] for t in (0.1, 5.0))
    assert cold[3] > 0.99
    assert hot[3] < 0.3


# --- The length limit -------------------------------------------------------------------------------------------------


def test_generate_fills_the_context_to_its_last_position(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    assert model.generate(input_ids, max_new_tokens=18, eos_token_id=None, **GREEDY).shape == (2, 32)


@pytest.mark.parametrize(
    ("num_tokens", "arguments"),
    [
        (14, {"max_new_tokens": 19}),
        (14, {"max_length": 33}),
        (14, {"max_new_tokens": 19, "num_beams": 2}),
        (14, {"max_new_tokens": 19, "cache_implementation": "static"}),
        (32, {"max_new_tokens": 1}),
        (32, {}),
        (40, {}),
    ],
    ids=str,
)
def test_a_text_that_would_grow_too_long_is_refused_before_anything_is_computed(
    tiny_config: MakeConfig, num_tokens: int, arguments: dict[str, Any]
) -> None:
    model = HfGptForCausalLM(tiny_config()).eval()
    passes = count_forward_passes(model)
    with pytest.raises(ValueError, match="max_position_embeddings = 32") as error:
        model.generate(torch.ones(1, num_tokens, dtype=torch.long), **arguments, **GREEDY)
    assert not passes
    assert "\n" not in str(error.value)
    assert str(num_tokens) in str(error.value)


def test_embeddings_that_would_grow_too_long_are_refused_before_anything_is_computed(tiny_config: MakeConfig) -> None:
    model = HfGptForCausalLM(tiny_config()).eval()
    passes = count_forward_passes(model)
    embeddings = model.get_input_embeddings()(torch.ones(1, 14, dtype=torch.long))
    with pytest.raises(ValueError, match="max_position_embeddings = 32"):
        model.generate(inputs_embeds=embeddings, max_new_tokens=19, **GREEDY)
    assert not passes
