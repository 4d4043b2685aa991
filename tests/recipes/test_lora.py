"""Low-rank additions to a language model: what they train, what is saved of them, and how a run goes on with them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.errors import UserError
from hfgpt.recipes.answer_loss import answer_loss
from hfgpt.recipes.lora import (
    UNMERGED_WEIGHTS,
    add_lora_to_language_model,
    describe_trained,
    load_unmerged,
    merged_weights,
    save_unmerged,
)
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.task import Batch, Task

MakeConfig = Callable[..., HfGptConfig]

EMBEDDINGS = {"model.embed_tokens.weight"}


def plain_model(tiny_config: MakeConfig, **fields: Any) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(**fields)).eval()


def with_lora(
    model: HfGptForCausalLM, *, has_new_tokens: bool = False, rank: int = 4, dropout: float = 0.0, zero: bool = False
) -> HfGptForCausalLM:
    """A copy of the model with additions of which no matrix is zero, unless it is to be."""
    model = copy.deepcopy(model)
    add_lora_to_language_model(model, rank, 12, dropout, has_new_tokens=has_new_tokens)
    for name, parameter in model.named_parameters():
        if "lora_B" in name and not zero:
            nn.init.normal_(parameter, std=0.1)
    return model


def token_ids() -> Tensor:
    return torch.randint(97, (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("has_new_tokens", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_head_are_trained_if_they_must_learn_tokens(
    tiny_config: MakeConfig, tied: bool, has_new_tokens: bool
) -> None:
    model = with_lora(plain_model(tiny_config, tie_word_embeddings=tied), has_new_tokens=has_new_tokens)
    matrices = [f"self_attn.{name}_proj" for name in "qkvo"] + ["mlp.fc1", "mlp.fc2"]
    expected = {
        f"model.layers.{layer}.{matrix}.lora_{which}.default.weight"
        for layer in range(2)
        for matrix in matrices
        for which in "AB"
    }
    if has_new_tokens:
        expected |= EMBEDDINGS if tied else EMBEDDINGS | {"lm_head.weight"}
    parameters = dict(model.named_parameters())
    assert {name for name, parameter in parameters.items() if parameter.requires_grad} == expected
    trained, total = (sum(parameters[name].numel() for name in names) for names in (expected, parameters))
    assert describe_trained(model) == f"{trained:,} of {total:,} parameters"


@torch.no_grad()
def test_additions_change_nothing_before_they_are_trained(tiny_config: MakeConfig) -> None:
    plain = plain_model(tiny_config)
    assert torch.equal(with_lora(plain, zero=True)(token_ids()).logits, plain(token_ids()).logits)


@torch.no_grad()
def test_merged_weights_are_those_that_peft_merges(tiny_config: MakeConfig) -> None:
    plain = plain_model(tiny_config, hidden_act="swiglu")
    made = with_lora(plain)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2", "fc_gate"]
    reference = get_peft_model(plain, LoraConfig(r=4, lora_alpha=12, target_modules=targets))
    additions = {name: weight for name, weight in made.state_dict().items() if ".lora_" in name}
    assert not reference.base_model.model.load_state_dict(additions, strict=False).unexpected_keys
    merged = reference.merge_and_unload().state_dict()
    weights = merged_weights(made)
    assert weights.keys() == merged.keys()
    for name, weight in merged.items():
        assert_close(weights[name], weight, rtol=0, atol=1e-6, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_is_a_plain_model(tiny_config: MakeConfig, tied: bool, tmp_path) -> None:
    made = with_lora(plain_model(tiny_config, tie_word_embeddings=tied))
    made.save_pretrained(tmp_path, state_dict=merged_weights(made))
    loaded, report = HfGptForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_close(loaded.eval()(token_ids()).logits, made(token_ids()).logits, rtol=0, atol=1e-5)
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


@torch.no_grad()
def test_a_model_with_additions_generates_as_the_plain_one(tiny_config: MakeConfig) -> None:
    plain = plain_model(tiny_config)
    made = with_lora(plain)
    plain.load_state_dict(merged_weights(made))
    texts = [model.generate(token_ids(), max_new_tokens=8, do_sample=False) for model in (made, plain)]
    assert torch.equal(*texts)


@pytest.mark.parametrize("has_new_tokens", [False, True])
def test_a_training_that_goes_on_from_a_checkpoint_ends_as_if_it_had_never_ended(
    tiny_config: MakeConfig, tmp_path, has_new_tokens: bool
) -> None:
    config = TrainingConfig(
        output_dir=str(tmp_path), max_steps=6, global_batch_size=4, save_steps=3, learning_rate=1e-2, keep_last=9
    )

    def run(model: HfGptForCausalLM, resume_from: Path | None = None) -> dict[str, Tensor]:
        torch.manual_seed(3)
        model = with_lora(model, has_new_tokens=has_new_tokens, dropout=0.1, zero=True)
        if resume_from is not None:
            load_unmerged(model, resume_from)

        def save(folder: Path, weights: dict[str, Tensor]) -> None:
            save_unmerged(model, folder, weights)
            model.save_pretrained(folder, state_dict=merged_weights(model, weights))

        train(Batches(), model, config, start_accelerator(config), save_model=save, resume_from=resume_from)
        return model.state_dict()

    plain = plain_model(tiny_config, residual_dropout=0.1)
    expected = run(plain)
    changed = {name for name, weight in plain.state_dict().items() if not torch.equal(weight, _of(expected, name))}
    assert changed == ({"lm_head.weight"} | EMBEDDINGS if has_new_tokens else set())
    checkpoint = tmp_path / "checkpoint-3"
    resumed = run(HfGptForCausalLM.from_pretrained(checkpoint), checkpoint)
    assert resumed.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(resumed[name], weight), name


def _of(weights: dict[str, Tensor], name: str) -> Tensor:
    """A weight of the plain model, among those of one with additions."""
    module, _, kind = name.rpartition(".")
    return weights[name] if name in weights else weights[f"{module}.base_layer.{kind}"]


class Batches(Task):
    """Rows of random tokens, judged from the fifth on."""

    def __init__(self) -> None:
        rows = torch.randint(97, (12, 9), generator=torch.Generator().manual_seed(2))
        self.train_examples: Any = [{"index": index, "row": row} for index, row in enumerate(rows)]
        self.validation_examples = self.train_examples[:4]

    def collate(self, examples: Any) -> Batch:
        rows = torch.stack([example["row"] for example in examples])
        shift_labels = rows[:, 1:].clone()
        shift_labels[:, :4] = -100
        return {"input_ids": rows[:, :-1], "shift_labels": shift_labels}

    def count_targets(self, batch: Batch) -> int:
        return int((batch["shift_labels"] != -100).sum())

    def loss(self, model: nn.Module, batch: Batch, num_items_in_batch: Tensor) -> Tensor:
        return answer_loss(model, batch, num_items_in_batch)  # type: ignore[arg-type]


# --- What stands beside the weights -----------------------------------------------------------------------------------


def test_without_lora_weights_stay_and_nothing_stands_beside_them(tiny_config: MakeConfig, tmp_path) -> None:
    model = plain_model(tiny_config)
    save_unmerged(model, tmp_path / "checkpoint")
    load_unmerged(model, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()
    weights, own = merged_weights(model), model.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in own.items())


@pytest.mark.parametrize("rank", [None, 2])
def test_a_checkpoint_of_other_additions_is_refused(tiny_config: MakeConfig, tmp_path, rank: int | None) -> None:
    plain = plain_model(tiny_config)
    if rank is not None:
        save_unmerged(with_lora(plain, rank=rank), tmp_path)
    with pytest.raises(UserError, match=UNMERGED_WEIGHTS if rank is None else "other shapes") as error:
        load_unmerged(with_lora(plain), tmp_path)
    assert "\n" not in str(error.value)
