"""One vector a text: by the attention mask alone, whatever stands around the text."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hfgpt import HfGptConfig, HfGptForSequenceClassification
from hfgpt.pooling_hfgpt import pool

MakeConfig = Callable[..., HfGptConfig]
POOLINGS = ["last_token", "first_token", "mean"]
TEXTS = [[5, 42, 6, 42], [9], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [42, 42], [7, 3, 7]]


def classifier(tiny_config: MakeConfig, **fields: object) -> HfGptForSequenceClassification:
    torch.manual_seed(0)
    # The padding token is also the end token, and stands inside texts, first and last in some.
    config = tiny_config(num_labels=3, pad_token_id=42, eos_token_id=42, **fields)
    return HfGptForSequenceClassification(config).eval()


def padded(texts: list[list[int]], length: int, side: str, pad_token_id: int) -> dict[str, Tensor]:
    """The texts as a batch of `length` tokens; on `both` sides the padding is shared between them."""
    input_ids = torch.full((len(texts), length), pad_token_id)
    attention_mask = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in enumerate(texts):
        spare = length - len(text)
        start = {"right": 0, "left": spare, "both": spare // 2}[side]
        input_ids[row, start : start + len(text)] = torch.tensor(text)
        attention_mask[row, start : start + len(text)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


@pytest.mark.parametrize("position_embedding_type", ["learned", "rotary", "none"])
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_padding_side_length_and_batch_do_not_change_a_text_s_logits(
    tiny_config: MakeConfig, pooling: str, is_causal: bool, attn_implementation: str, position_embedding_type: str
) -> None:
    model = classifier(
        tiny_config,
        classifier_pooling=pooling,
        is_causal=is_causal,
        position_embedding_type=position_embedding_type,
        attn_implementation=attn_implementation,
        initializer_range=0.1,  # logits of a scale near 1
    )
    expected = torch.cat([model(torch.tensor([text])).logits for text in TEXTS])
    assert expected.std(dim=0).min() > 0.1  # the texts are told apart
    for side in ("right", "left", "both"):
        for length, batch_size, pad_token_id in ((11, 5, 42), (17, 2, 42), (32, 1, 0), (32, 5, 7)):
            logits = [
                model(**padded(TEXTS[start : start + batch_size], length, side, pad_token_id)).logits
                for start in range(0, len(TEXTS), batch_size)
            ]
            torch.testing.assert_close(torch.cat(logits), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_what_is_pooled_is_counted_by_hand(tiny_config: MakeConfig, pooling: str) -> None:
    model = classifier(tiny_config, classifier_pooling=pooling)
    hidden = model.model(torch.tensor([TEXTS[2]])).last_hidden_state[0]
    vector = {"last_token": hidden[10], "first_token": hidden[0], "mean": hidden.sum(dim=0) / 11}[pooling]
    logits = model(**padded([TEXTS[2]], 15, "left", 42)).logits[0]
    torch.testing.assert_close(logits, model.score.weight @ vector, rtol=0, atol=2e-5)


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_a_text_without_tokens_is_judged_by_finite_numbers_and_leaves_its_neighbours_alone(
    tiny_config: MakeConfig, pooling: str, attn_implementation: str
) -> None:
    model = classifier(tiny_config, classifier_pooling=pooling, attn_implementation=attn_implementation)
    logits = model(**padded([[], TEXTS[0]], 6, "right", 42)).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[1:], model(torch.tensor([TEXTS[0]])).logits, rtol=0, atol=2e-5)


def test_of_a_text_without_tokens_the_mean_is_zero_and_the_others_are_position_0() -> None:
    hidden_states, mask = torch.randn(2, 3, 4), torch.tensor([[0, 0, 0], [0, 1, 0]])
    assert torch.equal(pool(hidden_states, mask, "mean"), torch.stack([torch.zeros(4), hidden_states[1, 1]]))
    for pooling in ("first_token", "last_token"):
        assert torch.equal(pool(hidden_states, mask, pooling), torch.stack([hidden_states[0, 0], hidden_states[1, 1]]))


def test_the_mean_of_many_tokens_is_taken_in_fp32() -> None:
    hidden_states = torch.randn(1, 77, 500, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled = pool(hidden_states, None, "mean")
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, hidden_states.double().mean(dim=1).bfloat16())  # rounded once


def test_what_stands_in_the_padding_does_not_reach_the_mean() -> None:
    hidden_states = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    assert pool(hidden_states, torch.tensor([[1, 1, 0]]), "mean").item() == 2.0


@torch.no_grad()
def test_with_a_cache_the_last_token_is_judged_and_what_needs_the_whole_text_is_refused(
    tiny_config: MakeConfig,
) -> None:
    text = torch.tensor([TEXTS[2]])
    for pooling in POOLINGS:
        model = classifier(tiny_config, classifier_pooling=pooling)
        beginning = model(text[:, :6], use_cache=True)
        rest = torch.cat([text[:, 6:], torch.tensor([[42, 42]])], dim=1)  # padded on the right
        mask = torch.tensor([[1] * 11 + [0] * 2])
        cached = {"past_key_values": beginning.past_key_values, "attention_mask": mask}
        if pooling == "last_token":
            logits = model(rest, **cached).logits
            torch.testing.assert_close(logits, model(text).logits, rtol=0, atol=2e-5)
            continue
        with pytest.raises(ValueError, match=f"'{pooling}' needs the whole text, but 6 of its tokens are in the cache"):
            model(rest, **cached)


def test_another_pooling_is_refused_by_its_name(tiny_config: MakeConfig) -> None:
    with pytest.raises(Exception, match="classifier_pooling"):
        tiny_config(classifier_pooling="max")
