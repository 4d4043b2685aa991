"""AdamW's groups and steps, and the learning rate over the steps."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hfgpt.training.config import TrainingConfig
from hfgpt.training.optimization import build_optimizer, learning_rate_at, parameter_groups


def config(**fields) -> TrainingConfig:
    return TrainingConfig(**{"output_dir": "unused", "max_steps": 1, **fields})


def test_every_parameter_stands_in_exactly_one_group(laboratory, model_name) -> None:
    model = laboratory.model(model_name)
    grouped = [parameter for group in parameter_groups(model.parameters(), 0.1) for parameter in group["params"]]
    assert len({id(parameter) for parameter in grouped}) == len(grouped)
    assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}


def test_matrices_decay_and_biases_and_norms_do_not(laboratory, model_name) -> None:
    model = laboratory.model(model_name)
    groups = parameter_groups(model.parameters(), 0.1)
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        is_bias_or_norm = name.endswith(".bias") or "norm" in name or ".ln_" in name
        assert decays[id(parameter)] == (0.0 if is_bias_or_norm else 0.1), name


def test_a_tied_weight_is_stepped_once(laboratory) -> None:
    model = laboratory.model("hfgpt")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    grouped = [parameter for group in parameter_groups(model.parameters(), 0.1) for parameter in group["params"]]
    assert sum(parameter is model.lm_head.weight for parameter in grouped) == 1


def test_frozen_parameters_are_left_out(laboratory) -> None:
    model = laboratory.model("hfgpt")
    model.model.embed_tokens.weight.requires_grad_(False)
    grouped = [parameter for group in parameter_groups(model.parameters(), 0.1) for parameter in group["params"]]
    assert not any(parameter is model.model.embed_tokens.weight for parameter in grouped)


def test_the_optimizer_is_adamw_as_its_paper_writes_it(laboratory) -> None:
    """Loshchilov & Hutter 2019, algorithm 2, with plain arithmetic in double precision."""
    model = laboratory.model("hfgpt").double()
    settings = config(learning_rate=0.01, weight_decay=0.3, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=1e-6)
    optimizer = build_optimizer(model, settings)
    expected = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    means = {name: torch.zeros_like(value) for name, value in expected.items()}
    squares = {name: torch.zeros_like(value) for name, value in expected.items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 6):
        tokens = torch.randint(0, model.config.vocab_size, (4, 9), generator=generator)
        model.zero_grad()
        F.cross_entropy(model(tokens).logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad
            means[name] = 0.8 * means[name] + 0.2 * gradient
            squares[name] = 0.9 * squares[name] + 0.1 * gradient**2
            mean, square = means[name] / (1 - 0.8**step), squares[name] / (1 - 0.9**step)
            decay = 0.3 if parameter.ndim >= 2 else 0.0
            expected[name] = expected[name] * (1 - 0.01 * decay) - 0.01 * mean / (square.sqrt() + 1e-6)
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12, msg=name)


def schedule(num_steps: int, **fields) -> list[float]:
    settings = config(**fields)
    return [learning_rate_at(step, num_steps, settings) for step in range(num_steps)]


def test_the_warm_up_rises_in_equal_steps_from_above_zero_to_the_peak() -> None:
    rates = schedule(20, learning_rate=1.0, warmup_steps=4)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert max(rates) == 1.0


@pytest.mark.parametrize(
    ("shape", "halfway"), [("cosine", (1.0 + 0.2) / 2), ("linear", (1.0 + 0.2) / 2), ("constant", 1.0)]
)
def test_the_shapes_pass_through_their_closed_forms(shape: str, halfway: float) -> None:
    rates = schedule(14, learning_rate=1.0, min_learning_rate=0.2, warmup_steps=3, lr_scheduler_type=shape)
    assert rates[3] == pytest.approx(1.0)
    assert rates[8] == pytest.approx(halfway)
    assert rates[13] == pytest.approx(1.0 if shape == "constant" else 0.2)


def test_the_cosine_is_the_cosine_of_the_progress() -> None:
    rates = schedule(101, learning_rate=3.0, min_learning_rate=1.0, lr_scheduler_type="cosine")
    assert rates == pytest.approx([2 + math.cos(math.pi * step / 100) for step in range(101)])


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_a_run_of_one_step_takes_it_at_the_peak(shape: str) -> None:
    assert schedule(1, learning_rate=0.5, min_learning_rate=0.1, lr_scheduler_type=shape) == [0.5]


@given(
    num_steps=st.integers(1, 60),
    warmup_steps=st.integers(0, 80),
    shape=st.sampled_from(["cosine", "linear", "constant"]),
    low_and_high=st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)).map(sorted),
)
def test_the_rate_never_rises_after_the_warm_up_nor_leaves_its_bounds(num_steps, warmup_steps, shape, low_and_high):
    low, high = low_and_high
    rates = schedule(
        num_steps, learning_rate=high, min_learning_rate=low, warmup_steps=warmup_steps, lr_scheduler_type=shape
    )
    rising, falling = rates[: warmup_steps + 1], rates[warmup_steps:]
    assert rising == sorted(rising)
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in pairwise(falling))
    assert all(0 < rate <= high * (1 + 1e-12) for rate in rates)
    assert all(rate >= low * (1 - 1e-12) for rate in falling)
