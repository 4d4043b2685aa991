"""Every way to generate, with every cache: each against a loop that is written out here and keeps no cache.

What is not here: contrastive search, DoLa, diverse and constrained beams, whose code transformers moved to the Hub; and
quantised caches by optimum-quanto and hqq, which want compilers and packages (the eight-bit one built in is here).
"""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Cache,
    CompileConfig,
    ContinuousBatchingConfig,
    DynamicCache,
    GenerationConfig,
    QuantizedCache,
    StaticCache,
)

from hfgpt import HfGptConfig, HfGptForCausalLM

MakeConfig = Callable[..., HfGptConfig]
NEW_TOKENS = 12
GREEDY: dict[str, Any] = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": NEW_TOKENS}

# A cache as `generate` makes it by name, or one that it is handed.
CACHES: dict[str, Callable[[HfGptConfig], dict[str, Any]]] = {
    "none": lambda config: {"use_cache": False},
    "dynamic": lambda config: {"cache_implementation": "dynamic"},
    "static": lambda config: {"cache_implementation": "static"},
    "offloaded": lambda config: {"cache_implementation": "offloaded"},
    "offloaded-static": lambda config: {"cache_implementation": "offloaded_static", "disable_compile": True},
    "own-dynamic": lambda config: {"past_key_values": DynamicCache(config=config)},
    "own-static": lambda config: {"past_key_values": StaticCache(config=config, max_cache_len=32)},
}


@pytest.fixture
def model(shape: dict[str, Any], tiny_config: MakeConfig) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(**shape)).eval()


@pytest.fixture
def input_ids() -> Tensor:
    return torch.randint(97, (2, 14), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest, model: HfGptForCausalLM) -> Callable[[], dict[str, Any]]:
    """A maker of the arguments that choose a cache; a cache that is handed over is used once."""
    if request.param.startswith("offloaded") and not torch.cuda.is_available():
        pytest.skip("Left out: an offloaded cache moves between an accelerator and the host")
    return lambda: CACHES[request.param](model.config)


# --- What the tests compare with: no cache, no `generate` -------------------------------------------------------------


@torch.no_grad()
def next_token_logits(model: HfGptForCausalLM, input_ids: Tensor) -> Tensor:
    """`(batch, vocabulary)`, from the whole text at once."""
    return model(input_ids, use_cache=False).logits[:, -1].float()


def greedy_by_hand(model: HfGptForCausalLM, input_ids: Tensor, num_tokens: int = NEW_TOKENS) -> Tensor:
    for _ in range(num_tokens):
        input_ids = torch.cat([input_ids, next_token_logits(model, input_ids).argmax(-1, keepdim=True)], dim=1)
    return input_ids


def sample_by_hand(model: HfGptForCausalLM, input_ids: Tensor, temperature: float, seed: int) -> Tensor:
    torch.manual_seed(seed)
    for _ in range(NEW_TOKENS):
        probabilities = (next_token_logits(model, input_ids) / temperature).softmax(-1)
        input_ids = torch.cat([input_ids, torch.multinomial(probabilities, 1)], dim=1)
    return input_ids


@torch.no_grad()
def log_probability(model: HfGptForCausalLM, sequences: Tensor, num_prompt: int) -> Tensor:
    """Of each row's tokens after the prompt, `(rows,)`."""
    log_probabilities = model(sequences[:, :-1], use_cache=False).logits.float().log_softmax(-1)
    each = log_probabilities.gather(2, sequences[:, 1:, None])[..., 0]
    return each[:, num_prompt - 1 :].sum(1)


# --- Every way, with every cache --------------------------------------------------------------------------------------


def test_greedy_text_is_the_likeliest_token_again_and_again(model, input_ids, cache) -> None:
    expected = greedy_by_hand(model, input_ids)
    assert len(set(expected[0, 14:].tolist())) > 2
    assert torch.equal(model.generate(input_ids, **cache(), **GREEDY), expected)


def test_a_sample_is_the_draw_from_the_softmax_that_the_seed_gives(model, input_ids, cache) -> None:
    expected = sample_by_hand(model, input_ids, temperature=1.3, seed=7)
    torch.manual_seed(7)
    drawn = {"do_sample": True, "temperature": 1.3, "top_k": 0, "pad_token_id": 0, "max_new_tokens": NEW_TOKENS}
    assert torch.equal(model.generate(input_ids, **cache(), **drawn), expected)


@pytest.mark.parametrize("implementation", ["dynamic", "static", "none"])
def test_enough_beams_find_the_likeliest_of_all_texts(tiny_config, shape, implementation: str) -> None:
    torch.manual_seed(11)
    size, num_tokens = 5, 4
    model = HfGptForCausalLM(tiny_config(vocab_size=size, **shape)).eval()
    prompt = torch.tensor([[1, 4, 2, 3, 3, 1, 1, 2]])
    ends = torch.tensor(list(itertools.product(range(size), repeat=num_tokens)))
    texts = torch.cat([prompt.expand(len(ends), -1), ends], dim=1)
    scores = log_probability(model, texts, prompt.shape[1])
    way = {"use_cache": False} if implementation == "none" else {"cache_implementation": implementation}
    beams = model.generate(
        prompt,
        num_beams=size ** (num_tokens - 1),
        num_return_sequences=3,
        do_sample=False,
        max_new_tokens=num_tokens,
        pad_token_id=0,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
        **way,
    )
    best = scores.topk(3)
    assert torch.equal(beams.sequences, texts[best.indices])
    torch.testing.assert_close(beams.sequences_scores, best.values / num_tokens, rtol=0, atol=1e-5)
    greedy = greedy_by_hand(model, prompt, num_tokens)
    assert not torch.equal(greedy, beams.sequences[:1]), "beams that find the greedy text show nothing"


@pytest.mark.parametrize("sampled", [False, True], ids=["beam-search", "beam-sample"])
def test_beams_are_the_same_with_every_cache_and_scored_by_their_own_probability(
    model, input_ids, cache, sampled: bool
) -> None:
    way = {"num_beams": 3, "do_sample": sampled, "top_k": 0, "pad_token_id": 0, "max_new_tokens": 8}
    torch.manual_seed(11)
    beams = model.generate(input_ids, return_dict_in_generate=True, output_scores=True, **cache(), **way)
    torch.manual_seed(11)
    assert torch.equal(beams.sequences, model.generate(input_ids, use_cache=False, **way))
    expected = log_probability(model, beams.sequences, 14) / 8
    torch.testing.assert_close(beams.sequences_scores, expected, rtol=0, atol=1e-5)


def test_a_left_padded_batch_is_continued_as_each_prompt_alone(model, input_ids, cache) -> None:
    prompts = [input_ids[0, :5], input_ids[1, :14], input_ids[0, 4:13]]
    batch = torch.stack([torch.cat([torch.zeros(14 - len(prompt)).long(), prompt]) for prompt in prompts])
    mask = torch.stack([torch.arange(14) >= 14 - len(prompt) for prompt in prompts]).long()
    together = model.generate(batch, attention_mask=mask, **cache(), **GREEDY)[:, 14:]
    alone = [greedy_by_hand(model, prompt[None])[0, len(prompt) :] for prompt in prompts]
    assert torch.equal(together, torch.stack(alone))


def test_embeddings_are_continued_like_the_tokens_they_stand_for(model, input_ids, cache) -> None:
    embeddings = model.get_input_embeddings()(input_ids)
    expected = greedy_by_hand(model, input_ids)
    assert torch.equal(model.generate(inputs_embeds=embeddings, **cache(), **GREEDY), expected[:, 14:])
    assert torch.equal(model.generate(input_ids, inputs_embeds=embeddings, **cache(), **GREEDY), expected)


def test_scores_attentions_and_hidden_states_come_for_every_new_token(model, input_ids, cache) -> None:
    model.set_attn_implementation("eager")  # the only one that keeps its weights
    try:
        outputs = model.generate(
            input_ids,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            output_attentions=True,
            output_hidden_states=True,
            **cache(),
            **GREEDY,
        )
    finally:
        model.set_attn_implementation("sdpa")
    by_hand = greedy_by_hand(model, input_ids)
    assert torch.equal(outputs.sequences, by_hand)
    for new in range(NEW_TOKENS):
        expected = next_token_logits(model, by_hand[:, : 14 + new])
        torch.testing.assert_close(outputs.logits[new], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(outputs.scores[new], expected, rtol=0, atol=2e-5)
        # One token a step where there is a cache, and the whole text again where there is none.
        with_cache = outputs.past_key_values is not None
        num_queries = 1 if with_cache and new > 0 else 14 + new
        assert [state.shape for state in outputs.hidden_states[new]] == [(2, num_queries, 32)] * 3
        for weights in outputs.attentions[new]:
            assert weights.shape[:3] == (2, 4, num_queries)
            torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, num_queries), rtol=0, atol=1e-5)


# --- Guessing ahead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guess", ["assistant", "prompt-lookup", "early-exit"])
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sample"])
def test_guessing_ahead_does_not_change_the_text(model, tiny_config, guess: str, sampled: bool) -> None:
    prompt = torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6, 7, 5, 6]])
    torch.manual_seed(1)
    assistant = HfGptForCausalLM(tiny_config(num_hidden_layers=1)).eval()
    ways: dict[str, dict[str, Any]] = {
        "assistant": {"assistant_model": assistant},
        "prompt-lookup": {"prompt_lookup_num_tokens": 2},
        "early-exit": {"assistant_early_exit": 1},
    }
    # At a temperature near 0 a draw is the likeliest token: so the sampled way has the same answer.
    style = {"do_sample": True, "temperature": 1e-4, "top_k": 0} if sampled else {"do_sample": False}
    out = model.generate(prompt, pad_token_id=0, max_new_tokens=NEW_TOKENS, **ways[guess], **style)
    assert torch.equal(out, greedy_by_hand(model, prompt))
    assert model.config.num_hidden_layers == 2


# --- Caches that outlive a call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DynamicCache, StaticCache])
def test_a_text_is_continued_from_its_cache_and_only_new_tokens_are_computed(model, input_ids, kind: type) -> None:
    limit = {"max_cache_len": 32} if kind is StaticCache else {}
    cache: Cache = kind(config=model.config, **limit)
    lengths: list[int] = []
    hook = model.model.layers[0].register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    first = model.generate(input_ids, past_key_values=cache, do_sample=False, pad_token_id=0, max_new_tokens=5)
    more = torch.cat([first, input_ids[:, :3]], dim=1)  # a user's next turn
    second = model.generate(more, past_key_values=cache, do_sample=False, pad_token_id=0, max_new_tokens=6)
    hook.remove()
    assert torch.equal(first, greedy_by_hand(model, input_ids, 5))
    assert torch.equal(second, greedy_by_hand(model, more, 6))
    # The fifth token was drawn but not yet read: it comes with the three that follow it.
    assert lengths == [14, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1]


@torch.no_grad()
def test_the_eight_bit_cache_gives_nearly_the_exact_logits(tiny_config, input_ids) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(num_key_value_heads=2, position_embedding_type="rotary")).eval()
    arguments = {"cache_implementation": "quantized", "cache_config": {"backend": "fp8"}}
    outputs = model.generate(input_ids, return_dict_in_generate=True, output_logits=True, **arguments, **GREEDY)
    assert isinstance(outputs.past_key_values, QuantizedCache)
    errors = []
    for new in range(NEW_TOKENS):
        exact = next_token_logits(model, outputs.sequences[:, : 14 + new])
        errors.append((outputs.logits[new] - exact).pow(2).mean().sqrt() / exact.std())
    assert errors[0] < 1e-5  # the prompt is read before anything is rounded
    assert 1e-5 < max(errors) < 0.1  # three bits after the binary point of each key and value


def test_a_quantised_cache_says_that_it_cannot_hold_a_sliding_window(tiny_config, input_ids) -> None:
    model = HfGptForCausalLM(tiny_config(sliding_window=6)).eval()
    with pytest.raises(ValueError, match="sliding_attention"):
        model.generate(input_ids, cache_implementation="quantized", cache_config={"backend": "fp8"}, **GREEDY)


# --- Engines ----------------------------------------------------------------------------------------------------------


def test_compiled_decoding_gives_the_same_text(model, input_ids) -> None:
    compiling = CompileConfig(backend="aot_eager", mode=None)
    compiling._compile_all_devices = True  # without it, transformers compiles on accelerators only
    out = model.generate(input_ids, cache_implementation="static", compile_config=compiling, **GREEDY)
    assert hasattr(model, "_compiled_call"), "nothing was compiled"
    assert torch.equal(out, greedy_by_hand(model, input_ids))


def test_continuous_batching_gives_each_prompt_its_own_text(model, input_ids) -> None:
    prompts = [input_ids[0, :3], input_ids[1], input_ids[0, 2:11], input_ids[1, 5:6]]
    settings = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=-1, pad_token_id=0)
    memory = ContinuousBatchingConfig(num_blocks=16, page_size=16, max_batch_tokens=64)
    answers = model.generate_batch(
        [prompt.tolist() for prompt in prompts], generation_config=settings, continuous_batching_config=memory
    )
    assert [answer.error for answer in answers.values()] == [None] * 4
    texts = [answers[f"req_{index}"].generated_tokens for index in range(4)]
    expected = [greedy_by_hand(model, prompt[None])[0, len(prompt) :].tolist() for prompt in prompts]
    assert texts == expected


# --- Where to stop ----------------------------------------------------------------------------------------------------


def test_a_row_that_has_ended_is_padded_while_the_others_go_on(model, input_ids, cache) -> None:
    padding = 96
    by_hand = greedy_by_hand(model, input_ids)
    end = int(by_hand[0, 14 + 3])
    expected = by_hand.clone()
    for row in expected:
        stop = 14 + int((row[14:] == end).float().argmax()) if end in row[14:] else len(row)
        row[torch.arange(len(row)) > stop] = padding
    stopping = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "eos_token_id": end, "pad_token_id": padding}
    mask = torch.ones_like(input_ids)  # without it, transformers takes a padding id in a prompt for padding
    out = model.generate(input_ids, attention_mask=mask, **stopping, **cache())
    assert torch.equal(out, expected[:, : out.shape[1]])
    assert (expected[:, out.shape[1] :] == padding).all()
