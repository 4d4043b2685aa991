"""TRL's SFTTrainer as oracle: on the same conversations it trains on the same tokens, and has the same loss."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.chat_templates import encode_conversations, set_chat_template, special_tokens_of
from hfgpt.data.conversation_batches import EncodedConversations, collate_conversations, pack_conversations
from hfgpt.recipes.answer_loss import answer_loss
from hfgpt.tokenization import extend_tokenizer, train_tokenizer

trl = pytest.importorskip("trl", reason="TRL is an extra of the tests")

EXCHANGES: list[tuple[str, str | None, str]] = [
    ("Reverse the word.", "cat", "tac"),
    ("Reverse the word.", "dog", "god"),
    ("Name a colour of the sky, and say in a sentence why it is not always that one.", None, "Blue. At night, none."),
    ("Copy <|endoftext|> as it is.", None, "<|endoftext|>"),
]
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [
        {"role": "user", "content": instruction, "input": material},
        {"role": "assistant", "content": answer, "input": None},
    ]
    for instruction, material, answer in EXCHANGES
]
BATCHES = ([2], [0, 1, 2, 3])  # unpadded and padded


@pytest.fixture(autouse=True)
def hermetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def make_tokenizer(template: str) -> PreTrainedTokenizerFast:
    text = [part for exchange in EXCHANGES for part in exchange if part] * 4
    tokenizer = train_tokenizer(text, vocab_size=300, model_max_length=256)
    if tokens := special_tokens_of(template):
        tokenizer, _ = extend_tokenizer(tokenizer, [], list(tokens))
    set_chat_template(tokenizer, template)
    return tokenizer


@pytest.fixture
def model(tiny_config: Callable[..., HfGptConfig]) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(vocab_size=302, max_position_embeddings=256))


def sft_trainer(
    model: HfGptForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: list[dict[str, Any]],
    folder: Path,
    **options: Any,
) -> Any:
    arguments = trl.SFTConfig(output_dir=str(folder), report_to="none", use_cpu=True, bf16=False, **options)
    return trl.SFTTrainer(model, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)


def as_messages(conversation: list[dict[str, Any]]) -> dict[str, Any]:
    return {"messages": conversation}


def as_prompt_and_completion(conversation: list[dict[str, Any]]) -> dict[str, Any]:
    return {"prompt": conversation[:1], "completion": conversation[1:]}


def assert_same_loss_and_gradients(trainer: Any, rows: list[int], model: HfGptForCausalLM, batch: Any) -> None:
    inputs = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    expected = trainer.compute_loss(model, inputs)
    loss = answer_loss(model, batch, (batch["shift_labels"] != -100).sum())
    assert_close(loss, expected, rtol=1e-5, atol=0)
    found, wanted = (torch.autograd.grad(each, list(model.parameters())) for each in (loss, expected))
    for gradient, same in zip(found, wanted, strict=True):
        assert_close(gradient, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("template", "as_row", "option"),
    [
        ("alpaca", as_messages, "assistant_only_loss"),
        ("phi3", as_messages, "assistant_only_loss"),
        ("chatml", as_messages, "assistant_only_loss"),
        # Of ChatML TRL takes the line break after the end token for a part of the completion.
        ("alpaca", as_prompt_and_completion, "completion_only_loss"),
        ("phi3", as_prompt_and_completion, "completion_only_loss"),
    ],
)
def test_tokens_labels_loss_and_gradients_are_those_of_trl(
    model: HfGptForCausalLM, template: str, as_row: Callable[..., dict[str, Any]], option: str, tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(template)
    trainer = sft_trainer(model, tokenizer, list(map(as_row, CONVERSATIONS)), tmp_path, **{option: True})
    ours = EncodedConversations(encode_conversations(tokenizer, CONVERSATIONS))
    for index, theirs in enumerate(trainer.train_dataset):
        assert ours[index]["input_ids"].tolist() == theirs["input_ids"]
        assert ours[index]["labels"].tolist() == theirs["labels"]
    for rows in BATCHES:
        batch = collate_conversations([ours[row] for row in rows], tokenizer.pad_token_id)
        assert len(rows) == 1 or len(set(ours.lengths[rows])) == len(rows)
        assert_same_loss_and_gradients(trainer, rows, model, batch)


def test_with_loss_on_all_tokens_the_loss_is_that_of_trl(model: HfGptForCausalLM, tmp_path: Path) -> None:
    tokenizer = make_tokenizer("alpaca")
    trainer = sft_trainer(model, tokenizer, list(map(as_messages, CONVERSATIONS)), tmp_path)
    ours = EncodedConversations(encode_conversations(tokenizer, CONVERSATIONS, loss_on="all"))
    batch = collate_conversations([ours[row] for row in BATCHES[1]], tokenizer.pad_token_id)
    assert_same_loss_and_gradients(trainer, BATCHES[1], model, batch)


def test_packed_rows_have_the_loss_that_trl_has_without_padding(model: HfGptForCausalLM, tmp_path: Path) -> None:
    """TRL joins the conversations of a batch in one row, which restarting positions keep apart, too."""
    tokenizer = make_tokenizer("chatml")
    rows = list(map(as_messages, CONVERSATIONS))
    trainer = sft_trainer(
        model, tokenizer, rows, tmp_path, assistant_only_loss=True, padding_free=True, max_length=None
    )
    ours = EncodedConversations(encode_conversations(tokenizer, CONVERSATIONS))
    packed = pack_conversations(ours, row_length=100, seed=0)
    assert 1 < len(packed) < len(ours)
    batch = collate_conversations([packed[row] for row in range(len(packed))], tokenizer.pad_token_id)
    assert_same_loss_and_gradients(trainer, BATCHES[1], model, batch)
