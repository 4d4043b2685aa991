"""Every way to compute attention sees the same tokens: eager, sdpa, flex, and flash as far as a CPU can show."""

import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache, modeling_flash_attention_utils

from hfgpt import HfGptConfig, HfGptForCausalLM

MakeConfig = Callable[..., HfGptConfig]

ON_A_CPU = ["eager", "sdpa", "flex_attention"]
LENGTHS = [5, 9, 1, 4]  # of four packed documents

# What changes who sees whom, or how keys are shared.
VARIANTS: dict[str, dict[str, Any]] = {
    "causal": {},
    "window": {"sliding_window": 3},
    "groups": {"num_key_value_heads": 2},
    "rotary": {"position_embedding_type": "rotary"},
    "not-causal": {"is_causal": False},
    "not-causal-window": {"is_causal": False, "sliding_window": 3, "num_key_value_heads": 1},
}


@pytest.fixture(autouse=True)
def flex_attention_is_not_compiled() -> Iterator[None]:
    """Flex attention's plain form, without the half minute that a compiler takes for each new shape."""
    with torch.compiler.set_stance("force_eager"):
        yield


def make_model(config: HfGptConfig, implementation: str = "eager") -> HfGptForCausalLM:
    torch.manual_seed(0)
    model = HfGptForCausalLM(config).eval()
    model.set_attn_implementation(implementation)
    return model


def sees(config: HfGptConfig, query: int, key: int) -> bool:
    """The rules in words: the past and oneself, unless not causal; and no farther than the window."""
    if config.is_causal and key > query:
        return False
    return config.sliding_window is None or abs(query - key) < config.sliding_window


def ready_mask(config: HfGptConfig, lengths: list[int]) -> Tensor:
    """The exact mask `(1, 1, tokens, tokens)` of documents that follow each other in one row, written pair by pair."""
    document = [number for number, length in enumerate(lengths) for _ in range(length)]
    pairs = itertools.product(range(len(document)), repeat=2)
    seen = [sees(config, query, key) and document[query] == document[key] for query, key in pairs]
    return torch.tensor(seen).view(1, 1, len(document), len(document))


def positions_of(lengths: list[int]) -> Tensor:
    return torch.cat([torch.arange(length) for length in lengths])[None]


# --- Who sees whom ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("implementation", ON_A_CPU)
def test_each_implementation_sees_exactly_what_the_rules_say(
    tiny_config: MakeConfig, fields: dict[str, Any], implementation: str
) -> None:
    config = tiny_config(**fields)
    model = make_model(config)
    input_ids = torch.randint(97, (2, 11))
    expected = model(input_ids, attention_mask=ready_mask(config, [11]).expand(2, 1, 11, 11)).logits
    model.set_attn_implementation(implementation)
    torch.testing.assert_close(model(input_ids).logits, expected, rtol=0, atol=2e-5)
    # A change at token 6 shows where the rules let it through, and nowhere else.
    changed = input_ids.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 97
    hidden = [model.model(ids, output_hidden_states=True).hidden_states[1] for ids in (input_ids, changed)]
    differs = (hidden[0] - hidden[1]).abs().amax(-1) > 1e-4
    assert differs[0].tolist() == [sees(config, query, 6) for query in range(11)]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("implementation", ON_A_CPU)
def test_padding_changes_no_real_token_s_logits(
    tiny_config: MakeConfig, fields: dict[str, Any], implementation: str, side: str
) -> None:
    model = make_model(tiny_config(**fields), implementation)
    text, padding = torch.randint(97, (1, 7)), torch.full((1, 4), 42)
    padded = torch.cat([padding, text] if side == "left" else [text, padding], dim=1)
    real = slice(4, None) if side == "left" else slice(7)
    mask = torch.zeros_like(padded)
    mask[:, real] = 1
    logits = model(padded, attention_mask=mask).logits[:, real]
    torch.testing.assert_close(logits, model(text).logits, rtol=0, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ON_A_CPU)
def test_a_ready_mask_means_the_same_as_truth_values_integers_and_additive_numbers(
    tiny_config: MakeConfig, implementation: str
) -> None:
    config = tiny_config()
    model = make_model(config, implementation)
    input_ids = torch.randint(97, (2, 11))
    mask = ready_mask(config, [11]).repeat(2, 1, 1, 1)
    mask[1, 0, 5:, 2] = False  # a mask that nothing but a ready one can say
    truth = model(input_ids, attention_mask=mask).logits
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    for same in (mask.long(), mask.int(), additive):
        torch.testing.assert_close(model(input_ids, attention_mask=same).logits, truth, rtol=0, atol=2e-5)
    plain = model(input_ids).logits
    torch.testing.assert_close(truth[0], plain[0], rtol=0, atol=2e-5)
    assert (truth[1, 5:] - plain[1, 5:]).abs().amax(-1).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "static"),
    [(name, static) for name in VARIANTS for static in (False, True) if not (static and name.startswith("not-causal"))],
)
@pytest.mark.parametrize("all_ones", [False, True])
def test_a_mask_of_a_whole_static_cache_is_cut_to_the_tokens_that_there_are(
    tiny_config: MakeConfig, name: str, static: bool, all_ones: bool
) -> None:
    model = make_model(tiny_config(**VARIANTS[name]), "sdpa")
    input_ids = torch.randint(97, (2, 9))
    wide = torch.ones(2, 20, dtype=torch.long)
    if not all_ones:
        wide[:, 9:] = 0
    expected = model(input_ids).logits
    cache = StaticCache(config=model.config, max_cache_len=20) if static else None
    logits = model(input_ids, attention_mask=wide, past_key_values=cache).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


# --- Packed documents -------------------------------------------------------------------------------------------------


def packed_example() -> tuple[list[Tensor], Tensor, Tensor]:
    torch.manual_seed(1)
    documents = [torch.randint(97, (1, length)) for length in LENGTHS]
    labels = [torch.cat([torch.tensor([[-100]]), document[:, 1:]], dim=1) for document in documents]
    return documents, torch.cat(documents, dim=1), torch.cat(labels, dim=1)


def gradients(model: HfGptForCausalLM) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("implementation", ON_A_CPU)
@pytest.mark.parametrize("told_by", ["positions", "positions-without-cache", "ready-mask"])
def test_packed_documents_have_the_logits_loss_and_gradients_that_each_has_alone(
    tiny_config: MakeConfig, fields: dict[str, Any], implementation: str, told_by: str
) -> None:
    documents, packed, labels = packed_example()
    model = make_model(tiny_config(**fields), implementation)
    with_gradients = implementation != "flex_attention"  # torch has no backward pass of it for a CPU
    num_items = sum(LENGTHS) - len(LENGTHS)

    def losses_and_gradients(calls: list[dict[str, Any]]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        model.zero_grad()
        logits, total = [], torch.zeros(())
        for arguments in calls:
            outputs = model(**arguments, num_items_in_batch=num_items)
            if with_gradients:
                outputs.loss.backward()
            logits.append(outputs.logits.detach())
            total += outputs.loss.detach()
        return torch.cat(logits, dim=1), total, gradients(model)

    arguments: dict[str, Any] = {"input_ids": packed, "labels": labels, "position_ids": positions_of(LENGTHS)}
    if told_by == "positions-without-cache":
        arguments["use_cache"] = False
    elif told_by == "ready-mask":
        arguments["attention_mask"] = ready_mask(model.config, LENGTHS)
    with torch.set_grad_enabled(with_gradients):
        alone = losses_and_gradients([{"input_ids": d, "labels": d} for d in documents if d.shape[1] > 1])
        together = losses_and_gradients([arguments])
    single = sum(LENGTHS[:2])  # the document of one token has nothing to learn
    logits = torch.cat([together[0][:, :single], together[0][:, single + 1 :]], dim=1)
    torch.testing.assert_close(logits, alone[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(together[1], alone[1])
    assert together[2].keys() == alone[2].keys()
    assert bool(together[2]) == with_gradients
    for name, gradient in together[2].items():
        torch.testing.assert_close(gradient, alone[2][name], rtol=1e-4, atol=1e-5, msg=name)


@torch.no_grad()
def test_rows_of_a_batch_may_be_packed_differently(tiny_config: MakeConfig) -> None:
    model = make_model(tiny_config(), "sdpa")
    input_ids = torch.randint(97, (2, 10))
    logits = model(input_ids, position_ids=torch.cat([positions_of([4, 6]), positions_of([10])])).logits
    torch.testing.assert_close(logits[:1, :4], model(input_ids[:1, :4]).logits, rtol=0, atol=2e-5)
    torch.testing.assert_close(logits[:1, 4:], model(input_ids[:1, 4:]).logits, rtol=0, atol=2e-5)
    torch.testing.assert_close(logits[1:], model(input_ids[1:]).logits, rtol=0, atol=2e-5)


# --- Without the causal mask ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_model_that_is_not_causal_makes_no_cache_and_takes_none(tiny_config: MakeConfig) -> None:
    model = make_model(tiny_config(is_causal=False))
    input_ids = torch.randint(97, (1, 5))
    assert model(input_ids, use_cache=True).past_key_values is None
    with pytest.raises(ValueError, match="past_key_values"):
        model(input_ids, past_key_values=DynamicCache())


@torch.no_grad()
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("implementation", ON_A_CPU)
def test_the_causal_mask_can_be_lifted_for_one_call(
    tiny_config: MakeConfig, implementation: str, window: int | None
) -> None:
    model = make_model(tiny_config(sliding_window=window), implementation)
    other = make_model(tiny_config(sliding_window=window, is_causal=False), implementation)
    input_ids, positions = torch.randint(97, (1, 11)), positions_of([4, 7])
    for arguments in ({}, {"position_ids": positions}, {"attention_mask": (positions > 0).long()}):
        lifted = model(input_ids, is_causal=False, **arguments)
        assert lifted.past_key_values is None
        torch.testing.assert_close(lifted.logits, other(input_ids, **arguments).logits, rtol=0, atol=0)
    assert model.config.is_causal
    assert (model(input_ids).logits - lifted.logits).abs().max() > 1e-2


def test_a_model_that_is_not_causal_reads_its_whole_text_at_every_step(tiny_config: MakeConfig) -> None:
    model = make_model(tiny_config(is_causal=False), "sdpa")
    text = torch.randint(97, (2, 5))
    for use_cache in (True, False):
        generated = model.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=6, do_sample=False, use_cache=use_cache
        )
        expected = text
        with torch.no_grad():
            for _ in range(6):
                expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], dim=1)
        assert torch.equal(generated, expected)


def test_a_model_that_is_not_causal_does_not_generate_from_embeddings(tiny_config: MakeConfig) -> None:
    model = make_model(tiny_config(is_causal=False))  # transformers would feed the new tokens without the prompt
    embeddings = model.get_input_embeddings()(torch.randint(97, (1, 5)))
    with pytest.raises(ValueError, match="give input_ids to generate"):
        model.generate(inputs_embeds=embeddings, max_new_tokens=3)


# --- Flash attention --------------------------------------------------------------------------------------------------
# Its kernels need a GPU. What the model hands to them does not: plain functions of the same signature stand in for
# those of the flash-attn package (its README: heads come third, and the last query stands beside the last key).


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * softmax_scale
    num_queries, num_keys = scores.shape[-2:]
    before, after = window_size
    for query, key in itertools.product(range(num_queries), range(num_keys)):
        ahead = key - (query + num_keys - num_queries)
        if (causal and ahead > 0) or (before >= 0 and -ahead > before) or (after >= 0 and ahead > after):
            scores[:, :, query, key] = -torch.inf
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    ends = zip(cu_seqlens_q.tolist(), cu_seqlens_k.tolist(), strict=True)
    documents = [
        flash_attn_func(q[None, q0:q1], k[None, k0:k1], v[None, k0:k1], dropout_p, softmax_scale, causal, window_size)
        for (q0, k0), (q1, k1) in itertools.pairwise(ends)
    ]
    return torch.cat(documents, dim=1)[0]


@pytest.fixture
def flash_attention(monkeypatch: pytest.MonkeyPatch) -> Callable[[HfGptForCausalLM], None]:
    """A function that switches a model to flash attention, as the plain functions above compute it."""
    package, padding = types.ModuleType("flash_attn"), types.ModuleType("flash_attn.bert_padding")
    package.__dict__.update(
        flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_varlen_func, flash_attn_with_kvcache=None
    )
    padding.__dict__.update(
        pad_input=modeling_flash_attention_utils._pad_input, unpad_input=modeling_flash_attention_utils._unpad_input
    )
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.bert_padding", padding)
    monkeypatch.setattr(modeling_flash_attention_utils, "is_flash_attn_2_available", lambda: True)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)

    def switch(model: HfGptForCausalLM) -> None:
        assert model._supports_flash_attn
        model.config._attn_implementation_internal = "flash_attention_2"  # unchecked: there is no GPU

    return switch


@torch.no_grad()
@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_flash_attention_is_given_what_computes_the_same(
    tiny_config: MakeConfig, fields: dict[str, Any], flash_attention: Callable[[HfGptForCausalLM], None]
) -> None:
    documents, packed, _ = packed_example()
    padded = torch.randint(97, (2, 9))
    mask = torch.ones_like(padded)
    mask[0, :4] = 0
    model = make_model(tiny_config(**fields))
    calls: list[dict[str, Any]] = [
        {"input_ids": packed},
        {"input_ids": packed, "position_ids": positions_of(LENGTHS)},
        {"input_ids": padded, "attention_mask": mask},
    ]
    expected = [model(**arguments).logits for arguments in calls]
    expected[1] = torch.cat([model(document).logits for document in documents], dim=1)
    flash_attention(model)
    for arguments, logits in zip(calls, expected, strict=True):
        real = arguments.get("attention_mask", torch.ones_like(arguments["input_ids"])).bool()
        torch.testing.assert_close(model(**arguments).logits[real], logits[real], rtol=0, atol=2e-5)


@torch.no_grad()
def test_flash_attention_generates_the_same(
    tiny_config: MakeConfig, flash_attention: Callable[[HfGptForCausalLM], None]
) -> None:
    model = make_model(tiny_config(sliding_window=4, num_key_value_heads=2))
    input_ids, mask = torch.randint(97, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    mask[1, :3] = 0
    arguments: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(input_ids, **arguments)
    flash_attention(model)
    assert torch.equal(model.generate(input_ids, **arguments), expected)


@torch.no_grad()
def test_flash_attention_refuses_to_mix_the_documents_of_several_rows(
    tiny_config: MakeConfig, flash_attention: Callable[[HfGptForCausalLM], None]
) -> None:
    model = make_model(tiny_config())
    flash_attention(model)
    input_ids = torch.randint(97, (2, 6))
    with pytest.raises(ValueError, match="a batch of 2: join the rows"):
        model(input_ids, position_ids=positions_of([2, 4]).expand(2, 6))
    model(input_ids, position_ids=positions_of([6]).expand(2, 6))  # one document a row
