"""The model as a whole: initialisation, outputs, losses, gradients, heads."""

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel
from hfgpt.modeling_hfgpt import causal_lm_loss

MakeConfig = Callable[..., HfGptConfig]
CLASSES = [HfGptModel, HfGptForCausalLM, HfGptForSequenceClassification]


@pytest.fixture
def input_ids() -> Tensor:
    return torch.randint(97, (2, 11), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model(tiny_config: MakeConfig) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config()).eval()


# --- Initialisation ---------------------------------------------------------------------------------------------------


def assert_initialised_like_gpt2(model: PreTrainedModel) -> None:
    """Each matrix has its standard deviation within 5% (each holds at least 256 x 256 numbers, or 5% would be rare)."""
    scaled = 0.02 / math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            assert bool((parameter == 1).all()), name
        elif name.endswith("bias"):
            assert bool((parameter == 0).all()), name
        else:
            expected = scaled if name.endswith(("o_proj.weight", "fc2.weight")) else 0.02
            tolerance = 0.05 if parameter.numel() >= 60_000 else 0.2
            assert parameter.std().item() == pytest.approx(expected, rel=tolerance), name
            assert abs(parameter.mean().item()) < expected / 10, name


@pytest.mark.parametrize(
    "make",
    [*CLASSES, AutoModel.from_config, AutoModelForCausalLM.from_config, AutoModelForSequenceClassification.from_config],
    ids=["base", "lm", "classifier", "auto", "auto-lm", "auto-classifier"],
)
def test_initialisation_is_gpt2_s_with_scaled_residual_projections(
    tiny_config: MakeConfig, make: Callable[[HfGptConfig], PreTrainedModel]
) -> None:
    torch.manual_seed(0)
    assert_initialised_like_gpt2(
        make(tiny_config(hidden_size=256, num_hidden_layers=8, initializer_range=0.02, max_position_embeddings=256))
    )


def test_the_options_begin_like_the_rest(tiny_config: MakeConfig) -> None:
    torch.manual_seed(0)
    options = {"norm_type": "rms_norm", "hidden_act": "swiglu", "num_key_value_heads": 1, "hidden_size": 256}
    model = HfGptForCausalLM(
        tiny_config(num_hidden_layers=8, initializer_range=0.02, max_position_embeddings=256, **options)
    )
    assert_initialised_like_gpt2(model)
    assert {"model.layers.7.mlp.fc_gate.weight", "model.layers.7.input_layernorm.weight"} <= model.state_dict().keys()


def test_a_head_that_a_checkpoint_lacks_is_initialised_and_the_rest_is_not(
    tiny_config: MakeConfig, tmp_path: Any
) -> None:
    torch.manual_seed(0)
    saved = HfGptForCausalLM(tiny_config(hidden_size=256, initializer_range=0.02))
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.fill_(7.0)
    saved.save_pretrained(tmp_path)
    model, report = HfGptForSequenceClassification.from_pretrained(tmp_path, num_labels=256, output_loading_info=True)
    assert set(report["missing_keys"]) == {"score.weight"}
    assert model.score.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(bool((parameter == 7).all()) for parameter in model.model.parameters())


# --- Outputs ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_outputs_have_their_shapes_with_every_layer_s_hidden_states(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    outputs = model(input_ids, output_hidden_states=True)
    assert outputs.loss is None
    assert outputs.logits.shape == (2, 11, 97)
    assert [tuple(hidden.shape) for hidden in outputs.hidden_states] == [(2, 11, 32)] * 3
    assert outputs.attentions is None
    first, last = outputs.hidden_states[0], outputs.hidden_states[-1]
    positions = model.model.embed_positions(torch.arange(11))
    torch.testing.assert_close(first, model.model.embed_tokens(input_ids) + positions)
    assert torch.equal(model.lm_head(last), outputs.logits)
    assert torch.equal(model.model(input_ids).last_hidden_state, last)
    assert model(input_ids).hidden_states is None


@torch.no_grad()
def test_a_tuple_holds_what_the_named_output_holds(tiny_config: MakeConfig, input_ids: Tensor) -> None:
    for model_class in CLASSES:
        model = model_class(tiny_config(attn_implementation="eager")).eval()
        labels = {HfGptForCausalLM: input_ids, HfGptForSequenceClassification: torch.tensor([0, 1])}.get(model_class)
        arguments: dict[str, Any] = {"use_cache": False, "output_hidden_states": True, "output_attentions": True}
        if labels is not None:
            arguments["labels"] = labels
        named, plain = model(input_ids, **arguments), model(input_ids, return_dict=False, **arguments)
        assert isinstance(plain, tuple)
        assert len(plain) == len(named.to_tuple()) == 3 + (labels is not None)
        assert torch.equal(plain[0], named.to_tuple()[0])
        assert [len(group) for group in plain[-2:]] == [3, 2]


@torch.no_grad()
def test_logits_to_keep_are_the_same_logits(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    logits = model(input_ids).logits
    assert torch.equal(model(input_ids, logits_to_keep=0).logits, logits)
    for kept, expected in ((1, logits[:, -1:]), (4, logits[:, -4:]), (torch.tensor([0, 7]), logits[:, [0, 7]])):
        torch.testing.assert_close(model(input_ids, logits_to_keep=kept).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_embeddings_stand_for_their_tokens(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    embeddings = model.get_input_embeddings()(input_ids)
    assert torch.equal(model(inputs_embeds=embeddings).logits, model(input_ids).logits)


@torch.no_grad()
def test_bfloat16_is_near_float32(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    expected = model(input_ids).logits
    model.to(torch.bfloat16)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        logits = model(input_ids).logits
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - expected).norm() / expected.norm() < 0.03


def test_dropout_acts_in_training_only(tiny_config: MakeConfig, input_ids: Tensor) -> None:
    for name in ("embedding_dropout", "attention_dropout", "residual_dropout"):
        for implementation in ("eager", "sdpa"):
            model = HfGptForCausalLM(tiny_config(attn_implementation=implementation, **{name: 0.5}))
            assert not torch.equal(model(input_ids).logits, model(input_ids).logits), name
            model.eval()
            assert torch.equal(model(input_ids).logits, model(input_ids).logits), name


# --- Compiled, checkpointed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position_embedding_type", ["learned", "rotary"])
def test_the_model_compiles_as_one_graph(
    tiny_config: MakeConfig, input_ids: Tensor, position_embedding_type: str
) -> None:
    # "aot_eager" traces forward and backward as any backend would, and spares the minute of a C++ compiler.
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(position_embedding_type=position_embedding_type))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    losses = []
    for forward in (model, compiled):
        model.zero_grad()
        outputs = forward(input_ids, attention_mask=torch.ones_like(input_ids), labels=input_ids, use_cache=False)
        outputs.loss.backward()
        losses.append((outputs.logits, outputs.loss, model.model.embed_tokens.weight.grad.clone()))
    for expected, actual in zip(*losses, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)


@torch.no_grad()
def test_an_exported_model_computes_the_same(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    exported = torch.export.export(model, (input_ids,), {"use_cache": False}, strict=False).module()
    torch.testing.assert_close(exported(input_ids, use_cache=False).logits, model(input_ids).logits)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(
    tiny_config: MakeConfig, input_ids: Tensor, use_reentrant: bool
) -> None:
    for position_embedding_type in ("learned", "rotary"):
        torch.manual_seed(0)
        plain = HfGptForCausalLM(tiny_config(position_embedding_type=position_embedding_type)).train()
        checkpointed = copy.deepcopy(plain)
        checkpointed.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        runs: list[int] = []
        checkpointed.model.layers[0].input_layernorm.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        losses = [model(input_ids, labels=input_ids).loss for model in (plain, checkpointed)]
        assert torch.equal(*losses)
        for loss in losses:
            loss.backward()
        assert len(runs) == 2  # once forward and once more in the backward pass
        for (name, expected), actual in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
            assert expected.grad is not None, name
            torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-6, atol=1e-7, msg=name)


# --- The loss ---------------------------------------------------------------------------------------------------------


def loss_by_hand(logits: Tensor, labels: Tensor) -> float:
    losses = []
    for row, targets in zip(logits.double(), labels.tolist(), strict=True):
        for token, target in enumerate(targets[1:]):
            if target != -100:
                losses.append(float(row[token].logsumexp(-1) - row[token][target]))
    return sum(losses) / len(losses)


def test_loss_is_the_mean_over_judged_tokens(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    labels = input_ids.clone()
    labels[0, :5] = -100
    labels[1, 9:] = -100
    outputs = model(input_ids, labels=labels)
    assert outputs.loss.item() == pytest.approx(loss_by_hand(outputs.logits.detach(), labels), rel=1e-6)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    assert torch.equal(model(input_ids, shift_labels=shifted).loss, outputs.loss)


def test_loss_is_computed_in_float32_whatever_the_model_s_type(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    outputs = model.to(torch.bfloat16)(input_ids, labels=input_ids)
    assert outputs.loss.dtype == torch.float32
    assert outputs.loss.item() == pytest.approx(loss_by_hand(outputs.logits.detach(), input_ids), rel=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_adds_nothing_to_the_loss(model: HfGptForCausalLM, input_ids: Tensor, side: str) -> None:
    labels = input_ids.clone()
    labels[:, 0] = -100  # nothing comes before the first token; padding on the left must not be asked for it
    expected = model(input_ids, labels=labels).loss
    padding = (4, 0) if side == "left" else (0, 4)
    mask = F.pad(torch.ones_like(input_ids), padding)
    padded = model(F.pad(input_ids, padding, value=42), attention_mask=mask, labels=F.pad(labels, padding, value=-100))
    torch.testing.assert_close(padded.loss, expected, rtol=0, atol=1e-5)


def test_ignore_index_can_be_another_label() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.randint(1, 7, (2, 5))
    labels[0, 2], labels[1, 3:] = 0, 0
    expected = causal_lm_loss(logits, labels.masked_fill(labels == 0, -100))
    assert torch.equal(causal_lm_loss(logits, labels, ignore_index=0), expected)


@pytest.mark.parametrize("model_class", [HfGptForCausalLM, HfGptForSequenceClassification])
def test_eight_texts_at_once_are_four_times_two_accumulated(tiny_config: MakeConfig, model_class: type) -> None:
    torch.manual_seed(0)
    model = model_class(tiny_config(num_labels=3))
    input_ids = torch.randint(97, (8, 12))
    if model_class is HfGptForCausalLM:
        labels = input_ids.clone()
        for row in range(8):
            labels[row, : row + 2] = -100  # parts with different numbers of judged tokens
        num_items = (labels[:, 1:] != -100).sum()
    else:
        labels = torch.arange(8) % 3
        num_items = torch.tensor(8)
    whole = model(input_ids, labels=labels).loss
    whole.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for ids, part in zip(input_ids.split(2), labels.split(2), strict=True):
        loss = model(ids, labels=part, num_items_in_batch=num_items).loss
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)


# --- Tied weights and vocabularies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_the_embedding_exactly_if_tied(tiny_config: MakeConfig, tied: bool) -> None:
    model = HfGptForCausalLM(tiny_config(tie_word_embeddings=tied))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(3)
    assert bool((model.lm_head.weight == 3).all()) == tied
    matrix = 97 * 32
    assert model.num_parameters() == HfGptModel(model.config).num_parameters() + (0 if tied else matrix)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [120, 50])
def test_after_a_resize_logits_and_loss_use_the_new_vocabulary(tiny_config: MakeConfig, tied: bool, size: int) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(tie_word_embeddings=tied)).eval()
    kept = min(size, 97)
    input_ids = torch.randint(kept, (2, 9))
    before = model(input_ids).logits
    model.resize_token_embeddings(size)
    assert model.config.vocab_size == size
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    input_ids_and_last = torch.cat([input_ids, torch.full((2, 1), size - 1)], dim=1)
    outputs = model(input_ids_and_last, labels=input_ids_and_last)
    assert outputs.logits.shape == (2, 10, size)
    torch.testing.assert_close(outputs.logits[:, :9, :kept], before[..., :kept], rtol=0, atol=2e-5)
    assert outputs.loss.item() == pytest.approx(loss_by_hand(outputs.logits.detach(), input_ids_and_last), rel=1e-6)
    with pytest.raises(ValueError, match=f"{size} ids"):
        model(torch.tensor([[size]]))


# --- The classifier ---------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier(tiny_config: MakeConfig) -> HfGptForSequenceClassification:
    torch.manual_seed(0)
    # The padding token is also the end token, and may stand inside a text.
    return HfGptForSequenceClassification(tiny_config(num_labels=3, pad_token_id=42, eos_token_id=42)).eval()


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_text_is_judged_at_its_last_real_token_on_either_side_of_the_padding(
    classifier: HfGptForSequenceClassification, side: str
) -> None:
    texts = [torch.tensor([5, 42, 6, 42]), torch.tensor([9]), torch.tensor([1, 2, 3, 4, 5, 6, 7])]
    expected = torch.cat([classifier(text[None]).logits for text in texts])
    rows, masks = [], []
    for text in texts:
        padding = torch.full((7 - len(text),), 42)
        row, mask = [text, padding], [torch.ones_like(text), torch.zeros_like(padding)]
        rows.append(torch.cat(row if side == "right" else row[::-1]))
        masks.append(torch.cat(mask if side == "right" else mask[::-1]))
    logits = classifier(torch.stack(rows), attention_mask=torch.stack(masks)).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    hidden = classifier.model(texts[0][None]).last_hidden_state[:, -1]
    torch.testing.assert_close(expected[:1], hidden @ classifier.score.weight.T)


def test_classification_loss_is_the_mean_cross_entropy(
    classifier: HfGptForSequenceClassification, input_ids: Tensor
) -> None:
    outputs = classifier(input_ids, labels=torch.tensor([2, 0]))
    log_probabilities = outputs.logits.double().log_softmax(-1)
    expected = -(log_probabilities[0, 2] + log_probabilities[1, 0]).item() / 2
    assert outputs.loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("num_labels", "problem_type", "labels"),
    [
        (3, None, torch.tensor([2, 0])),
        (3, "single_label_classification", torch.tensor([1, 1])),
        (3, None, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
        (3, "multi_label_classification", torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])),
        (1, None, torch.tensor([0.5, -2.0])),
        (1, "regression", torch.tensor([[0.5], [-2.0]])),
        (3, "regression", torch.tensor([[0.5, 1.5, 0.0], [-2.0, 1.0, 3.0]])),
    ],
    ids=str,
)
def test_a_classifier_s_loss_is_transformers_for_every_problem_type(
    tiny_config: MakeConfig, input_ids: Tensor, num_labels: int, problem_type: str | None, labels: Tensor
) -> None:
    config = tiny_config(num_labels=num_labels, problem_type=problem_type)
    model = HfGptForSequenceClassification(config).eval()
    outputs = model(input_ids, labels=labels)
    expected = ForSequenceClassificationLoss(labels, outputs.logits, copy.deepcopy(config))
    torch.testing.assert_close(outputs.loss, expected)
    # Parts of a batch, each divided by the labels of the whole, add up to the whole.
    parts = [
        model(input_ids[row : row + 1], labels=labels[row : row + 1], num_items_in_batch=labels.numel()).loss
        for row in (0, 1)
    ]
    torch.testing.assert_close(parts[0] + parts[1], expected)


def test_a_label_that_is_ignored_does_not_count(tiny_config: MakeConfig, input_ids: Tensor) -> None:
    model = HfGptForSequenceClassification(tiny_config(num_labels=3)).eval()
    alone = model(input_ids[:1], labels=torch.tensor([2])).loss
    torch.testing.assert_close(model(input_ids, labels=torch.tensor([2, -100])).loss, alone)


@pytest.mark.parametrize(
    ("fields", "labels", "said"),
    [
        ({"num_labels": 3}, torch.tensor([0]), "(1,), but for single_label_classification they must be (2,)"),
        ({"num_labels": 3}, torch.tensor([0.5, 1.0]), "(2,), but for multi_label_classification they must be (2, 3)"),
        ({"num_labels": 1}, torch.tensor([[0.5, 1.0]]), "(1, 2), but for regression they must be (2, 1)"),
    ],
    ids=["a-row-too-few", "one-number-for-three-labels", "two-numbers-for-one"],
)
def test_a_classifier_refuses_labels_of_another_shape(
    tiny_config: MakeConfig, input_ids: Tensor, fields: dict[str, Any], labels: Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        HfGptForSequenceClassification(tiny_config(**fields))(input_ids, labels=labels)
