"""Answering in bulk: token for token what `generate` gives to each prompt alone, whatever the batches."""

import copy
import itertools
import random

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.generation.logits_process import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from hfgpt import HfGptForCausalLM
from hfgpt.errors import UserError
from hfgpt.serving import answering
from hfgpt.serving.answering import Answer, answer_prompts
from hfgpt.serving.sampling import choose_tokens

CONTEXT = 32
STOP = list(range(1, 97, 8))  # a token in eight ends an answer: some are short
ARCHITECTURES = {
    "learned": {},
    "rotary": {"position_embedding_type": "rotary", "num_key_value_heads": 2},
    "no positions": {"position_embedding_type": "none", "num_key_value_heads": 1, "hidden_act": "swiglu"},
    "window": {"sliding_window": 5, "norm_type": "rms_norm"},
    "eager": {"attn_implementation": "eager"},
    "flex": {"attn_implementation": "flex_attention"},
}


class Words:
    """In place of a tokenizer: the tokens' numbers are its text."""

    def decode(self, token_ids, *, skip_special_tokens):
        assert skip_special_tokens
        return " ".join(map(str, token_ids))


def random_model(tiny_config, seed: int = 0, **changes) -> HfGptForCausalLM:
    """With wide weights and a head of its own, or it would say the same token again and again."""
    torch.manual_seed(seed)
    fields = {"max_position_embeddings": CONTEXT, "tie_word_embeddings": False, "initializer_range": 1.0} | changes
    return HfGptForCausalLM(tiny_config(**fields)).eval()


def prompts_of(number: int, longest: int = 12, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [[chance.randrange(97) for _ in range(chance.randint(1, longest))] for _ in range(number)]


def generated(model, prompt: list[int], stop_token_ids: list[int], max_new_tokens: int) -> tuple[list[int], bool]:
    """transformers' greedy answer to one prompt, and whether a token of `stop_token_ids` ended it."""
    input_ids = torch.tensor([prompt])
    output = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=stop_token_ids or None,
        pad_token_id=0,
    )
    answer = output[0, len(prompt) :].tolist()
    return (answer[:-1], True) if answer[-1] in stop_token_ids else (answer, False)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_greedy_answers_are_those_of_generate_for_any_batch(tiny_config, architecture: str, batch_size: int) -> None:
    model = random_model(tiny_config, **ARCHITECTURES[architecture])
    prompts, stop = prompts_of(13), STOP
    expected = [generated(model, prompt, stop, 15) for prompt in prompts]
    assert len({len(ids) for ids, _ in expected}) > 3, "answers of one length would prove little"
    answers = answer_prompts(model, Words(), prompts, stop_token_ids=stop, max_new_tokens=15, batch_size=batch_size)
    assert answers == [Answer(" ".join(map(str, ids)), ids, ended) for ids, ended in expected]


def test_a_model_in_training_answers_without_dropout_and_is_left_as_it_was(tiny_config) -> None:
    model = random_model(tiny_config, residual_dropout=0.5, attn_implementation="flex_attention")
    prompts = prompts_of(5)
    expected = answer_prompts(model, Words(), prompts, stop_token_ids=[], max_new_tokens=8)
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    assert answer_prompts(model, Words(), prompts, stop_token_ids=[], max_new_tokens=8) == expected
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "flex_attention"
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_trained_model_answers_as_generate_with_its_tokenizer(model, tokenizer) -> None:
    texts = ["the cat", "a dog ran", "", "the mat"]
    prompts = [[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]] for text in texts]
    stop = [tokenizer("dog")["input_ids"][0], tokenizer.eos_token_id]
    answers = answer_prompts(model, tokenizer, prompts, stop_token_ids=stop, max_new_tokens=10)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids, ended = generated(model, prompt, stop, 10)
        assert answer == Answer(tokenizer.decode(ids, skip_special_tokens=True), ids, ended)


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"top_p": 0.7, "temperature": 1.5}], ids=str)
def test_samples_are_a_function_of_the_seed_and_the_index_alone(tiny_config, options) -> None:
    model, prompts = random_model(tiny_config), prompts_of(1) * 9
    settings = {"stop_token_ids": STOP, "max_new_tokens": 12, "temperature": 1.0, "seed": 4} | options
    before = torch.get_rng_state()
    whole = answer_prompts(model, Words(), prompts, **settings)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(answer.token_ids) for answer in whole}) > 3
    for batch_size in (1, 4):
        assert answer_prompts(model, Words(), prompts, batch_size=batch_size, **settings) == whole
    second_part = answer_prompts(model, Words(), prompts[5:], first_index=5, **settings)
    assert second_part == whole[5:]
    assert answer_prompts(model, Words(), prompts, **settings | {"seed": 5}) != whole
    unseeded = [answer_prompts(model, Words(), prompts, **settings | {"seed": None}) for _ in range(2)]
    assert unseeded[0] != unseeded[1]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, None, None), (0.7, 4, None), (1.3, None, 0.8), (1.0, 6, 0.5), (1.0, 3, 0)]
)
def test_tokens_are_drawn_from_the_distribution_that_transformers_makes(temperature, top_k, top_p) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 20, generator=generator) * 2
    warpers = LogitsProcessorList()
    if top_k is not None:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p is not None:
        warpers.append(TopPLogitsWarper(float(top_p)))
    expected = warpers(torch.tensor([[0]]), logits / temperature).softmax(-1)[0]
    number = 100_000
    draws = (torch.arange(number) + 0.5) / number  # evenly spaced: each token gets its share of them
    chosen = choose_tokens(logits.expand(number, -1), draws, temperature=temperature, top_k=top_k, top_p=top_p)
    shares = torch.bincount(chosen, minlength=20) / number
    torch.testing.assert_close(shares, expected, rtol=0, atol=2e-5)


def test_a_draw_at_either_end_chooses_a_token_that_has_a_probability() -> None:
    logits = torch.full((1, 6), -torch.inf)
    logits[0, 2:4] = 0
    for draw, token in ((0.0, 2), (0.49, 2), (0.51, 3), (1.0, 3)):  # float32 may round a draw to 1
        assert choose_tokens(logits, torch.tensor([draw]), temperature=1.0).item() == token


def test_a_draw_close_to_a_tokens_end_still_points_at_that_token() -> None:
    """In a vocabulary of GPT-2's size the ends lie closer than rounding to float32 keeps apart."""
    vocabulary = 50257
    logits, tokens = torch.zeros(1, vocabulary), torch.arange(0, vocabulary, 500)
    for place in (0.001, 0.999):
        draws = (tokens.double() + place) / vocabulary
        assert choose_tokens(logits.expand(len(tokens), -1), draws, temperature=1.0).tolist() == tokens.tolist()


def test_answers_are_in_the_order_of_the_prompts_and_progress_counts_each_once(tiny_config) -> None:
    model, prompts = random_model(tiny_config), prompts_of(10)
    counted: list[int] = []
    answers = answer_prompts(
        model, Words(), prompts, stop_token_ids=STOP, max_new_tokens=6, batch_size=3, on_progress=counted.append
    )
    assert sum(counted) == len(answers) == 10
    alone = [answer_prompts(model, Words(), [prompt], stop_token_ids=STOP, max_new_tokens=6)[0] for prompt in prompts]
    assert answers == alone
    assert answer_prompts(model, Words(), [], stop_token_ids=STOP, max_new_tokens=6) == []


def test_an_answer_ends_with_the_context_and_that_is_said(tiny_config, caplog) -> None:
    model = random_model(tiny_config)
    prompts = [[1] * (CONTEXT - 1), [2] * (CONTEXT - 3), [3]]
    answers = answer_prompts(model, Words(), prompts, stop_token_ids=[], max_new_tokens=8)
    assert [len(answer.token_ids) for answer in answers] == [1, 3, 8]
    assert not any(answer.finished for answer in answers)
    assert "2 of 3 answers end before 8 new tokens, where the model's context of 32 ends" in caplog.text
    assert answers[1].token_ids == generated(model, prompts[1], [], 3)[0]


def test_new_prompts_enter_while_others_are_answered(tiny_config, monkeypatch) -> None:
    """Of 12 prompts in a batch of 4 none waits for the slowest of an earlier four."""
    model = random_model(tiny_config)
    prompts, stop = prompts_of(12), STOP
    lengths = [len(ids) + ended for ids, ended in (generated(model, prompt, stop, 15) for prompt in prompts)]
    steps = itertools.count()
    step = answering._Batch._step

    def counted_step(self) -> None:
        next(steps)
        step(self)

    monkeypatch.setattr(answering._Batch, "_step", counted_step)
    answer_prompts(model, Words(), prompts, stop_token_ids=stop, max_new_tokens=15, batch_size=4)
    taken = next(steps)
    by_length = sorted(range(12), key=lambda index: (len(prompts[index]), index), reverse=True)
    in_fours = sum(max(lengths[index] for index in by_length[start : start + 4]) - 1 for start in (0, 4, 8))
    assert taken < in_fours


def test_no_memory_for_a_batch_halves_it_and_changes_no_answer(tiny_config, monkeypatch, caplog) -> None:
    model, prompts = random_model(tiny_config), prompts_of(9)
    settings = {"stop_token_ids": STOP, "max_new_tokens": 10, "temperature": 1.0, "seed": 1}
    expected = answer_prompts(model, Words(), prompts, **settings)
    step, steps, counted = answering._Batch._step, itertools.count(), []

    def step_with_little_memory(self) -> None:
        if len(self.active) > 2 and next(steps) >= 5:  # some have been answered by then
            raise torch.OutOfMemoryError("CUDA out of memory.")
        step(self)

    monkeypatch.setattr(answering._Batch, "_step", step_with_little_memory)
    answers = answer_prompts(model, Words(), prompts, batch_size=8, on_progress=counted.append, **settings)
    assert answers == expected
    assert sum(counted) == 9
    warnings = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
    assert warnings == [
        "out of memory with 8 prompts at once; it goes on with 4",
        "out of memory with 4 prompts at once; it goes on with 2",
    ]


def test_no_memory_for_a_single_prompt_is_one_sentence(tiny_config, monkeypatch) -> None:
    def step(self) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(answering._Batch, "_step", step)
    model = random_model(tiny_config)
    with pytest.raises(UserError, match="Memory runs out with a single prompt of 12 tokens"):
        answer_prompts(model, Words(), [[1] * 12, [2]], stop_token_ids=[], max_new_tokens=3, batch_size=2)


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_config, monkeypatch) -> None:
    def step(self) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(answering._Batch, "_step", step)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        answer_prompts(random_model(tiny_config), Words(), [[1]], stop_token_ids=[], max_new_tokens=3)


def test_a_model_in_half_precision_answers_as_generate(tiny_config) -> None:
    model = random_model(tiny_config).to(torch.bfloat16)
    prompts = prompts_of(4)
    answers = answer_prompts(model, Words(), prompts, stop_token_ids=[], max_new_tokens=8, batch_size=1)
    assert [answer.token_ids for answer in answers] == [generated(model, prompt, [], 8)[0] for prompt in prompts]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "Prompt 2 has no token"),
        ([[1], [1] * CONTEXT], {}, "Prompt 2 has 32 tokens, which leaves no room for an answer in the model's context"),
        ([[1, 97]], {}, "Prompt 1 has the token id 97, but the model knows 97 ids"),
        ([[-4, 9]], {}, "Prompt 1 has the token id -4, but the model knows 97 ids"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be 1 or more."),
        ([[1]], {"temperature": -1.0, "top_k": 0}, "temperature must be .* and top_k must be 1 or more"),
        ([[1]], {"top_p": 1.5}, "top_p must lie between 0 and 1"),
        ([[1]], {"seed": -1}, "seed must lie between 0 and"),
        ([[1]], {"batch_size": 0}, "batch_size is 0: give 1 or more"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_the_first_token(
    tiny_config, monkeypatch, prompts, options, message
) -> None:
    monkeypatch.setattr(answering._Batch, "answer", lambda *arguments: pytest.fail("it has begun"))
    settings = {"stop_token_ids": [], "max_new_tokens": 3} | options
    with pytest.raises(UserError, match=message) as raised:
        answer_prompts(random_model(tiny_config), Words(), prompts, **settings)
    assert "\n" not in str(raised.value)


def test_a_model_that_is_not_causal_is_refused(tiny_config) -> None:
    with pytest.raises(UserError, match="not causal"):
        answer_prompts(random_model(tiny_config, is_causal=False), Words(), [[1]], stop_token_ids=[], max_new_tokens=3)


def test_a_model_whose_training_diverged_is_named(tiny_config) -> None:
    model = copy.deepcopy(random_model(tiny_config))
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="The model computes no finite numbers"):
        answer_prompts(model, Words(), [[1]], stop_token_ids=[], max_new_tokens=3)


def test_a_saved_model_answers_the_same(tiny_config, tmp_path) -> None:
    model = random_model(tiny_config)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    settings = {"stop_token_ids": STOP, "max_new_tokens": 8}
    prompts = prompts_of(4)
    assert answer_prompts(loaded, Words(), prompts, **settings) == answer_prompts(model, Words(), prompts, **settings)
