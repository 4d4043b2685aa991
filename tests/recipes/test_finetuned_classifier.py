"""A classifier of which a part is trained computes what the plain model computes, and trains that part only."""

import builtins
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from allpairspy import AllPairs
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close

from hfgpt import HfGptConfig, HfGptForSequenceClassification
from hfgpt.errors import UserError
from hfgpt.recipes.finetuned_classifier import FinetunedClassifier, weighted_cross_entropy
from hfgpt.recipes.lora import load_unmerged, save_unmerged
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.task import Task

MakeConfig = Callable[..., HfGptConfig]

TRAINABLE = ["head", "last_block", "last_n_blocks", "all", "lora"]
OPTIONS: dict[str, list[Any]] = {
    "trainable": TRAINABLE,
    "classifier_pooling": ["last_token", "first_token", "mean"],
    "position_embedding_type": ["learned", "rotary", "none"],
    "hidden_act": ["gelu_pytorch_tanh", "swiglu"],
    "norm_type": ["layer_norm", "rms_norm"],
    "num_key_value_heads": [4, 2, 1],
    "sliding_window": [None, 4],
    "is_causal": [True, False],
    "qkv_bias": [True, False],
    "use_bias": [True, False],
    "attn_implementation": ["sdpa", "eager"],
    "padding": ["right", "left", "gaps", "none"],
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in AllPairs(list(OPTIONS.values()))]
COMBINATIONS += [  # three that matter together: what is masked in between moves a token's rotary place
    {"trainable": "last_block", "classifier_pooling": pooling, "position_embedding_type": "rotary", "padding": "gaps"}
    for pooling in ("last_token", "first_token")
]


def plain_model(tiny_config: MakeConfig, **fields: Any) -> HfGptForSequenceClassification:
    torch.manual_seed(0)
    config = tiny_config(num_hidden_layers=3, num_labels=3, initializer_range=0.1, **fields)
    model = HfGptForSequenceClassification(config).eval()
    for parameter in model.parameters():  # biases and norms, too, leave nothing to chance
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.1)
    return model


def classifier(
    tiny_config: MakeConfig, trainable: str, **fields: Any
) -> tuple[FinetunedClassifier, HfGptForSequenceClassification]:
    """The classifier, LoRA's additions not zero; and the plain model that it was made from, LoRA merged."""
    plain = plain_model(tiny_config, **fields)
    made = FinetunedClassifier(copy.deepcopy(plain), trainable, lora_rank=4, lora_alpha=12)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    plain.load_state_dict(made.plain_weights())
    return made, plain


def batch(padding: str = "right") -> dict[str, Tensor]:
    """Four texts of 2 to 9 tokens, padded on a side or, with gaps, between them, too; or, unpadded, of 9."""
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(97, (length,), generator=generator) for length in (5, 9, 2, 7)]
    labels = torch.tensor([0, 2, 1, 2])
    if padding == "none":
        return {"input_ids": torch.randint(97, (4, 9), generator=generator), "labels": labels}
    input_ids, mask = torch.full((4, 11), 3), torch.zeros(4, 11, dtype=torch.long)
    for row, text in enumerate(texts):
        places = {"right": range(len(text)), "left": range(11 - len(text), 11), "gaps": range(1, 11)}[padding]
        place = sorted(torch.tensor(places)[torch.randperm(len(places), generator=generator)][: len(text)].tolist())
        input_ids[row, place], mask[row, place] = text, 1
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("options", COMBINATIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_logits_loss_and_gradients_are_those_of_the_plain_model(
    tiny_config: MakeConfig, options: dict[str, Any]
) -> None:
    options = dict(options)
    trainable, padding = options.pop("trainable"), options.pop("padding")
    made, plain = classifier(tiny_config, trainable, **options)
    inputs = batch(padding)
    expected = plain(**inputs)
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in plain.named_parameters()}
    states = {}
    if made.num_frozen_blocks is not None:
        states = {name: value for name, value in inputs.items() if name != "input_ids"}
        states["trunk_states"] = made.trunk_states(inputs["input_ids"], inputs.get("attention_mask"))
    for arguments in (inputs, states) if states else (inputs,):
        made.zero_grad()
        outputs = made.train()(**arguments)
        assert_close(outputs.logits, expected.logits, rtol=0, atol=1e-5)
        assert_close(outputs.loss, expected.loss, rtol=0, atol=1e-5)
        outputs.loss.backward()
        for name, parameter in made.named_parameters():
            assert (parameter.grad is None) != parameter.requires_grad, name
            if parameter.requires_grad and "lora" not in name:
                assert_close(parameter.grad, gradients[name.removeprefix("model.")], rtol=1e-4, atol=1e-5, msg=name)


def trained_names(made: FinetunedClassifier) -> set[str]:
    return {name for name, parameter in made.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("trainable", TRAINABLE)
def test_what_is_trained_is_what_was_asked_for(tiny_config: MakeConfig, trainable: str) -> None:
    made, _ = classifier(tiny_config, trainable)
    prefixes = {
        "head": ("model.score.",),
        "last_block": ("model.score.", "model.model.norm.", "model.model.layers.2."),
        "last_n_blocks": ("model.score.", "model.model.norm.", "model.model.layers.1.", "model.model.layers.2."),
        "all": ("model.",),
    }
    if trainable == "lora":
        matrices = [f"self_attn.{name}_proj" for name in "qkvo"] + ["mlp.fc1", "mlp.fc2"]
        expected = {
            f"model.model.layers.{layer}.{matrix}.lora_{which}.default.weight"
            for layer in range(3)
            for matrix in matrices
            for which in "AB"
        } | {"model.score.weight"}
    else:
        expected = {name for name, _ in made.named_parameters() if name.startswith(prefixes[trainable])}
        assert len(expected) == {"head": 1, "last_block": 19, "last_n_blocks": 35, "all": 53}[trainable]
    assert trained_names(made) == expected
    count = sum(parameter.numel() for name, parameter in made.named_parameters() if name in expected)
    assert f": {count:,} of {sum(parameter.numel() for parameter in made.parameters()):,} " in made.describe()


@pytest.mark.parametrize("trainable", ["head", "last_block", "last_n_blocks"])
def test_the_trunk_has_no_dropout_and_no_graph_whatever_mode_is_set(tiny_config: MakeConfig, trainable: str) -> None:
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.5)
    made, plain = classifier(tiny_config, trainable, **dropouts)
    inputs = batch()
    text = (inputs["input_ids"], inputs["attention_mask"])
    made.eval()
    expected = made.trunk_states(*text)
    trunk = {"head": plain.model.layers, "last_block": plain.model.layers[:2], "last_n_blocks": plain.model.layers[:1]}
    for set_mode in (made.train, made.eval, made.model.train, made.model.model.train):
        set_mode()
        states = made.trunk_states(*text)
        assert torch.equal(states, expected)
        assert not states.requires_grad
        frozen = made.model.model.layers[: len(trunk[trainable])]
        assert not any(module.training for module in frozen.modules() if module is not frozen)
        assert not made.model.model.embedding_dropout.training
    made.model.model.layers[0].mlp.fc1.weight.requires_grad_(True)  # whoever asks for it
    assert not made.trunk_states(*text).requires_grad
    made.train()
    assert made.model.model.layers[2].training == (trainable != "head")
    same = torch.equal(made(*text).logits, made(*text).logits)
    assert same == (trainable == "head")  # which has no dropout of its own


def test_the_states_are_those_that_the_first_trained_block_takes(tiny_config: MakeConfig) -> None:
    inputs = batch()
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for trainable, layer in (("last_block", 2), ("last_n_blocks", 1)):
        made, plain = classifier(tiny_config, trainable)
        hidden_states = plain(**text, output_hidden_states=True).hidden_states
        assert_close(made.trunk_states(**text), hidden_states[layer].detach(), rtol=0, atol=0)
    made, plain = classifier(tiny_config, "head")
    assert_close(made.trunk_states(**text) @ plain.score.weight.T, plain(**text).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("trainable", ["all", "lora"])
def test_without_a_trunk_there_are_no_states(tiny_config: MakeConfig, trainable: str) -> None:
    made, _ = classifier(tiny_config, trainable)
    with pytest.raises(ValueError, match=f"trainable = '{trainable}' there is no frozen trunk"):
        made.trunk_states(batch()["input_ids"])


@pytest.mark.parametrize("dropout", ["attention_dropout", "residual_dropout"])
@torch.no_grad()
def test_dropout_of_the_last_block_is_that_of_the_plain_model(tiny_config: MakeConfig, dropout: str) -> None:
    """Masks differ, so that mean and spread of many draws are compared."""
    made, plain = classifier(tiny_config, "last_block", **{dropout: 0.3})
    inputs = {name: tensor[:1].expand(4096, -1) for name, tensor in batch().items() if name != "labels"}
    states = made.trunk_states(**inputs)
    drawn = made.train()(trunk_states=states, attention_mask=inputs["attention_mask"]).logits
    plain.model.layers[2].train()
    expected = plain(**inputs).logits
    assert drawn.std(dim=0).min() > 0.002
    assert_close(drawn.mean(dim=0), expected.mean(dim=0), rtol=0, atol=4 * float(expected.std(dim=0).max()) / 4096**0.5)
    assert_close(drawn.std(dim=0), expected.std(dim=0), rtol=0.1, atol=0)


# --- The loss ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_the_whole_batch_however_it_is_cut(tiny_config: MakeConfig) -> None:
    made, _ = classifier(tiny_config, "last_block")
    inputs, weights = batch(), torch.tensor([0.5, 2.0, 1.5])
    whole = made(**inputs, class_weights=weights)
    chosen = F.log_softmax(whole.logits, dim=-1)[torch.arange(4), inputs["labels"]]
    by_hand = -(weights[inputs["labels"]] * chosen).sum()
    assert_close(whole.loss, by_hand / 4)
    halves = [{name: value[part] for name, value in inputs.items()} for part in (slice(1), slice(1, None))]
    parts = [made(**half, class_weights=weights, num_items_in_batch=torch.tensor(4)).loss for half in halves]
    assert_close(sum(parts), whole.loss)


def test_labels_that_are_left_out_bear_no_loss() -> None:
    logits = torch.randn(3, 2)
    expected = F.cross_entropy(logits[:2], torch.tensor([1, 0]))
    assert_close(weighted_cross_entropy(logits, torch.tensor([1, 0, -100])), expected)
    assert_close(weighted_cross_entropy(logits.bfloat16(), torch.tensor([1, 0, -100])), expected, rtol=1e-2, atol=1e-2)


# --- Saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", TRAINABLE)
@torch.no_grad()
def test_what_is_saved_is_a_plain_model(tiny_config: MakeConfig, trainable: str, tmp_path) -> None:
    made, plain = classifier(tiny_config, trainable)
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    expected = plain(**batch()).logits
    nn.init.zeros_(made.model.score.weight)  # training goes on while the copy is saved
    made.model.save_pretrained(tmp_path, state_dict=made.plain_weights(weights))
    loaded, report = HfGptForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_close(loaded.eval()(**batch()).logits, expected, rtol=0, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        *(f"{name}_hfgpt.py" for name in ("configuration", "conversion", "modeling", "pooling")),
    }


@torch.no_grad()
def test_merged_weights_are_those_that_peft_merges(tiny_config: MakeConfig) -> None:
    made, _ = classifier(tiny_config, "lora", hidden_act="swiglu")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "fc_gate"]
    config = LoraConfig(r=4, lora_alpha=12, target_modules=targets)
    reference = get_peft_model(plain_model(tiny_config, hidden_act="swiglu"), config)
    additions = {name: weight for name, weight in made.state_dict().items() if ".lora_" in name}
    result = reference.base_model.load_state_dict(additions, strict=False)
    assert not result.unexpected_keys
    merged = reference.merge_and_unload().state_dict()
    plain = made.plain_weights()
    assert plain.keys() == merged.keys()
    for name, weight in merged.items():
        assert_close(plain[name], weight, rtol=0, atol=1e-6, msg=name)


def test_lora_goes_on_bit_for_bit_from_what_is_saved_beside_the_merged_weights(
    tiny_config: MakeConfig, tmp_path
) -> None:
    made, _ = classifier(tiny_config, "lora")
    weights = {name: weight.clone() for name, weight in made.state_dict().items()}
    made.model.save_pretrained(tmp_path, state_dict=made.plain_weights(weights))
    save_unmerged(made, tmp_path, weights)
    torch.manual_seed(99)
    again = FinetunedClassifier(
        HfGptForSequenceClassification.from_pretrained(tmp_path), "lora", lora_rank=4, lora_alpha=12
    )
    load_unmerged(again, tmp_path)
    assert again.state_dict().keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(again.state_dict()[name], weight), name
    assert trained_names(again) == trained_names(made)


@pytest.mark.parametrize("trainable", ["last_block", "lora"])
def test_a_training_that_goes_on_from_a_checkpoint_ends_as_if_it_had_never_ended(
    tiny_config: MakeConfig, tmp_path, trainable: str
) -> None:
    dropouts = dict.fromkeys(("attention_dropout", "residual_dropout"), 0.1)
    config = TrainingConfig(
        output_dir=str(tmp_path), max_steps=6, global_batch_size=4, save_steps=3, learning_rate=1e-2, keep_last=9
    )

    def run(model: HfGptForSequenceClassification, resume_from: Path | None = None) -> dict[str, Tensor]:
        torch.manual_seed(3)
        made = FinetunedClassifier(model, trainable, lora_rank=4, lora_alpha=12, lora_dropout=0.1)
        if resume_from is not None:
            load_unmerged(made, resume_from)

        def save(folder: Path, weights: dict[str, Tensor]) -> None:
            save_unmerged(made, folder, weights)
            made.model.save_pretrained(folder, state_dict=made.plain_weights(weights))

        train(Batches(), made, config, start_accelerator(config), save_model=save, resume_from=resume_from)
        return made.state_dict()

    expected = run(plain_model(tiny_config, **dropouts))
    checkpoint = tmp_path / "checkpoint-3"
    resumed = run(HfGptForSequenceClassification.from_pretrained(checkpoint), checkpoint)
    assert resumed.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(resumed[name], weight), name


class Batches(Task):
    """Texts of one length, of which the rows of `batch("none")` are four."""

    unit = "texts"

    def __init__(self) -> None:
        inputs = batch("none")
        examples = [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
        self.train_examples: Any = examples * 3
        self.validation_examples: Any = examples

    def collate(self, examples: Any) -> dict[str, Tensor]:
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    def count_targets(self, batch: dict[str, Tensor]) -> int:
        return len(batch["labels"])


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_lora_without_peft_says_what_to_install(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_peft(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "peft":
            raise ImportError("No module named 'peft'")
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    FinetunedClassifier(plain_model(tiny_config), "all")
    with pytest.raises(UserError, match=r"pip install 'hfgpt\[lora\]'"):
        FinetunedClassifier(plain_model(tiny_config), "lora")


@pytest.mark.parametrize("blocks", [0, 4])
def test_more_blocks_than_there_are_are_refused(tiny_config: MakeConfig, blocks: int) -> None:
    with pytest.raises(UserError, match=f"num_trainable_blocks is {blocks}, but the model has 3 blocks"):
        FinetunedClassifier(plain_model(tiny_config), "last_n_blocks", num_trainable_blocks=blocks)


def test_one_class_is_refused(tiny_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="two classes or more"):
        FinetunedClassifier(HfGptForSequenceClassification(tiny_config(num_labels=1)), "all")


def test_both_or_neither_of_tokens_and_states_are_refused(tiny_config: MakeConfig) -> None:
    made, _ = classifier(tiny_config, "last_block")
    ids = batch()["input_ids"]
    for arguments in ({}, {"input_ids": ids, "trunk_states": made.trunk_states(ids)}):
        with pytest.raises(ValueError, match="exactly one of input_ids and trunk_states"):
            made(**arguments)


@pytest.mark.parametrize("trainable", ["last_n_blocks", "all", "lora"])
def test_recomputing_activations_changes_no_gradient(tiny_config: MakeConfig, trainable: str) -> None:
    made, _ = classifier(tiny_config, trainable)
    made.train()(**batch()).loss.backward()
    gradients = {name: parameter.grad for name, parameter in made.named_parameters()}
    made.zero_grad()
    made.gradient_checkpointing_enable()
    made(**batch()).loss.backward()
    for name, parameter in made.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None), name
        if parameter.grad is not None:
            assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-7, msg=name)
