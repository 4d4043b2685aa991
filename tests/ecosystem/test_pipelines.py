"""transformers' pipelines on a model and a tokenizer of ours, opened from a folder as a user does, without the Hub.

transformers' own mixin for pipelines fetches tiny checkpoints of known models from the Hub, and what it runs for each
task is not in the source distribution: so these tests are ours.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel, pipeline

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.tokenization import train_tokenizer

TEXTS = ["the cat sat on the mat", "the dog ran after the cat", "a bird sang on the mat", "the dog sat"]


@pytest.fixture
def save(shape: dict[str, Any], tiny_config: Callable[..., HfGptConfig], tmp_path: Path) -> Callable[..., Path]:
    """A maker of a folder with a model of a class and its tokenizer."""

    def make(model_class: type[PreTrainedModel], **fields: Any) -> Path:
        tokenizer = train_tokenizer(TEXTS * 4, 270, model_max_length=32)
        end = tokenizer.eos_token_id
        config = tiny_config(vocab_size=len(tokenizer), eos_token_id=end, pad_token_id=end, **shape, **fields)
        torch.manual_seed(0)
        model_class(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return make


def test_text_generation_answers_alone_as_in_a_batch_and_may_leave_out_the_prompt(save) -> None:
    folder = save(HfGptForCausalLM)
    generate = pipeline("text-generation", str(folder), device="cpu")
    settings = {"max_new_tokens": 8, "do_sample": False}
    alone = [generate(text, **settings) for text in TEXTS]
    assert generate(TEXTS, batch_size=4, **settings) == alone
    continuations = generate(TEXTS, return_full_text=False, **settings)
    for text, [whole], [continuation] in zip(TEXTS, alone, continuations, strict=True):
        assert whole["generated_text"] == text + continuation["generated_text"]
    # By hand, without pipeline, padding and cache.
    tokenizer, model = AutoTokenizer.from_pretrained(folder), HfGptForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(TEXTS[0])["input_ids"]
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    assert alone[0][0]["generated_text"] == tokenizer.decode(ids, skip_special_tokens=True)


def test_text_generation_draws_as_many_texts_as_asked_for(save) -> None:
    generate = pipeline("text-generation", str(save(HfGptForCausalLM)), device="cpu", dtype=torch.bfloat16)
    assert generate.model.dtype == torch.bfloat16
    torch.manual_seed(0)
    drawn = generate(TEXTS[:2], num_return_sequences=3, do_sample=True, temperature=2.0, max_new_tokens=8)
    assert [len({answer["generated_text"] for answer in answers}) for answers in drawn] == [3, 3]


def test_text_generation_follows_a_chat_template(save) -> None:
    folder = save(HfGptForCausalLM)
    generate = pipeline("text-generation", str(folder), device="cpu")
    generate.tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    chat = [{"role": "user", "content": "the cat"}]
    [answer] = generate(chat, max_new_tokens=4, do_sample=False)
    assert answer["generated_text"][:1] == chat
    assert answer["generated_text"][1]["role"] == "assistant"
    [plain] = generate("the cat ", max_new_tokens=4, do_sample=False, return_full_text=False)
    assert answer["generated_text"][1]["content"] == plain["generated_text"]


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_text_classification_gives_named_classes_their_probabilities(save, problem_type: str) -> None:
    labels = {0: "ham", 1: "spam", 2: "unclear"}
    folder = save(
        HfGptForSequenceClassification,
        num_labels=3,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        problem_type=problem_type,
    )
    classify = pipeline("text-classification", str(folder), device="cpu", top_k=None)
    alone = [classify([text])[0] for text in TEXTS]
    together = classify(TEXTS, batch_size=4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = HfGptForSequenceClassification.from_pretrained(folder).eval()
    for text, single, batched in zip(TEXTS, alone, together, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0]
        probabilities = logits.softmax(-1) if problem_type.startswith("single") else logits.sigmoid()
        expected = {labels[index]: pytest.approx(value, abs=1e-5) for index, value in enumerate(probabilities.tolist())}
        assert {answer["label"]: answer["score"] for answer in single} == expected
        assert {answer["label"]: answer["score"] for answer in batched} == expected


def test_feature_extraction_gives_the_last_hidden_states(save) -> None:
    folder = save(HfGptForCausalLM)
    extract = pipeline("feature-extraction", str(folder), device="cpu")
    [states] = extract(TEXTS[0])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), HfGptForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model.model(torch.tensor([tokenizer(TEXTS[0])["input_ids"]])).last_hidden_state[0]
    torch.testing.assert_close(torch.tensor(states), expected, rtol=0, atol=1e-5)
