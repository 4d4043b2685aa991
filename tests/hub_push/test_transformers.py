"""transformers' own ways to push: `push_to_hub` of model and tokenizer, and its Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments
from transformers.utils import hub as transformers_hub

from hfgpt import HfGptForCausalLM

from .conftest import CODE

if TYPE_CHECKING:
    from tests.hub.server import LoopbackHub

REPO = "tester/model"

OPENS = """
from transformers import pipeline

generate = pipeline("text-generation", model="tester/model", trust_remote_code=True)
assert type(generate.model).__module__.startswith("transformers_modules."), type(generate.model)
print(generate("the cat", max_new_tokens=3, do_sample=False)[0]["generated_text"])
"""

OURS = "---\nlibrary_name: transformers\nlicense: apache-2.0\n---\n\n# Ours\n\n![Loss](loss_curve.png)\n"


@pytest.fixture(autouse=True)
def transformers_asks_this_hub(hub: "LoopbackHub", monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client is made once, with the Hub of the first test that needed it."""
    monkeypatch.setattr(transformers_hub, "_hf_api", None, raising=False)  # younger than our oldest transformers


@pytest.fixture
def with_card(model_folder: Path) -> Path:
    (model_folder / "README.md").write_text(OURS)
    Image.new("RGB", (8, 8)).save(model_folder / "loss_curve.png")
    return model_folder


def test_a_model_pushed_as_it_was_loaded_takes_its_card_along_and_opens_anywhere(
    hub: "LoopbackHub", with_card: Path, run_python: Callable[..., Any]
) -> None:
    HfGptForCausalLM.from_pretrained(with_card).push_to_hub(REPO)
    AutoTokenizer.from_pretrained(with_card).push_to_hub(REPO)
    pushed = hub.repo(REPO)
    assert pushed["README.md"].decode() == OURS
    assert {"loss_curve.png", "model.safetensors", "tokenizer.json", *CODE} <= set(pushed)
    assert len(pushed.commits) == 3  # the first of all, the model's and the tokenizer's
    assert run_python(OPENS, without_hfgpt=True).stdout.startswith("the cat")


def test_the_tokenizer_may_go_first(hub: "LoopbackHub", with_card: Path) -> None:
    AutoTokenizer.from_pretrained(with_card).push_to_hub(REPO)
    HfGptForCausalLM.from_pretrained(with_card).push_to_hub(REPO)
    assert hub.repo(REPO)["README.md"].decode() == OURS


def test_shards_are_compared_too(hub: "LoopbackHub", with_card: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    HfGptForCausalLM.from_pretrained(with_card).save_pretrained(sharded, max_shard_size="10KB")
    (sharded / "README.md").write_text("# Sharded\n")
    HfGptForCausalLM.from_pretrained(sharded).push_to_hub(REPO, max_shard_size="10KB")
    assert hub.repo(REPO)["README.md"].decode() == "# Sharded\n"


def test_a_model_that_has_learned_since_does_not_take_the_card_of_what_it_was(
    hub: "LoopbackHub", with_card: Path
) -> None:
    model = HfGptForCausalLM.from_pretrained(with_card)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.push_to_hub(REPO)
    assert "# Ours" not in hub.repo(REPO)["README.md"].decode()
    assert ModelCard.load(REPO).data.library_name == "transformers"


def test_a_model_that_comes_from_nowhere_takes_no_card_of_the_working_folder(
    hub: "LoopbackHub", with_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_card)
    model = HfGptForCausalLM.from_pretrained(with_card)
    HfGptForCausalLM(model.config.__class__.from_dict(model.config.to_dict())).push_to_hub(REPO)
    assert "# Ours" not in hub.repo(REPO)["README.md"].decode()


def test_a_card_that_the_repository_has_stays(hub: "LoopbackHub", with_card: Path) -> None:
    hub.add_repo(REPO, {"README.md": b"---\nlicense: mit\n---\n# Theirs\n"})
    HfGptForCausalLM.from_pretrained(with_card).push_to_hub(REPO)
    assert "# Theirs" in hub.repo(REPO)["README.md"].decode()


def test_a_made_up_card_is_known_by_transformers_own_words(hub: "LoopbackHub", model_folder: Path) -> None:
    HfGptForCausalLM.from_pretrained(model_folder).push_to_hub(REPO)
    from hfgpt.modeling_hfgpt import MADE_UP

    assert MADE_UP in hub.repo(REPO)["README.md"].decode()


class Texts(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(10) + index
        return {"input_ids": ids, "labels": ids}


@pytest.fixture
def trainer(hub: "LoopbackHub", model_folder: Path, tmp_path: Path) -> Trainer:
    arguments = TrainingArguments(
        str(tmp_path / "trained"),
        push_to_hub=True,
        hub_model_id=REPO,
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=4,
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
    )
    model, tokenizer = HfGptForCausalLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    return Trainer(model, arguments, train_dataset=Texts(), processing_class=tokenizer)


def test_transformers_trainer_pushes_a_folder_that_opens_anywhere(
    hub: "LoopbackHub", trainer: Trainer, run_python: Callable[..., Any]
) -> None:
    trainer.train()
    trainer.push_to_hub()
    assert {"config.json", "model.safetensors", "tokenizer.json", *CODE} <= set(hub.repo(REPO))
    assert run_python(OPENS, without_hfgpt=True).stdout.startswith("the cat")
    ids = torch.tensor([[1, 2, 3]])
    loaded = HfGptForCausalLM.from_pretrained(REPO)
    assert torch.equal(loaded(ids).logits, trainer.model.eval()(ids).logits)
