"""Every pair of the configuration's options: trains, saves, loads, generates, and travels without hfgpt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from allpairspy import AllPairs
from safetensors.torch import load_file, save_file
from torch import Tensor

from hfgpt import HfGptConfig, HfGptForCausalLM

OPTIONS: dict[str, list[Any]] = {
    "position_embedding_type": ["learned", "rotary", "none"],
    "hidden_act": ["gelu_pytorch_tanh", "gelu", "swiglu"],
    "norm_type": ["layer_norm", "rms_norm"],
    "num_key_value_heads": [4, 2, 1],
    "sliding_window": [None, 5],
    "is_causal": [True, False],
    "qkv_bias": [True, False],
    "use_bias": [True, False],
    "tie_word_embeddings": [True, False],
    "attn_implementation": ["sdpa", "eager"],
    "dropout": [0.0, 0.2],
    "dtype": ["float32", "bfloat16"],
}
COMBINATIONS = [dict(zip(OPTIONS, values, strict=True)) for values in AllPairs(list(OPTIONS.values()))]


def test_every_pair_of_values_is_among_the_combinations() -> None:
    for one, other in ((one, other) for one in OPTIONS for other in OPTIONS if one < other):
        expected = {(repr(a), repr(b)) for a in OPTIONS[one] for b in OPTIONS[other]}
        assert expected == {(repr(fields[one]), repr(fields[other])) for fields in COMBINATIONS}
    assert len(COMBINATIONS) < 30


class Saved(NamedTuple):
    """A model that has learned one step, the folder it was saved to, and what a stranger's process computed with it."""

    model: HfGptForCausalLM
    folder: Path
    logits_of_a_stranger: Tensor


def make_model(tiny_config: Callable[..., HfGptConfig], fields: dict[str, Any]) -> HfGptForCausalLM:
    options = {name: value for name, value in fields.items() if name not in ("dropout", "dtype")}
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), fields["dropout"])
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(**options, **dropouts)).to(getattr(torch, fields["dtype"]))


def train_a_step(model: HfGptForCausalLM, input_ids: Tensor) -> None:
    """One step; every weight must have had a gradient and must have changed."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loss = model.train()(input_ids, labels=input_ids).loss
    assert loss.isfinite()
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    for name, weight in model.named_parameters():
        # A key's bias moves all scores of a query alike, which softmax does not see: its gradient is 0 but for
        # rounding, unless rotary positions turn it.
        assert name.endswith("k_proj.bias") or not torch.equal(weight, before[name]), name
    model.eval()


STRANGER = """
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

folder = Path(sys.argv[1])
input_ids = load_file(folder / "input_ids.safetensors")["input_ids"]
results = {}
for number in range(int(sys.argv[2])):
    model, report = AutoModelForCausalLM.from_pretrained(
        folder / str(number), trust_remote_code=True, output_loading_info=True, attn_implementation="sdpa"
    )
    assert not any(report.values()), report
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        results[str(number)] = model.eval()(input_ids).logits
assert not [name for name in sys.modules if name.split(".")[0] == "hfgpt"]
save_file(results, folder / "results.safetensors")
"""


@pytest.fixture(scope="module")
def input_ids() -> Tensor:
    return torch.randint(97, (3, 14), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_config: Callable[..., HfGptConfig],
    input_ids: Tensor,
    run_without_hfgpt: Callable[..., None],
) -> list[Saved]:
    folder = tmp_path_factory.mktemp("options")
    models = [make_model(tiny_config, fields) for fields in COMBINATIONS]
    for number, model in enumerate(models):
        train_a_step(model, input_ids)
        model.save_pretrained(folder / str(number))
    save_file({"input_ids": input_ids}, folder / "input_ids.safetensors")
    run_without_hfgpt(STRANGER, folder, str(len(models)))
    results = load_file(folder / "results.safetensors")
    return [Saved(model, folder / str(number), results[str(number)]) for number, model in enumerate(models)]


@pytest.fixture(params=range(len(COMBINATIONS)), ids=[" ".join(map(str, c.values())) for c in COMBINATIONS])
def case(request: pytest.FixtureRequest, saved: list[Saved]) -> Saved:
    return saved[request.param]


@torch.no_grad()
def test_what_was_saved_loads_bit_for_bit(case: Saved, input_ids: Tensor) -> None:
    implementation = case.model.config._attn_implementation
    loaded, report = HfGptForCausalLM.from_pretrained(
        case.folder, output_loading_info=True, attn_implementation=implementation
    )
    assert not any(report.values()), report
    assert loaded.dtype == case.model.dtype
    weights = loaded.state_dict()
    assert weights.keys() == case.model.state_dict().keys()
    for name, weight in case.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    assert torch.equal(loaded(input_ids).logits, case.model(input_ids).logits)
    differences = {
        name
        for name in OPTIONS
        if name not in ("dropout", "dtype")
        and getattr(loaded.config, name, None) != getattr(case.model.config, name, None)
    }
    assert not differences


@torch.no_grad()
def test_a_stranger_without_hfgpt_computes_the_same(case: Saved, input_ids: Tensor) -> None:
    case.model.set_attn_implementation("sdpa")
    expected = case.model(input_ids).logits
    assert case.logits_of_a_stranger.dtype == expected.dtype
    assert torch.equal(case.logits_of_a_stranger, expected)


def test_the_cache_changes_no_generated_token(case: Saved, input_ids: Tensor) -> None:
    model = case.model.float()  # in bfloat16 two tokens are often equally good
    mask = torch.ones_like(input_ids)
    mask[0, :5] = 0
    arguments: dict[str, Any] = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    with_cache = model.generate(input_ids, use_cache=True, **arguments)
    assert torch.equal(with_cache, model.generate(input_ids, use_cache=False, **arguments))
    text = input_ids
    for _ in range(12):  # the book's loop (section 4.7)
        with torch.no_grad():
            logits = model(text, attention_mask=torch.nn.functional.pad(mask, (0, text.shape[1] - 14), value=1)).logits
        text = torch.cat([text, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(with_cache, text)
