"""transformers' own Trainer and pipelines work on the model as on any of theirs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification

MakeConfig = Callable[..., HfGptConfig]


class Texts(Dataset[dict[str, Any]]):
    """Thirty-two random texts, with fewer judged tokens in some than in others; or with one of three classes each."""

    def __init__(self, kind: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.input_ids = torch.randint(97, (32, 12), generator=generator)
        self.labels = torch.arange(32) % 3
        if kind == "lm":
            self.labels = self.input_ids.clone()
            for number in range(32):
                self.labels[number, : number % 7] = -100

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.input_ids[index], "labels": self.labels[index]}


def train(model: Any, kind: str, folder: Path, batch_size: int, accumulation: int) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=4,
        logging_steps=1,
        save_steps=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
    )
    trainer = Trainer(model, arguments, train_dataset=Texts(kind))
    trainer.train()
    return trainer


@pytest.mark.parametrize(
    ("kind", "model_class", "auto_class"),
    [
        ("lm", HfGptForCausalLM, AutoModelForCausalLM),
        ("classes", HfGptForSequenceClassification, AutoModelForSequenceClassification),
    ],
)
def test_trainer_gets_the_same_losses_however_a_batch_is_accumulated_and_its_checkpoint_loads(
    tiny_config: MakeConfig, tmp_path: Path, kind: str, model_class: Any, auto_class: Any
) -> None:
    losses = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = model_class(tiny_config(num_labels=3, initializer_range=0.02))
        folder = tmp_path / str(batch_size)
        trainer = train(model, kind, folder, batch_size, accumulation)
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        loaded = auto_class.from_pretrained(folder / "checkpoint-4")
        for name, weight in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight), name
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.fixture
def saved(tiny_config: MakeConfig, tmp_path: Path) -> Path:
    """A folder with a model and a tokenizer of ninety-seven words."""
    words = {f"w{number}": number for number in range(97)}
    tokenizer = Tokenizer(models.WordLevel(words, "w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special_tokens = {"unk_token": "w0", "eos_token": "w1", "pad_token": "w1"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens)
    wrapped.save_pretrained(tmp_path)
    torch.manual_seed(0)
    HfGptForCausalLM(tiny_config()).save_pretrained(tmp_path)
    return tmp_path


def test_the_text_generation_pipeline_continues_one_prompt_as_in_a_batch(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate = pipeline("text-generation", str(saved), device="cpu")
    arguments = {"max_new_tokens": 6, "do_sample": False}
    prompts = ["w3 w4", "w5 w6 w7 w8"]
    alone = [generate(prompt, **arguments) for prompt in prompts]
    assert generate(prompts, batch_size=2, **arguments) == alone
    assert alone[0][0]["generated_text"].startswith("w3 w4")
    assert not [record for record in caplog.records if "not supported" in record.getMessage()]
