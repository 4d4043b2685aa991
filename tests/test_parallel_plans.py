"""The declared plans are true: two processes that split the model's weights compute what one does with them whole."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfgpt import HfGptConfig, HfGptForCausalLM

MakeConfig = Callable[..., HfGptConfig]

MODELS: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "llama": {
        "position_embedding_type": "rotary",
        "norm_type": "rms_norm",
        "hidden_act": "swiglu",
        "num_key_value_heads": 2,
        "sliding_window": 5,
        "qkv_bias": False,
        "use_bias": False,
    },
}

# Run by each of two processes, natively as transformers means it: the plan is read while the weights are.
PROGRAM = """
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from hfgpt import HfGptForCausalLM

folder, kind, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
input_ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))


def whole(weight):
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def own(weight):
    return weight.to_local() if isinstance(weight, DTensor) else weight


for name in names:
    model = HfGptForCausalLM.from_pretrained(
        folder / name, distributed_config=DistributedConfig(**{f"{kind}_size": 2})
    )
    assert dist.get_world_size() == 2
    numbers_held = sum(own(weight).numel() for weight in model.parameters())
    outputs = model(input_ids, labels=input_ids)
    outputs.loss.backward()
    gradients = {name: whole(weight.grad) for name, weight in model.named_parameters()}
    results = {
        "logits": whole(outputs.logits).detach(),
        "loss": whole(outputs.loss).detach(),
        "generated": model.generate(input_ids, max_new_tokens=8, do_sample=False, pad_token_id=0),
        "numbers_held": numbers_held,
    }
    torch.save(results | {"gradients": gradients}, folder / f"{name}-{dist.get_rank()}.pt")
    model.save_pretrained(folder / f"{name}-saved")
"""


@pytest.mark.parametrize("kind", ["tp", "fsdp"])
def test_two_processes_that_split_the_weights_compute_what_one_does(
    tiny_config: MakeConfig, tmp_path: Path, kind: str
) -> None:
    models = {}
    for name, fields in MODELS.items():
        torch.manual_seed(0)
        models[name] = HfGptForCausalLM(tiny_config(vocab_size=98, **fields))  # old releases split even ones only
        with torch.no_grad():
            for weight in models[name].parameters():
                weight.add_(torch.randn_like(weight) * 0.1)  # biases and norms too
        models[name].save_pretrained(tmp_path / name)
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    completed = subprocess.run(
        [*launcher, "program.py", ".", kind, *MODELS],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr

    input_ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(0))
    for name, model in models.items():
        expected = model(input_ids, labels=input_ids)
        expected.loss.backward()
        generated = model.generate(input_ids, max_new_tokens=8, do_sample=False, pad_token_id=0)
        for rank in (0, 1):
            results = torch.load(tmp_path / f"{name}-{rank}.pt")
            torch.testing.assert_close(results["logits"], expected.logits.detach(), rtol=0, atol=2e-5)
            torch.testing.assert_close(results["loss"], expected.loss.detach())
            assert torch.equal(results["generated"], generated)
            assert results["numbers_held"] < 0.6 * model.num_parameters()
            assert results["gradients"].keys() == dict(model.named_parameters()).keys()
            for parameter, weight in model.named_parameters():
                torch.testing.assert_close(
                    results["gradients"][parameter], weight.grad, rtol=1e-4, atol=1e-5, msg=parameter
                )
        saved = load_file(tmp_path / f"{name}-saved" / "model.safetensors")
        for parameter, weight in model.named_parameters():
            assert torch.equal(saved[parameter], weight), parameter


def test_every_rule_of_the_plans_names_a_part_of_the_model(tiny_config: MakeConfig) -> None:
    for fields in MODELS.values():
        model = HfGptForCausalLM(tiny_config(**fields))
        modules = {name for name, _ in model.named_modules()}
        for rule in {**model.tp_plan, **model.fsdp_plan}:
            assert rule.replace("*", "1") in modules, rule
        # All products of a layer are split: each linear layer has a rule.
        linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
        assert {rule.replace("*", str(layer)) for rule in model.tp_plan for layer in (0, 1)} >= linear
