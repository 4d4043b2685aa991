"""The loss that computes the head for judged tokens only is the loss of the model, and so are its gradients."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.data.conversation_batches import EncodedConversations, collate_conversations, pack_conversations
from hfgpt.recipes.answer_loss import answer_loss
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import LossModule, start_accelerator, train
from hfgpt.training.memory import _halves
from hfgpt.training.task import Batch, Task

MakeConfig = Callable[..., HfGptConfig]


class Encoded(NamedTuple):
    input_ids: list[int]
    bears_loss: list[bool]


def conversations(number: int = 9, longest: int = 14) -> EncodedConversations:
    """Conversations of which the last third bears loss."""
    chance = random.Random(number)
    made = []
    for _ in range(number):
        length = chance.randint(3, longest)
        mask = [place >= 2 * length // 3 for place in range(length)]
        made.append(Encoded([chance.randrange(1, 97) for _ in range(length)], mask))
    return EncodedConversations(made)


def padded_batch(dataset: Any) -> Batch:
    return collate_conversations([dataset[index] for index in range(len(dataset))], pad_token_id=0)


def plain_loop(model: nn.Module, dataset: EncodedConversations) -> Tensor:
    """Mean loss over the targets, one conversation at a time, from its plain logits."""
    total, number = torch.zeros(()), 0
    for index in range(len(dataset)):
        item = dataset[index]
        logits = model(input_ids=item["input_ids"][None]).logits[0, :-1]
        total = total + F.cross_entropy(logits, item["labels"][1:], ignore_index=-100, reduction="sum")
        number += int((item["labels"][1:] != -100).sum())
    return total / number


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=2e-6, msg=name)


@pytest.fixture(params=["learned", "rotary"])
def model(request: pytest.FixtureRequest, tiny_config: MakeConfig) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(position_embedding_type=request.param))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_batch_has_the_loss_and_gradients_of_its_conversations_alone(
    model: HfGptForCausalLM, packed: bool, attention: str
) -> None:
    model.set_attn_implementation(attention)
    dataset = conversations()
    expected = plain_loop(model, dataset)
    expected_gradients = gradients(model, expected)
    rows = pack_conversations(dataset, row_length=40, seed=0) if packed else dataset
    assert not packed or len(rows) < 4
    loss = answer_loss(model, padded_batch(rows), dataset.num_targets)
    assert_close(loss, expected, rtol=1e-5, atol=0)
    assert_same_gradients(gradients(model, loss), expected_gradients)


def test_a_row_may_be_longer_than_the_context_and_padded_beyond_it(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(max_position_embeddings=14))
    dataset = conversations()
    rows = pack_conversations(dataset, row_length=61, seed=0)
    assert rows.lengths.max() - rows.lengths.min() > 14
    loss = answer_loss(model, padded_batch(rows), dataset.num_targets)
    assert_close(loss, plain_loop(model, dataset), rtol=1e-5, atol=0)


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_losses_of_the_halves_of_a_batch_add_up(model: HfGptForCausalLM, packed: bool) -> None:
    """As the engine cuts it where memory runs out."""
    dataset = conversations()
    batch = padded_batch(pack_conversations(dataset, row_length=20, seed=0) if packed else dataset)
    whole = answer_loss(model, batch, dataset.num_targets)
    halves = [answer_loss(model, half, dataset.num_targets) for half in _halves(batch)]
    assert_close(sum(halves), whole)


def test_it_is_the_loss_that_the_model_itself_gives(model: HfGptForCausalLM) -> None:
    batch, number = padded_batch(conversations()), torch.tensor(17)
    expected = model(**batch, num_items_in_batch=number).loss
    loss = answer_loss(model, batch, number)
    assert_close(loss, expected)
    assert_same_gradients(gradients(model, loss), gradients(model, model(**batch, num_items_in_batch=number).loss))


def test_the_head_is_computed_where_a_label_bears_loss_and_nowhere_else(model: HfGptForCausalLM) -> None:
    rows: list[int] = []
    model.lm_head.register_forward_hook(lambda module, inputs, outputs: rows.append(outputs.shape[0]))
    dataset = conversations()
    answer_loss(model, padded_batch(dataset), 1)
    assert rows == [dataset.num_targets]


def test_a_batch_without_a_target_has_loss_zero_and_gradients_of_zero(model: HfGptForCausalLM) -> None:
    """As a part of a larger batch may have none; every weight then has a gradient, as distribution wants it."""
    batch = padded_batch(conversations())
    batch["shift_labels"].fill_(-100)
    loss = answer_loss(model, batch, 5)
    assert loss.item() == 0
    found = gradients(model, loss)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert all(not gradient.any() for gradient in found.values())


def test_in_a_smaller_number_format_the_loss_is_computed_in_fp32(model: HfGptForCausalLM) -> None:
    batch = padded_batch(conversations())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = answer_loss(model, batch, torch.tensor(20))
        expected = model(**batch, num_items_in_batch=torch.tensor(20)).loss
    assert loss.dtype == torch.float32
    assert_close(loss, expected, rtol=1e-5, atol=0)


# --- What all rows begin with -----------------------------------------------------------------------------------------


def same_beginning(beginning: int = 12, number: int = 8) -> EncodedConversations:
    """Conversations with a common beginning, of which the last tokens bear loss."""
    chance = random.Random(3)
    shared, made = [chance.randrange(1, 97) for _ in range(beginning)], []
    for _ in range(number):
        rest = [chance.randrange(1, 97) for _ in range(chance.randint(4, 12))]
        mask = [False] * (beginning + 3) + [True] * (len(rest) - 3)
        made.append(Encoded([*shared, *rest], mask))
    return EncodedConversations(made)


def tokens_passed(model: HfGptForCausalLM, batch: Batch) -> tuple[Tensor, list[tuple[int, int]]]:
    """The loss, and the sizes of what was passed through the model."""
    sizes: list[tuple[int, int]] = []
    hook = model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, _: sizes.append(tuple(inputs[0].shape))
    )
    loss = answer_loss(model, batch, 1)
    hook.remove()
    return loss, sizes


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("fields", [{}, {"position_embedding_type": "rotary", "num_key_value_heads": 2}])
def test_a_common_beginning_is_passed_once_and_nothing_changes(
    tiny_config: MakeConfig, fields: dict[str, Any], attention: str
) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(attn_implementation=attention, **fields)).train()
    dataset = same_beginning()
    expected = plain_loop(model, dataset)
    expected_gradients = gradients(model, expected)
    batch = padded_batch(dataset)
    loss, sizes = tokens_passed(model, batch)
    assert sizes == [(1, 12), (8, batch["input_ids"].shape[1] - 12)]
    assert_close(loss / dataset.num_targets, expected, rtol=1e-5, atol=0)
    assert_same_gradients(gradients(model, loss / dataset.num_targets), expected_gradients)


def test_what_is_judged_is_not_shared(tiny_config: MakeConfig) -> None:
    """Its label is the next token, in which rows may differ; and each row has its own share in the loss."""
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config())
    ids = [*range(1, 15), 20, 21]
    dataset = EncodedConversations([Encoded([*ids[:-1], 30 + row], [False] * 11 + [True] * 5) for row in range(8)])
    loss, sizes = tokens_passed(model, padded_batch(dataset))
    assert sizes == [(1, 10), (8, 5)]
    assert_close(loss / dataset.num_targets, plain_loop(model, dataset), rtol=1e-5, atol=0)


def test_all_rows_may_be_alike(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config())
    dataset = EncodedConversations([Encoded([*range(1, 15)], [False] * 12 + [True] * 2)] * 8)
    loss, sizes = tokens_passed(model, padded_batch(dataset))
    assert sizes == [(1, 11), (8, 2)]
    assert_close(loss / dataset.num_targets, plain_loop(model, dataset), rtol=1e-5, atol=0)


WHOLE = ["one row", "short beginning", "loss on all", "packed", "checkpointing"]
WHOLE += ["residual_dropout", "attention_dropout", "sliding_window"]


@pytest.mark.parametrize("case", WHOLE)
def test_where_it_would_not_pay_or_not_be_the_same_all_rows_are_passed_whole(
    tiny_config: MakeConfig, case: str
) -> None:
    torch.manual_seed(0)
    fields = {case: 5 if case == "sliding_window" else 0.1} if "_" in case else {}
    model, dataset = HfGptForCausalLM(tiny_config(**fields)).train(), same_beginning()
    if case == "one row":
        dataset = same_beginning(number=1)
    elif case == "short beginning":
        dataset = same_beginning(beginning=4)
    elif case == "loss on all":
        items = [dataset[index]["input_ids"].tolist() for index in range(len(dataset))]
        dataset = EncodedConversations([Encoded(ids, [True] * len(ids)) for ids in items])
    elif case == "checkpointing":
        model.gradient_checkpointing_enable()
    batch = padded_batch(pack_conversations(dataset, row_length=24, seed=0) if case == "packed" else dataset)
    loss, sizes = tokens_passed(model, batch)
    assert sizes == [tuple(batch["input_ids"].shape)]
    if "dropout" in case:
        loss, sizes = tokens_passed(model.eval(), batch)
        assert len(sizes) == 2
    assert_close(loss / dataset.num_targets, plain_loop(model, dataset), rtol=1e-5, atol=0)


# --- In the engine ----------------------------------------------------------------------------------------------------


class Answers(Task):
    """Conversations that are judged on their answers."""

    def __init__(self, train_examples: Any, validation_examples: Any) -> None:
        self.train_examples, self.validation_examples = train_examples, validation_examples

    def lengths(self, examples: Any) -> Sequence[int]:
        return examples.lengths.tolist()

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        return collate_conversations(examples, pad_token_id=0)

    def count_targets(self, batch: Batch) -> int:
        return int((batch["shift_labels"] != -100).sum())

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        return answer_loss(model, batch, num_items_in_batch)  # type: ignore[arg-type]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_compiled_it_gives_the_same_numbers_whatever_the_number_of_targets(
    tiny_config: MakeConfig, packed: bool
) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config())
    dataset = conversations(24)
    examples = pack_conversations(dataset, row_length=30, seed=0) if packed else dataset
    module = LossModule(Answers(examples, examples), model)
    compiled = torch.compile(module)
    for start in range(0, 6, 2):
        batch = collate_conversations([examples[index] for index in range(start, start + 2)], pad_token_id=0)
        expected = gradients(model, module(batch, torch.tensor(7)))
        loss = compiled(batch, torch.tensor(7))
        assert_close(loss, module(batch, torch.tensor(7)), rtol=1e-5, atol=1e-6)
        assert_same_gradients(gradients(model, loss), expected)


def test_the_engine_trains_on_packed_rows_as_on_the_conversations_themselves(tiny_config: MakeConfig, tmp_path) -> None:
    """All of them in one batch, in which the order is of no account."""
    torch.manual_seed(0)
    model, dataset, runs = HfGptForCausalLM(tiny_config()), conversations(12), []
    packed = pack_conversations(dataset, row_length=40, seed=0)
    for examples in (dataset, packed):
        trained = copy.deepcopy(model)
        config = TrainingConfig(
            output_dir=str(tmp_path),
            max_steps=4,
            global_batch_size=len(examples),
            learning_rate=1e-2,
            adam_epsilon=1e-3,  # see the tests of the engine: the keys' bias has a gradient of rounding errors
        )
        run = train(Answers(examples, dataset), trained, config, start_accelerator(config))
        assert run.num_targets == 4 * dataset.num_targets
        runs.append((trained, [evaluation.metrics["loss"] for evaluation in run.evaluations]))
    (one, losses), (other, other_losses) = runs
    assert losses == pytest.approx(other_losses, rel=1e-4)
    assert losses[-1] < losses[0] - 1
    for (name, weight), same in zip(one.named_parameters(), other.parameters(), strict=True):
        assert_close(same, weight, rtol=1e-3, atol=1e-4, msg=name)
