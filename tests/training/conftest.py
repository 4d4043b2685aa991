"""What the tests of the training engine share: one process on the CPU, tiny models, a task of random tokens."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback, TrainingRun
from hfgpt.training.task import Batch, Task

VOCAB_SIZE = 29
IGNORED = -100


@pytest.fixture(autouse=True)
def one_process_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts its own accelerator: the state that accelerate keeps for the whole process is cleared."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Examples(Dataset):
    """A list as a map-style data set."""

    def __init__(self, examples: Sequence[dict[str, Any]]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.examples[index]


def random_sequences(count: int, *, seed: int = 0, shortest: int = 3, longest: int = 11) -> Examples:
    """Sequences of random tokens and uneven length."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, size: tuple[int, ...]) -> Tensor:
        return torch.randint(low, high, size, generator=generator)

    lengths = draw(shortest, longest + 1, (count,)).tolist()
    return Examples([{"index": i, "tokens": draw(0, VOCAB_SIZE, (n,)).tolist()} for i, n in enumerate(lengths)])


class NextToken(Task):
    """Predict the next token of sequences of uneven length, padded on the right; remembers what it was given."""

    def __init__(self, train_examples: Any, validation_examples: Any) -> None:
        self.train_examples, self.validation_examples = train_examples, validation_examples
        self.seen: list[list[int]] = []

    def collate(self, examples: Sequence[dict[str, Any]]) -> Batch:
        self.seen.append([example["index"] for example in examples])
        longest = max(len(example["tokens"]) for example in examples)
        input_ids = torch.zeros(len(examples), longest, dtype=torch.long)
        labels = torch.full((len(examples), longest), IGNORED)
        for row, example in enumerate(examples):
            tokens = torch.tensor(example["tokens"])
            input_ids[row, : len(tokens)] = labels[row, : len(tokens)] = tokens
        return {"input_ids": input_ids, "labels": labels}

    def count_targets(self, batch: Batch) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def metrics(self, means: dict[str, float], num_targets: int) -> dict[str, float]:
        return means | {"targets": num_targets}


def tiny_gpt2(dropout: float = 0.0) -> GPT2LMHeadModel:
    dropouts = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    special = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB_SIZE, n_embd=16, n_layer=2, n_head=2, n_positions=16, **dropouts, **special)
    )


def tiny_hfgpt(dropout: float = 0.0) -> HfGptForCausalLM:
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), dropout)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    return HfGptForCausalLM(HfGptConfig(vocab_size=VOCAB_SIZE, **sizes, **dropouts))


MODELS: dict[str, Callable[[float], nn.Module]] = {"transformers' GPT-2": tiny_gpt2, "hfgpt": tiny_hfgpt}


class Laboratory:
    """Everything that a test of the engine needs, so that the tests name only what they are about."""

    Examples = Examples
    NextToken = NextToken
    random_sequences = staticmethod(random_sequences)

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir

    def config(self, **fields: Any) -> TrainingConfig:
        # The gradient of the keys' bias is zero but for rounding (softmax does not see it). With AdamW's usual epsilon
        # that rounding would be scaled up to steps of full size, and no two ways of computing would agree.
        defaults = {
            "max_steps": 6,
            "global_batch_size": 8,
            "learning_rate": 1e-2,
            "adam_epsilon": 1e-3,
            "eval_steps": 3,
        }
        return TrainingConfig(**{"output_dir": self.output_dir, **defaults, **fields})

    def task(self, num_train: int = 24, num_validation: int = 11) -> NextToken:
        return NextToken(random_sequences(num_train), random_sequences(num_validation, seed=1))

    def model(self, name: str = "hfgpt", *, dropout: float = 0.0, seed: int = 7) -> nn.Module:
        torch.manual_seed(seed)
        return MODELS[name](dropout)

    def train(
        self,
        model: nn.Module,
        task: Task | None = None,
        callbacks: Sequence[Callback] = (),
        accelerator: Accelerator | None = None,
        **fields: Any,
    ) -> TrainingRun:
        config = self.config(**fields)
        torch.manual_seed(config.seed)  # of the dropout
        return train(task or self.task(), model, config, accelerator or start_accelerator(config), callbacks)

    @staticmethod
    def mean_loss(model: nn.Module, examples: Examples) -> tuple[float, int]:
        """Mean loss and number of targets, one sequence at a time."""
        model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for example in examples.examples:
                tokens = torch.tensor([example["tokens"]])
                logits = model(input_ids=tokens).logits[0, :-1].double()
                total += F.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
                count += tokens.shape[1] - 1
        return total / count, count


@pytest.fixture
def laboratory(tmp_path) -> Laboratory:
    return Laboratory(str(tmp_path))


@pytest.fixture(params=MODELS)
def model_name(request: pytest.FixtureRequest) -> str:
    return request.param
