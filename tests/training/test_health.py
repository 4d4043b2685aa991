"""Steps that would spoil the model are left out, counted and explained; the faults are real ones."""

import json
import math
import os
import random
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.data.order import sample_indices
from hfgpt.errors import UserError
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback
from hfgpt.training.health import SPIKE_LONGEST, SPIKE_WARM_UP, HealthWatch
from hfgpt.training.reports import LossCurve, MetricsLog

RARE = 28  # a token that only the examples named by a test hold
NUM_EXAMPLES, GLOBAL_BATCH_SIZE, SEED = 24, 4, 42
STEPS = NUM_EXAMPLES // GLOBAL_BATCH_SIZE


def examples_of_step(step: int) -> list[int]:
    """The indices of the examples of a step, counted from 1."""
    start = (step - 1) * GLOBAL_BATCH_SIZE
    return sample_indices(SEED, 0, NUM_EXAMPLES, start, start + GLOBAL_BATCH_SIZE).tolist()


def model_with_a_row_of(value: float) -> HfGptForCausalLM:
    """Only sequences that hold the rare token meet the value, for the rows of the head are others."""
    torch.manual_seed(7)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
    model = HfGptForCausalLM(HfGptConfig(vocab_size=29, tie_word_embeddings=False, **sizes, **dropouts))
    with torch.no_grad():
        model.model.embed_tokens.weight[RARE] = value
    return model


@pytest.fixture
def task_with_the_rare_token_in(laboratory):
    """A maker of tasks: in these steps, and in them alone, one of the examples holds the rare token."""

    def make(*steps: int, kind: type | None = None):
        chance = random.Random(3)
        examples = [
            {"index": index, "tokens": [chance.randrange(RARE) for _ in range(chance.randint(3, 11))]}
            for index in range(NUM_EXAMPLES + 5)
        ]
        for step in steps:
            examples[examples_of_step(step)[1]]["tokens"][1] = RARE
        train_examples, validation = (
            laboratory.Examples(part) for part in (examples[:NUM_EXAMPLES], examples[NUM_EXAMPLES:])
        )
        return (kind or laboratory.NextToken)(train_examples, validation)

    return make


@pytest.fixture
def run_training(laboratory):
    """A function that trains with checkpoints, as a recipe does."""

    def run(model, task, callbacks=(), *, resume_from: Path | None = None, **fields: Any):
        fields = {"max_steps": STEPS, "global_batch_size": GLOBAL_BATCH_SIZE, "seed": SEED, "eval_steps": None} | fields
        config = laboratory.config(**fields)
        return train(
            task,
            model,
            config,
            start_accelerator(config),
            callbacks,
            save_model=lambda folder, weights: model.save_pretrained(folder, state_dict=weights),
            resume_from=resume_from,
        )

    return run


class Witness(Callback):
    """Keeps weights and optimizer state as they are after each step."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.states: list[list[torch.Tensor]] = []

    def on_train_begin(self, run) -> None:
        self.states.append(self.state(run))

    def on_step(self, run, report) -> None:
        self.reports.append(report)
        self.states.append(self.state(run))

    @staticmethod
    def state(run) -> list[torch.Tensor]:
        moments = [
            value for state in run.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
        ]
        return [tensor.detach().nan_to_num(nan=99.0) for tensor in (*run.model.parameters(), *moments)]

    def unchanged_by(self, step: int) -> bool:
        before, after = self.states[step - 1 : step + 1]
        return len(before) == len(after) and all(map(torch.equal, before, after))


def messages(caplog, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


# ----------------------------------------------------------------------------------------------------------------------
# Bad steps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.inf, math.nan, 3e38], ids=["inf", "nan", "overflow in the first LayerNorm"])
@pytest.mark.parametrize("micro_batch_size", [4, 1])
def test_a_bad_step_changes_nothing_and_the_run_goes_on(
    task_with_the_rare_token_in, run_training, caplog, value, micro_batch_size
) -> None:
    witness, bad = Witness(), (2, 4, 5)
    task = task_with_the_rare_token_in(*bad)
    run = run_training(model_with_a_row_of(value), task, [witness], micro_batch_size=micro_batch_size)
    assert run.step == STEPS
    assert [report.step for report in witness.reports if report.skipped] == list(bad)
    assert [step for step in range(1, STEPS + 1) if witness.unchanged_by(step)] == list(bad)
    assert (run.health.num_skipped, run.health.num_skipped_in_a_row) == (3, 0)
    assert [message.split(" is left out")[0] for message in messages(caplog, "left out")] == [
        f"step {step}" for step in bad
    ]
    assert "(3 left out so far)" in messages(caplog, "left out")[-1]
    assert math.isfinite(run.evaluations[-1].metrics["loss"])


def test_the_steps_after_a_bad_one_are_those_of_a_run_that_never_met_it(
    task_with_the_rare_token_in, run_training
) -> None:
    """The examples of the bad step are passed over: the learning rate and the order are those of the step's number."""
    model, witness = model_with_a_row_of(math.inf), Witness()
    run_training(model, task_with_the_rare_token_in(1), [witness], max_steps=3)
    alone, clean = model_with_a_row_of(0.0), Witness()

    class LeaveOutTheFirst(Callback):
        def on_step(self, run, report) -> None:
            if report.step == 1:  # undo it
                with torch.no_grad():
                    for weight, before in zip(run.model.parameters(), clean.states[0], strict=False):
                        weight.copy_(before)
                run.optimizer.optimizer.state.clear()

    run_training(alone, task_with_the_rare_token_in(), [clean, LeaveOutTheFirst()], max_steps=3)
    for name, weight in alone.state_dict().items():
        expected = model.state_dict()[name]
        if name == "model.embed_tokens.weight":
            weight, expected = weight[:RARE], expected[:RARE]
        assert torch.equal(weight, expected), name


def with_lengths(base: type) -> type:
    """A task with a well-known fault: the length of a vector of zeros is 0, and its gradient 0 / 0."""

    class WithLengths(base):
        def loss(self, model, batch, num_items_in_batch):
            loss = super().loss(model, batch, num_items_in_batch)
            rows = model.get_input_embeddings()(batch["input_ids"][:, 1])
            return loss + 1e-3 * rows.square().sum(-1).sqrt().sum() / num_items_in_batch

    return WithLengths


def test_gradients_that_are_not_finite_are_found_though_the_loss_is(
    laboratory, task_with_the_rare_token_in, run_training, caplog
) -> None:
    witness = Witness()
    task = task_with_the_rare_token_in(3, kind=with_lengths(laboratory.NextToken))
    run_training(model_with_a_row_of(0.0), task, [witness], weight_decay=0.0)
    report = witness.reports[2]
    assert report.skipped
    assert math.isfinite(report.loss)
    assert math.isnan(report.grad_norm)
    assert [step for step in range(1, STEPS + 1) if witness.unchanged_by(step)] == [3]


@pytest.fixture
def half_precision(monkeypatch) -> torch.amp.GradScaler:
    """The loss scaler of fp16, which works on a CPU; its matrix products are left in fp32, for CPUs have no others."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    start = Accelerator.__init__

    def with_scaler(self, *arguments: Any, **settings: Any) -> None:
        start(self, *arguments, **settings)
        self.scaler, self.native_amp = scaler, True

    monkeypatch.setattr(Accelerator, "__init__", with_scaler)
    monkeypatch.setattr(Accelerator, "mixed_precision", property(lambda self: "fp16"))
    monkeypatch.setattr(
        Accelerator, "prepare", lambda self, model, optimizer: (model, self.prepare_optimizer(optimizer))
    )
    monkeypatch.setattr(Accelerator, "autocast", lambda self: nullcontext())
    return scaler


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_in_fp16_a_bad_step_is_left_out_and_the_next_one_is_taken(
    task_with_the_rare_token_in, run_training, half_precision, value
) -> None:
    witness = Witness()
    run_training(model_with_a_row_of(value), task_with_the_rare_token_in(3), [witness], weight_decay=0.0)
    assert [report.skipped for report in witness.reports] == [step == 3 for step in range(1, STEPS + 1)]
    assert [step for step in range(1, STEPS + 1) if witness.unchanged_by(step)] == [3]
    assert half_precision.get_scale() == 2.0**11


def test_in_fp16_gradients_that_overflow_lower_the_scale_until_they_do_not(
    laboratory, task_with_the_rare_token_in, run_training, half_precision
) -> None:
    """More steps in a row than `max_bad_steps`, for the scale is at fault, and falls."""

    class Overflowing(laboratory.NextToken):
        def loss(self, model, batch, num_items_in_batch):
            loss = super().loss(model, batch, num_items_in_batch)
            if loss.requires_grad:  # not in an evaluation
                loss.register_hook(lambda gradient: torch.where(gradient > 2.0**8, math.inf, gradient))
            return loss

    witness = Witness()
    task = task_with_the_rare_token_in(kind=Overflowing)
    run_training(model_with_a_row_of(0.0), task, [witness], max_bad_steps=2, max_steps=8)
    assert [report.skipped for report in witness.reports] == [True] * 4 + [False] * 4
    assert half_precision.get_scale() == 2.0**8


@pytest.mark.parametrize("kind", ["loss", "gradients"])
def test_in_fp16_what_no_scale_mends_ends_the_run(
    laboratory, task_with_the_rare_token_in, run_training, half_precision, kind
) -> None:
    steps = range(2, STEPS + 1)
    if kind == "loss":
        task, row, max_steps = task_with_the_rare_token_in(*steps), math.nan, STEPS
    else:
        half_precision.load_state_dict(half_precision.state_dict() | {"scale": 2.0})
        task = task_with_the_rare_token_in(*steps, kind=with_lengths(laboratory.NextToken))
        row, max_steps = 0.0, STEPS
    with pytest.raises(UserError, match="not finite in 3 steps in a row, the last of them step 4"):
        run_training(model_with_a_row_of(row), task, max_bad_steps=3, max_steps=max_steps)


# ----------------------------------------------------------------------------------------------------------------------
# The end after several in a row, and its explanation
# ----------------------------------------------------------------------------------------------------------------------


def test_after_max_bad_steps_in_a_row_the_run_ends_with_the_examples_and_the_layer(
    task_with_the_rare_token_in, run_training, laboratory
) -> None:
    """Steps 1, 3, 4 and 5 are bad: the first is alone and does not count among the three in a row."""
    witness = Witness()
    with pytest.raises(UserError) as raised:
        run_training(model_with_a_row_of(3e38), task_with_the_rare_token_in(1, 3, 4, 5), [witness], max_bad_steps=3)
    sentence, folder = str(raised.value), Path(laboratory.output_dir) / "diagnosis-5"
    assert "3 steps in a row, the last of them step 5" in sentence
    assert f"(examples {', '.join(map(str, examples_of_step(5)))})" in sentence
    assert "the first output that is not finite is that of model.layers.0.input_layernorm" in sentence
    assert str(folder) in sentence
    assert [report.step for report in witness.reports] == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [3e38, math.nan], ids=["overflow", "nan"])
def test_the_diagnosis_folder_reproduces_the_bad_step(
    task_with_the_rare_token_in, run_training, laboratory, value
) -> None:
    with pytest.raises(UserError):
        run_training(model_with_a_row_of(value), task_with_the_rare_token_in(2, 3), max_bad_steps=2, micro_batch_size=2)
    folder = Path(laboratory.output_dir) / "diagnosis-3"
    written = torch.load(folder / "rank-0.pt", weights_only=True)
    assert written["examples"] == examples_of_step(3)
    model = HfGptForCausalLM.from_pretrained(folder)
    losses = [model(**batch).loss for batch in written["micro_batches"]]
    assert [bool(loss.isfinite()) for loss in losses] == [False, True]  # the second example is in the first part
    layers: list[str] = []
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda module, given, output, name=name: None if output.isfinite().all() else layers.append(name)
            )
    model(**written["micro_batches"][0])
    assert layers[0] == ("model.embed_tokens" if math.isnan(value) else "model.layers.0.input_layernorm")
    blamed = "the weight model.embed_tokens.weight" if math.isnan(value) else f"is that of {layers[0]}"
    assert blamed in written["found"]


def test_the_first_gradient_that_is_not_finite_is_named(laboratory, task_with_the_rare_token_in, run_training) -> None:
    """By the time the step is judged, clipping by a norm that is no number has spoilt the gradients of all weights."""
    task = task_with_the_rare_token_in(1, kind=with_lengths(laboratory.NextToken))
    with pytest.raises(UserError) as raised:
        run_training(model_with_a_row_of(0.0), task, max_bad_steps=1)
    assert "the first gradient that is not is that of model.embed_tokens.weight" in str(raised.value)


# ----------------------------------------------------------------------------------------------------------------------
# What is written down
# ----------------------------------------------------------------------------------------------------------------------


def strict_json(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_log_lines_without_a_good_step_are_valid_json_and_the_curve_is_drawn(
    task_with_the_rare_token_in, run_training, laboratory
) -> None:
    task = task_with_the_rare_token_in(3, 4, 5)
    callbacks = [MetricsLog(), LossCurve()]
    run_training(model_with_a_row_of(math.inf), task, callbacks, logging_steps=2, save_steps=5, eval_steps=4)
    folder = Path(laboratory.output_dir)
    lines = [strict_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = {line["step"]: line for line in lines if "train_loss" in line}
    assert logged[4]["train_loss"] is None
    assert logged[4]["grad_norm"] is None
    assert [logged[step].get("skipped_steps") for step in (2, 4, 6)] == [None, 2, 1]
    assert math.isfinite(logged[2]["train_loss"])
    assert math.isfinite(logged[6]["train_loss"])
    assert (folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    state = strict_json((folder / "checkpoint-5" / "training_state" / "run.json").read_text())
    assert [report["loss"] for report in state["meter"]["reports"]] == [None]  # step 5: not logged yet, and left out


def test_a_curve_is_drawn_though_no_step_was_good(task_with_the_rare_token_in, run_training, laboratory) -> None:
    task = task_with_the_rare_token_in(1, 2)
    run_training(model_with_a_row_of(math.inf), task, [MetricsLog(), LossCurve()], max_steps=2, logging_steps=1)
    assert (Path(laboratory.output_dir) / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_bad_steps_in_a_row_are_counted_across_an_interruption(
    task_with_the_rare_token_in, run_training, laboratory
) -> None:
    fields = {"max_bad_steps": 3, "save_steps": 4}
    task = task_with_the_rare_token_in(3, 4, 5)
    with pytest.raises(UserError, match="3 steps in a row, the last of them step 5"):
        run_training(model_with_a_row_of(math.inf), task, **fields)
    checkpoint = Path(laboratory.output_dir) / "checkpoint-4"
    with pytest.raises(UserError, match="3 steps in a row, the last of them step 5"):
        run_training(HfGptForCausalLM.from_pretrained(checkpoint), task, resume_from=checkpoint, **fields)


# ----------------------------------------------------------------------------------------------------------------------
# Spikes
# ----------------------------------------------------------------------------------------------------------------------


def falling_loss(step: int, chance: random.Random, *, noise: float) -> float:
    """From 10 down to 3, as a pretraining's, with noise of so many nats."""
    return 3 + 7 * math.exp(-step / 150) + chance.gauss(0, noise)


@pytest.mark.parametrize("noise", [0.001, 0.03, 0.1])
def test_noise_and_a_falling_loss_raise_no_alarm(caplog, noise) -> None:
    """100 runs of 2000 steps: at six deviations not one false alarm is to be expected."""
    chance, watches = random.Random(11), [HealthWatch() for _ in range(100)]
    for watch in watches:
        for step in range(2000):
            assert watch.is_good(step, falling_loss(step, chance, noise=noise), 1.0)
    assert [watch.num_spikes for watch in watches] == [0] * 100
    assert not caplog.records


def test_each_spike_is_told_once_however_long_it_lasts_and_leaves_the_mean_as_it_was(caplog) -> None:
    chance, watch, calm = random.Random(5), HealthWatch(), HealthWatch()
    spikes = {900: 1, 1020: 5, 1200: 20}  # steps and their lengths; before, the fall itself is wider than they are
    high = {step + offset for step, length in spikes.items() for offset in range(length)}
    for step in range(1300):
        loss = falling_loss(step, chance, noise=0.03)
        if step not in high:
            calm.is_good(step, loss, 1.0)
        assert watch.is_good(step, loss + 3 if step in high else loss, 1.0)  # a spike is no reason to leave a step out
    assert [message.split(":")[0] for message in messages(caplog, "leaps")] == [f"step {step}" for step in spikes]
    assert watch.num_spikes == 3
    assert watch.state_dict() == {**calm.state_dict(), "num_spikes": 3}


def test_a_leap_in_the_warm_up_is_not_judged(caplog) -> None:
    watch = HealthWatch()
    for step in range(1, SPIKE_WARM_UP + 1):
        watch.is_good(step, 50.0 if step == SPIKE_WARM_UP else 3.0, 1.0)
    assert not caplog.records
    assert watch.num_spikes == 0


def test_a_loss_that_stays_high_becomes_the_ordinary_one(caplog) -> None:
    watch, chance = HealthWatch(), random.Random(2)
    for step in range(1, 501):
        watch.is_good(step, (3.0 if step <= 200 else 6.0) + chance.gauss(0, 0.03), 1.0)
    assert len(messages(caplog, "leaps")) == 1
    watch.is_good(501, 12.0, 1.0)
    assert re.search(r"from (5\.99|6\.0)", messages(caplog, "leaps")[1])
    assert SPIKE_LONGEST < 300


def test_what_the_watch_knows_survives_json_and_goes_on_alike(caplog) -> None:
    chance, watch = random.Random(1), HealthWatch()
    for step in range(1, 90):
        watch.is_good(step, 3 + chance.gauss(0, 0.1) if step != 40 else math.nan, 1.0)
    watch.is_good(90, 9.0, 1.0)
    resumed = HealthWatch()
    resumed.load_state_dict(strict_json(json.dumps(watch.state_dict())))
    for step in range(91, 200):
        loss = 9.0 if step < 95 else 3 + chance.gauss(0, 0.1)
        for one in (watch, resumed):
            one.is_good(step, loss, 1.0)
    assert resumed.state_dict() == watch.state_dict()
    assert (resumed.num_spikes, resumed.num_skipped) == (1, 1)


# ----------------------------------------------------------------------------------------------------------------------
# Two processes
# ----------------------------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from hfgpt import HfGptForCausalLM
from hfgpt.errors import UserError
from hfgpt.training.config import TrainingConfig
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback
from hfgpt.training.task import Task

folder = Path(sys.argv[1])

class Tokens(Task):
    def __init__(self, examples):
        self.train_examples = self.validation_examples = examples
    def collate(self, examples):
        ids = torch.tensor(examples)
        return {"input_ids": ids, "labels": ids}
    def count_targets(self, batch):
        return batch["labels"][:, 1:].numel()

class Witness(Callback):
    def __init__(self):
        self.skipped, self.weights = [], []
    def on_step(self, run, report):
        self.skipped.append(report.skipped)
        self.weights.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]).nan_to_num(posinf=7))

examples = json.loads((folder / "examples.json").read_text())
task = Tokens(examples)
task.validation_examples = [[1, 2, 3, 4]] * 4
config = TrainingConfig(**json.loads((folder / "config.json").read_text()))
accelerator = start_accelerator(config)
assert accelerator.num_processes == 2
model = HfGptForCausalLM.from_pretrained(folder / "model")
witness = Witness()
said = ""
try:
    train(task, model, config, accelerator, [witness],
          save_model=lambda path, weights: model.save_pretrained(path, state_dict=weights))
except UserError as error:
    said = str(error)
content = {"skipped": witness.skipped, "weights": witness.weights, "said": said}
torch.save(content, folder / f"seen-by-{accelerator.process_index}.pt")
"""


def test_a_step_that_is_bad_on_one_process_is_left_out_on_all(tmp_path) -> None:
    """The rare token stands only in the second process's half of the global batch."""
    model_with_a_row_of(3e38).save_pretrained(tmp_path / "model")
    chance = random.Random(9)
    examples = [[chance.randrange(RARE) for _ in range(8)] for _ in range(NUM_EXAMPLES)]
    for step in (2, 4, 5):
        examples[examples_of_step(step)[-1]][3] = RARE
    config = {"output_dir": str(tmp_path / "run"), "max_steps": STEPS, "seed": SEED, "max_bad_steps": 2}
    config |= {"global_batch_size": GLOBAL_BATCH_SIZE, "save_steps": 100}
    for name, content in (("examples", examples), ("config", config)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.socket() as free:  # a port that nobody uses now
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    completed = subprocess.run(
        [*launcher, str(tmp_path / "program.py"), str(tmp_path)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    first, second = (torch.load(tmp_path / f"seen-by-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["skipped"] == second["skipped"] == [False, True, False, True]  # the fifth ends the run
    for index in range(4):
        assert torch.equal(first["weights"][index], second["weights"][index])
    for index, skipped in enumerate(first["skipped"][1:], start=1):
        assert torch.equal(first["weights"][index], first["weights"][index - 1]) is skipped
    for seen in (first, second):
        assert "2 steps in a row, the last of them step 5" in seen["said"]
        # The first process has met nothing bad itself, and names what the second has found.
        assert "is that of model.layers.0.input_layernorm" in seen["said"]
        assert f"(examples {', '.join(map(str, examples_of_step(5)))})" in seen["said"]
    parts = [torch.load(tmp_path / "run" / "diagnosis-5" / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert parts[0]["examples"] + parts[1]["examples"] == examples_of_step(5)
    assert parts[0]["found"] is None
    assert "model.layers.0.input_layernorm" in parts[1]["found"]
    assert completed.stderr.count("step 2 is left out") == 1
