"""Continuing a prompt: the same text as `generate`, and draws from the distribution that was asked for."""

import copy

import pytest
import torch
from transformers import TextStreamer

from hfgpt.errors import UserError
from hfgpt.serving.generation import continue_prompt, encode_prompt

NUM_DRAWS = 400


def continuations(model, tokenizer, prompt: str = "the cat", **options) -> list[str]:
    return list(continue_prompt(model, tokenizer, prompt, **{"max_new_tokens": 8, **options}))


def next_token_probabilities(model, tokenizer, prompt: str, temperature: float = 1.0) -> torch.Tensor:
    """The distribution after a prompt, from one forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1].double()
    return (logits / temperature).softmax(-1)


def test_greedy_text_is_the_likeliest_token_again_and_again(model, tokenizer) -> None:
    ids = tokenizer("the cat")["input_ids"]
    length = len(ids)
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    expected = tokenizer.decode(ids[length:], skip_special_tokens=True)
    assert continuations(model, tokenizer, temperature=0) == [expected]


def test_greedy_text_is_that_of_generate(model, tokenizer) -> None:
    inputs = tokenizer("the dog ran", return_tensors="pt", return_token_type_ids=False)
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert continuations(model, tokenizer, "the dog ran", temperature=0, top_k=5, top_p=0.5) == [expected]


def test_a_seed_repeats_all_samples_and_each_sample_is_another(model, tokenizer) -> None:
    first, second = (continuations(model, tokenizer, num_samples=3, seed=5) for _ in range(2))
    assert first == second
    assert len(set(first)) == 3
    assert continuations(model, tokenizer, num_samples=3, seed=50) != first


def test_without_a_seed_two_samples_differ(model, tokenizer) -> None:
    torch.manual_seed(0)
    first = continuations(model, tokenizer, max_new_tokens=16)
    torch.manual_seed(0)
    assert continuations(model, tokenizer, max_new_tokens=16) != first, "the global seed must not decide"


@pytest.mark.parametrize("options", [{"seed": 3}, {}, {"temperature": 0}], ids=str)
def test_the_global_random_state_is_left_as_it_was(model, tokenizer, options) -> None:
    before = torch.get_rng_state()
    continuations(model, tokenizer, num_samples=2, **options)
    assert torch.equal(torch.get_rng_state(), before)


def first_tokens(model, tokenizer, prompt: str, **options) -> torch.Tensor:
    """How often each token id came first in `NUM_DRAWS` draws."""
    drawn: list[int] = []

    class Note(TextStreamer):
        def put(self, value):
            if value.numel() == 1:
                drawn.append(int(value))

    streamer = Note(tokenizer, skip_prompt=True)
    for _ in continue_prompt(
        model, tokenizer, prompt, max_new_tokens=1, num_samples=NUM_DRAWS, seed=0, streamer=streamer, **options
    ):
        pass
    assert len(drawn) == NUM_DRAWS
    return torch.bincount(torch.tensor(drawn), minlength=270)


@pytest.mark.parametrize(
    ("options", "temperature"),
    [({}, 1.0), ({"temperature": 0.5}, 0.5), ({"top_k": 4}, 1.0), ({"top_p": 0.5}, 1.0)],
    ids=["plain", "temperature", "top_k", "top_p"],
)
def test_draws_follow_the_distribution_that_was_asked_for(model, tokenizer, options, temperature) -> None:
    prompt = "the cat sat"
    probabilities = next_token_probabilities(model, tokenizer, prompt, temperature)
    ordered, order = probabilities.sort(descending=True)
    # top_p keeps the fewest likeliest tokens that together reach it (Holtzman et al. 2020).
    num_kept = {"top_k": 4, "top_p": int((ordered.cumsum(0) < 0.5).sum()) + 1}.get(next(iter(options), ""), 270)
    allowed = torch.zeros(270, dtype=torch.double)
    allowed[order[:num_kept]] = ordered[:num_kept] / ordered[:num_kept].sum()

    counts = first_tokens(model, tokenizer, prompt, **options)
    assert counts[allowed == 0].sum() == 0
    # Each count is binomial; five standard deviations are exceeded once in two million times.
    deviation = (NUM_DRAWS * allowed * (1 - allowed)).sqrt()
    assert (abs(counts - NUM_DRAWS * allowed) <= 5 * deviation + 1).all()
    assert (counts > 0).sum() > 2


def test_top_k_of_one_is_greedy(model, tokenizer) -> None:
    assert continuations(model, tokenizer, top_k=1) == continuations(model, tokenizer, temperature=0)


def test_without_top_k_and_top_p_the_models_own_defaults_do_not_limit_the_draws(model, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(model.generation_config, "top_k", 1)
    monkeypatch.setattr(model.generation_config, "temperature", 0.01)
    assert (first_tokens(model, tokenizer, "the cat sat") > 0).sum() > 20


def test_the_end_of_text_ends_a_continuation_and_is_not_shown(model, tokenizer, monkeypatch) -> None:
    greedy = continuations(model, tokenizer, temperature=0)[0]
    with torch.no_grad():
        first = int(model(torch.tensor([tokenizer("the cat")["input_ids"]])).logits[0, -1].argmax())
    monkeypatch.setattr(model.generation_config, "eos_token_id", first)
    shortened = continuations(model, tokenizer, temperature=0)[0]
    assert shortened == tokenizer.decode([first])
    assert greedy.startswith(shortened)


def test_what_is_streamed_is_the_text(model, tokenizer, capsys) -> None:
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    texts = continuations(model, tokenizer, num_samples=3, seed=1, streamer=streamer)
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in texts)


def test_samples_are_made_one_by_one_as_they_are_asked_for(model, tokenizer, monkeypatch) -> None:
    calls = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda *args, **kwargs: (calls.append(1), generate(*args, **kwargs))[1])
    samples = continue_prompt(model, tokenizer, "the", max_new_tokens=2, num_samples=5)
    next(samples)
    assert len(calls) == 1


def test_the_empty_prompt_begins_a_new_document(model, tokenizer) -> None:
    ids = encode_prompt(tokenizer, "", max_new_tokens=1, max_position_embeddings=24)
    assert ids.tolist() == [[tokenizer.eos_token_id]]
    assert len(continuations(model, tokenizer, "")) == 1


def test_the_empty_prompt_without_an_end_of_text_is_one_sentence(tokenizer) -> None:
    without_end = copy.deepcopy(tokenizer)
    without_end.eos_token = None
    with pytest.raises(UserError, match="end-of-text"):
        encode_prompt(without_end, "", max_new_tokens=1, max_position_embeddings=24)


def test_a_typed_special_token_is_text(tokenizer) -> None:
    ids = encode_prompt(tokenizer, "<|endoftext|>", max_new_tokens=1, max_position_embeddings=24)
    assert tokenizer.eos_token_id not in ids[0]
    assert tokenizer.decode(ids[0]) == "<|endoftext|>"


def test_prompt_and_answer_may_fill_the_context_and_no_more(model, tokenizer) -> None:
    num_tokens = len(tokenizer("the cat")["input_ids"])
    assert len(continuations(model, tokenizer, max_new_tokens=24 - num_tokens)) == 1
    with pytest.raises(UserError, match=rf"The prompt has {num_tokens} tokens, .* holds 24"):
        continuations(model, tokenizer, max_new_tokens=25 - num_tokens)
    with pytest.raises(UserError, match="shorten the prompt"):
        continuations(model, tokenizer, "the cat " * 50)


def test_half_a_surrogate_pair_in_a_prompt_is_replaced_and_said(model, tokenizer, caplog) -> None:
    replaced = continuations(model, tokenizer, "the \udcff", temperature=0)
    assert "replaced 1 lone surrogates" in caplog.text
    assert replaced == continuations(model, tokenizer, "the \ufffd", temperature=0)


def test_a_tokenizer_with_more_ids_than_the_model_is_one_sentence(model, tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(model.config, "vocab_size", 200)
    with pytest.raises(UserError, match="the model knows 200 ids"):
        continuations(model, tokenizer, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"num_samples": 0}, "num_samples"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": -0.5}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"top_k": -1, "seed": -1}, "top_k must be 1 or more, or left out, and seed must lie"),
    ],
    ids=str,
)
def test_numbers_out_of_their_range_are_one_sentence(model, tokenizer, options, words: str) -> None:
    with pytest.raises(UserError, match=words):
        continuations(model, tokenizer, **options)
