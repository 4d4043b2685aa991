"""The engine on a GPU: the numbers of the CPU, its number formats, memory that runs out, and a run that goes on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.hub.energy import EnergyMeter
from hfgpt.training.engine import start_accelerator, train
from hfgpt.training.events import Callback

REPOSITORY = Path(__file__).parents[2]


class Losses(Callback):
    """The loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, run: Any, report: Any) -> None:
        self.values.append(report.loss)


def losses_on(laboratory: Any, device: str, monkeypatch: pytest.MonkeyPatch, **fields: Any) -> list[float]:
    """Of a training with these fields on the device, from the same weights and on the same batches."""
    if device == "cpu":
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    losses, config = Losses(), laboratory.config(**fields)
    accelerator = start_accelerator(config)
    assert accelerator.device.type == device
    laboratory.train(laboratory.model(), laboratory.task(), [losses], accelerator, **fields)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    AcceleratorState._reset_state(reset_partial_state=True)
    return losses.values


@pytest.mark.parametrize(
    ("fields", "tolerance"),
    [
        ({"mixed_precision": "no"}, 1e-5),
        ({"mixed_precision": "no", "optimizer": "muon"}, 1e-3),  # whose products are of bf16
        ({"mixed_precision": "no", "micro_batch_size": 2}, 1e-5),
        ({"mixed_precision": "no", "torch_compile": True}, 1e-5),
        ({"mixed_precision": "no", "gradient_checkpointing": True}, 1e-5),
        ({"mixed_precision": "bf16"}, 1e-2),
        ({"mixed_precision": "fp16"}, 1e-2),
    ],
    ids=lambda value: (
        ", ".join(f"{name} {setting}" for name, setting in value.items()) if isinstance(value, dict) else None
    ),
)
def test_the_losses_are_those_of_the_cpu(laboratory, monkeypatch, fields, tolerance) -> None:
    on_cpu = {name: value for name, value in fields.items() if name not in ("mixed_precision", "torch_compile")}
    expected = losses_on(laboratory, "cpu", monkeypatch, **on_cpu, mixed_precision="no")
    assert expected[-1] < expected[0]
    assert losses_on(laboratory, "cuda", monkeypatch, **fields) == pytest.approx(expected, rel=tolerance)


def test_the_format_is_bf16_where_nothing_is_said(laboratory, monkeypatch) -> None:
    assert start_accelerator(laboratory.config()).mixed_precision == "bf16"
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert start_accelerator(laboratory.config()).mixed_precision == "no"


def test_fp16_passes_over_the_steps_that_its_scale_makes_infinite(laboratory, caplog) -> None:
    """A scaler begins at 65,536; a loss of some hundreds overflows with it, and each such step halves it."""
    losses, config = Losses(), laboratory.config(mixed_precision="fp16", max_steps=30, max_bad_steps=30)
    model = laboratory.model()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1000)
    accelerator = start_accelerator(config)
    run = laboratory.train(model, laboratory.task(), [losses], accelerator, **vars(config))
    assert 0 < run.health.num_skipped < 30
    assert "is left out: loss" in caplog.text
    assert accelerator.scaler.get_scale() < 2**16
    assert losses.values[-1] < losses.values[0]


class Wide:
    """A task and model whose memory is in its logits, 33 MB for each example in fp32."""

    def __init__(self, laboratory: Any) -> None:
        self.laboratory = laboratory

    def examples(self, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(8000, (32, 1024), generator=generator).tolist()
        return self.laboratory.Examples([{"index": index, "tokens": row} for index, row in enumerate(tokens)])

    def train(self, **fields: Any) -> tuple[Any, list[float]]:
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 1024}
        no_dropout = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
        model, losses = HfGptForCausalLM(HfGptConfig(vocab_size=8000, **sizes, **no_dropout)), Losses()
        config = self.laboratory.config(global_batch_size=16, max_steps=3, mixed_precision="no", **fields)
        task = self.laboratory.NextToken(self.examples(0), self.examples(1))
        return train(task, model, config, start_accelerator(config), [losses]), losses.values


def test_memory_that_runs_out_halves_the_micro_batch_and_the_training_stays_the_same(laboratory, caplog) -> None:
    def peak(micro_batch_size: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        wide.train(micro_batch_size=micro_batch_size)
        AcceleratorState._reset_state(reset_partial_state=True)
        return torch.cuda.max_memory_reserved()

    wide = Wide(laboratory)
    _, expected = wide.train()
    AcceleratorState._reset_state(reset_partial_state=True)
    between = (peak(16) + peak(8)) / 2
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(between / torch.cuda.get_device_properties(0).total_memory)
    run, losses = wide.train()
    assert run.memory.halvings == 1
    assert "out of memory with 16 examples at once; from now on 8 at once, the global batch as before" in caplog.text
    assert losses == pytest.approx(expected, rel=1e-5)


def test_a_run_that_goes_on_is_bit_for_bit_the_one_that_never_stopped(recipe, monkeypatch) -> None:
    """With dropout, whose masks the GPU draws, and operators that always add in the same order."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        fields = {"save_steps": 2, "keep_last": 5, "model": {**recipe.fields["model"], "attention_dropout": 0.1}}
        recipe.run(**fields)
        straight = load_file(recipe.final / "model.safetensors")
        states = torch.load(
            recipe.output_dir / "checkpoint-2" / "training_state" / "random_states.pt", weights_only=True
        )
        shutil.copytree(recipe.output_dir / "checkpoint-2", recipe.folder / "kept")
        recipe.run("--resume", str(recipe.output_dir / "checkpoint-2"), **fields)
    finally:
        torch.use_deterministic_algorithms(False)
    assert "cuda" in states[0]
    resumed = load_file(recipe.final / "model.safetensors")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(weight, resumed[name]) for name, weight in straight.items())
    before = load_file(recipe.folder / "kept" / "model.safetensors")
    assert not all(torch.equal(weight, before[name]) for name, weight in straight.items())


def test_a_run_of_the_gpu_goes_on_on_the_cpu_and_says_what_differs(recipe, monkeypatch) -> None:
    recipe.run(save_steps=2, keep_last=5)
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    printed = recipe.run("--resume", str(recipe.output_dir / "checkpoint-2"), save_steps=2, keep_last=5)
    assert "Saved on cuda and resumed on cpu: the batches are the same, but dropout draws other masks." in printed


def test_two_processes_train_on_the_cpu_of_a_machine_with_a_gpu(recipe, launch) -> None:
    config = yaml.safe_load((REPOSITORY / "recipes" / "accelerate_configs" / "multi_cpu.yaml").read_text())
    assert config["num_processes"] == 2
    launched = launch.accelerate(
        recipe.folder / "launched",
        REPOSITORY / "recipes" / "accelerate_configs" / "multi_cpu.yaml",
        launch.RECIPE,
        *recipe.arguments(),
        ACCELERATE_USE_CPU="true",
        CUDA_VISIBLE_DEVICES="0",  # one, and two processes
    )
    launched.finish()
    assert sorted(launched.witnesses.values()) == ["0 of 2 on cpu", "1 of 2 on cpu"]


def test_the_energy_of_the_gpu_is_measured() -> None:
    """More than nothing, and no more than any card can draw."""
    meter = EnergyMeter(torch.device("cuda"))
    product = torch.ones(8192, 8192, device="cuda", dtype=torch.bfloat16)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(500):
        product = torch.mm(product, product) / 8192
    end.record()
    torch.cuda.synchronize()
    meter.look()
    [joules] = [value for name, value in meter.joules.items() if not name.startswith("processor")]
    assert 0 < joules / (start.elapsed_time(end) / 1000) < 2000
