"""Packed weights: the same products but for rounding, and nothing is left behind."""

import pytest
import torch
from torch import nn

from hfgpt import HfGptForCausalLM
from hfgpt.serving import packed_linear
from hfgpt.serving.packed_linear import packed_linears


@pytest.fixture
def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 100), nn.GELU(), nn.Linear(100, 7, bias=False))


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(1, 48), (8, 48), (110, 48), (3, 5, 48), (2, 1, 48)], ids=str)
def test_products_are_those_of_the_layers_but_for_rounding(layers: nn.Sequential, shape: tuple[int, ...]) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    expected = layers.double()(features.double()).float()
    layers.float()
    with packed_linears(layers) as number:
        assert number == 2, "this torch no longer has the operators of packed weights"
        found = layers(features)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.shape == expected.shape


@torch.inference_mode()
def test_features_need_not_lie_side_by_side(layers: nn.Sequential) -> None:
    features = torch.randn(48, 6).T
    with packed_linears(layers):
        found = layers(features)
    torch.testing.assert_close(found, layers(features), rtol=1e-5, atol=1e-5)


def test_the_layers_are_their_own_again_even_after_an_error(layers: nn.Sequential) -> None:
    class StopError(Exception):
        pass

    features = torch.randn(4, 48, requires_grad=True)
    with pytest.raises(StopError), packed_linears(layers):
        raise StopError
    assert not any("forward" in vars(layer) for layer in layers)
    layers(features).sum().backward()
    assert features.grad is not None


def test_weights_of_another_type_and_layers_of_another_kind_are_left_alone(layers: nn.Sequential) -> None:
    class Doubled(nn.Linear):
        def forward(self, features):
            return 2 * super().forward(features)

    with packed_linears(nn.Sequential(Doubled(3, 3), nn.Linear(3, 3).bfloat16(), nn.Linear(3, 3, device="meta"))) as n:
        assert n == 0


def test_another_torch_without_the_operators_computes_as_before_and_says_so(layers, monkeypatch, caplog) -> None:
    def gone(layer):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    features = torch.randn(4, 48)
    expected = layers(features)
    monkeypatch.setattr(packed_linear, "_packed_forward", gone)
    with packed_linears(layers) as number:
        assert number == 0
        assert torch.equal(layers(features), expected)
    assert "linear layers are not packed ('_OpNamespace'" in caplog.text


@torch.inference_mode()
def test_a_whole_model_computes_the_same_logits(tiny_config) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config()).eval()
    input_ids = torch.randint(97, (3, 20))
    expected = model(input_ids).logits
    with packed_linears(model) as number:
        assert number == 2 * 6 + 1
        torch.testing.assert_close(model(input_ids).logits, expected, rtol=1e-4, atol=1e-4)
