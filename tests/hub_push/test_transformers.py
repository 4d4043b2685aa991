"""transformers' own Trainer, and a tokenizer's `push_to_hub`: a repository that opens."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import AutoTokenizer, Trainer, TrainingArguments

from hfgpt import HfGptForCausalLM
from hfgpt.hub.present import MADE_UP
from hfgpt.hub.pushing import push

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

READS = """
from transformers import AutoTokenizer

print(AutoTokenizer.from_pretrained("tester/model")("the cat")["input_ids"])
"""


def test_a_tokenizer_by_itself_reads_anywhere_as_before(
    hub: "LoopbackHub", model_folder: Path, run_python: Callable[..., Any]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.push_to_hub(REPO)
    assert MADE_UP in hub.repo(REPO)["README.md"].decode()  # in transformers' own words, by which it is known
    assert run_python(READS, without_hfgpt=True).stdout.splitlines()[-1] == str(tokenizer("the cat")["input_ids"])


class Texts(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.arange(10) + index
        return {"input_ids": ids, "labels": ids}


@pytest.fixture
def make_trainer(hub: "LoopbackHub", model_folder: Path, tmp_path: Path) -> Callable[[str], Trainer]:
    def make(hub_strategy: str) -> Trainer:
        arguments = TrainingArguments(
            str(tmp_path / "trained"),
            push_to_hub=True,
            hub_model_id=REPO,
            hub_strategy=hub_strategy,
            hub_always_push=True,
            max_steps=2,
            save_steps=1,
            per_device_train_batch_size=4,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
        )
        model, tokenizer = HfGptForCausalLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
        return Trainer(model, arguments, train_dataset=Texts(), processing_class=tokenizer)

    return make


def see_that_it_is_the_trained_model(trainer: Trainer, **options: Any) -> None:
    ids = torch.tensor([[1, 2, 3]])
    loaded = HfGptForCausalLM.from_pretrained(REPO, **options)
    assert torch.equal(loaded(ids).logits, trainer.model.eval()(ids).logits)


def test_what_transformers_trainer_pushes_in_the_end_opens_anywhere(
    hub: "LoopbackHub", make_trainer: Callable[[str], Trainer], run_python: Callable[..., Any]
) -> None:
    trainer = make_trainer("end")
    trainer.train()
    trainer.push_to_hub()
    assert {"config.json", "model.safetensors", "tokenizer.json", *CODE} <= set(hub.repo(REPO))
    assert run_python(OPENS, without_hfgpt=True).stdout.startswith("the cat")
    see_that_it_is_the_trained_model(trainer)
    push(trainer.args.output_dir, "tester/searched")
    assert set(hub.repo(REPO)) - set(hub.repo("tester/searched")) == {"training_args.bin"}


@pytest.mark.parametrize("hub_strategy", ["every_save", "checkpoint", "all_checkpoints"])
def test_what_transformers_trainer_pushes_at_a_save_opens_anywhere_if_the_model_was_saved_there_before(
    hub: "LoopbackHub", make_trainer: Callable[[str], Trainer], run_python: Callable[..., Any], hub_strategy: str
) -> None:
    trainer = make_trainer(hub_strategy)
    trainer.model.save_pretrained(trainer.args.output_dir)
    trainer.train()
    assert {"config.json", "model.safetensors", "tokenizer.json", *CODE} <= set(hub.repo(REPO))
    assert run_python(OPENS, without_hfgpt=True).stdout.startswith("the cat")
    see_that_it_is_the_trained_model(trainer)
    folders = {"checkpoint": "last-checkpoint", "all_checkpoints": "checkpoint-2"}
    if hub_strategy in folders:
        assert {f"{folders[hub_strategy]}/{name}" for name in CODE} <= set(hub.repo(REPO))
        see_that_it_is_the_trained_model(trainer, subfolder=folders[hub_strategy])
