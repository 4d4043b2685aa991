"""What the model refuses, each in one sentence that names the numbers; nothing wrong is computed without a word."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel

MakeConfig = Callable[..., HfGptConfig]
CLASSES = [HfGptModel, HfGptForCausalLM, HfGptForSequenceClassification]


@pytest.fixture
def input_ids() -> Tensor:
    return torch.randint(97, (2, 11), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(tiny_config: MakeConfig) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config()).eval()


@pytest.fixture
def classifier(tiny_config: MakeConfig) -> HfGptForSequenceClassification:
    torch.manual_seed(0)
    return HfGptForSequenceClassification(tiny_config(num_labels=3)).eval()


def one_sentence(error: pytest.ExceptionInfo[ValueError], *parts: object) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith((".", "?"))
    for part in parts:
        assert str(part) in message


@pytest.mark.parametrize("model_class", CLASSES)
def test_a_sequence_longer_than_the_context_is_refused(tiny_config: MakeConfig, model_class: type) -> None:
    model = model_class(tiny_config()).eval()
    assert model(torch.zeros(1, 32, dtype=torch.long)) is not None
    with pytest.raises(ValueError, match="max_position_embeddings") as error:
        model(torch.zeros(1, 33, dtype=torch.long))
    one_sentence(error, 33, 32)
    with pytest.raises(ValueError, match="max_position_embeddings"):
        model(inputs_embeds=torch.zeros(1, 33, 32))
    with pytest.raises(ValueError, match="max_position_embeddings") as error:
        model(torch.zeros(1, 4, dtype=torch.long), position_ids=torch.tensor([[0, 1, 2, 50]]))
    one_sentence(error, 51, 32)


def test_a_packed_row_may_be_longer_than_the_context_but_no_document_may(model: HfGptForCausalLM) -> None:
    documents = [torch.randint(97, (1, length)) for length in (30, 32, 9)]
    positions = torch.cat([torch.arange(document.shape[1]) for document in documents])[None]
    with torch.no_grad():
        logits = model(torch.cat(documents, dim=1), position_ids=positions).logits
        expected = torch.cat([model(document).logits for document in documents], dim=1)
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="33 tokens long, more than max_position_embeddings = 32"):
        model(torch.zeros(1, 36, dtype=torch.long), position_ids=torch.cat([torch.arange(3), torch.arange(33)])[None])


@pytest.mark.parametrize("position_embedding_type", ["learned", "rotary", "none"])
def test_a_cache_counts_towards_the_length(tiny_config: MakeConfig, position_embedding_type: str) -> None:
    model = HfGptForCausalLM(tiny_config(position_embedding_type=position_embedding_type)).eval()
    cache = model(torch.zeros(1, 30, dtype=torch.long)).past_key_values
    with pytest.raises(ValueError, match="33 tokens long, more than max_position_embeddings = 32"):
        model(torch.zeros(1, 3, dtype=torch.long), past_key_values=cache)


@pytest.mark.parametrize("token_id", [97, 50256, -1, -100])
def test_token_ids_outside_the_vocabulary_are_refused(
    tiny_config: MakeConfig, input_ids: Tensor, token_id: int
) -> None:
    input_ids[1, 5] = token_id
    for model_class in CLASSES:
        with pytest.raises(ValueError, match="outside the vocabulary") as error:
            model_class(tiny_config())(input_ids)
        one_sentence(error, token_id, 97)


@pytest.mark.parametrize("shape", [(2,), (2, 10), (3, 11), (2, 11, 1)])
def test_labels_of_another_shape_than_the_tokens_are_refused(
    model: HfGptForCausalLM, input_ids: Tensor, shape: tuple[int, ...]
) -> None:
    for name in ("labels", "shift_labels"):
        with pytest.raises(ValueError, match="Labels") as error:
            model(input_ids, **{name: torch.ones(shape, dtype=torch.long)})
        one_sentence(error, (2, 11))


def test_labels_for_tokens_whose_logits_are_not_kept_are_refused(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    with pytest.raises(ValueError, match="Labels"):
        model(input_ids, labels=input_ids, logits_to_keep=3)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (2, 3)])
def test_class_labels_of_the_wrong_shape_are_refused(
    classifier: HfGptForSequenceClassification, input_ids: Tensor, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="Labels") as error:
        classifier(input_ids, labels=torch.zeros(shape, dtype=torch.long))
    one_sentence(error, shape, (2,))


@pytest.mark.parametrize("model_class", CLASSES)
def test_both_or_neither_of_tokens_and_embeddings_are_refused(
    tiny_config: MakeConfig, input_ids: Tensor, model_class: type
) -> None:
    model = model_class(tiny_config())
    for arguments in ({}, {"input_ids": input_ids, "inputs_embeds": torch.zeros(2, 11, 32)}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds") as error:
            model(**arguments)
        one_sentence(error)


@torch.no_grad()
def test_a_mask_that_leaves_out_the_tokens_in_the_cache_is_refused(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    cache = model(input_ids[:, :6]).past_key_values
    with pytest.raises(ValueError, match="attention_mask"):  # positions would silently begin at 0 again
        model(input_ids[:, 6:], attention_mask=torch.ones(2, 5), past_key_values=cache)
