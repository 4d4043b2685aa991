"""Muon steps matrices as its papers write it, AdamW the rest, and both are one optimizer."""

import pytest
import torch
from torch import nn

from hfgpt.errors import UserError
from hfgpt.training.muon import MuonWithAdamW, matrices_of_blocks
from hfgpt.training.optimization import build_optimizer

SETTINGS = {
    "optimizer": "muon",
    "learning_rate": 0.01,
    "weight_decay": 0.3,
    "muon_momentum": 0.8,
    "adam_beta1": 0.8,
    "adam_beta2": 0.9,
}


def gradients_of(model: nn.Module, step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(weight.shape, generator=generator) for name, weight in model.named_parameters()}


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        for name, gradient in gradients_of(model, step).items():
            model.get_parameter(name).grad = gradient.clone()
        optimizer.step()


def nearly_orthogonal(momentum: torch.Tensor) -> torch.Tensor:
    """Jordan et al. 2024: the polynomial 3.4445 s - 4.775 s^3 + 2.0315 s^5, five times, on each singular value."""
    left, values, right = torch.linalg.svd(momentum.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for _ in range(5):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return left @ values.diag() @ right


def test_the_matrices_of_the_blocks_are_those_of_attention_and_mlp(laboratory, model_name) -> None:
    model = laboratory.model(model_name)
    names = {id(weight): name for name, weight in model.named_parameters()}
    found = {names[id(weight)] for weight in matrices_of_blocks(model)}
    inside = {name for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name}
    assert found == {name for name in inside if ".wte" not in name and ".wpe" not in name}
    assert found


def test_a_frozen_matrix_is_left_out(laboratory) -> None:
    model = laboratory.model()
    frozen = model.model.layers[0].mlp.fc1.weight.requires_grad_(False)
    found = matrices_of_blocks(model)
    assert len(found) == 11
    assert not any(weight is frozen for weight in found)


def test_matrices_go_the_way_of_the_orthogonalised_momentum_and_the_rest_that_of_adamw(laboratory) -> None:
    model = laboratory.model()
    plain = laboratory.model()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = build_optimizer(model, laboratory.config(**SETTINGS))
    take_steps(model, optimizer, range(3))
    take_steps(plain, build_optimizer(plain, laboratory.config(**SETTINGS | {"optimizer": "adamw"})), range(3))
    matrices = {id(weight) for weight in matrices_of_blocks(model)}
    for name, weight in model.named_parameters():
        if id(weight) not in matrices:
            torch.testing.assert_close(weight, plain.get_parameter(name), rtol=0, atol=0, msg=name)
            continue
        expected, momentum = before[name], torch.zeros_like(weight)
        for step in range(3):
            gradient = gradients_of(model, step)[name]
            momentum = momentum + (gradient - momentum) * 0.2
            step_size = 0.01 * 0.2 * max(weight.shape) ** 0.5
            nesterov = gradient + (momentum - gradient) * 0.8
            expected = expected * (1 - 0.01 * 0.3) - step_size * nearly_orthogonal(nesterov).float()
        # torch orthogonalises in bfloat16, of which 2^-8 of a singular value are seen here
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=3 * step_size * 2**-6, msg=name)


def test_learning_rates_set_in_its_groups_are_obeyed_also_after_a_state_was_loaded(laboratory) -> None:
    model = laboratory.model()
    optimizer = build_optimizer(model, laboratory.config(**SETTINGS | {"weight_decay": 0.0}))
    assert isinstance(optimizer, MuonWithAdamW)
    take_steps(model, optimizer, range(1))
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    take_steps(model, optimizer, range(1, 2))
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]), name


def test_a_closure_is_called_once_with_gradients_on(laboratory) -> None:
    model = laboratory.model()
    optimizer = build_optimizer(model, laboratory.config(**SETTINGS))
    calls = []

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        take = gradients_of(model, 0)
        for name, weight in model.named_parameters():
            weight.grad = take[name]
        return torch.tensor(2.5)

    assert optimizer.step(closure) == torch.tensor(2.5)
    assert calls == [True]


def test_training_with_it_lowers_the_loss_on_what_is_learned(laboratory) -> None:
    model, task = laboratory.model(), laboratory.task()
    before, _ = laboratory.mean_loss(model, task.train_examples)
    laboratory.train(model, task, **SETTINGS | {"max_steps": 12, "eval_steps": 12})
    after, _ = laboratory.mean_loss(model, task.train_examples)
    assert after < before - 0.1


def test_nothing_for_muon_to_train_is_said(laboratory) -> None:
    model = laboratory.model()
    for weight in matrices_of_blocks(model):
        weight.requires_grad_(False)
    with pytest.raises(UserError, match="'muon' has nothing to train"):
        build_optimizer(model, laboratory.config(**SETTINGS))
