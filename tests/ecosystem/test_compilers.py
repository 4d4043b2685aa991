"""The model through torch's compilers: one graph, whatever is exported, and the same numbers.

Its plain forward pass is compiled and exported by tests/test_modeling_hfgpt.py; here are training, decoding and shapes
that stay open.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.executorch import TorchExportableModuleForDecoderOnlyLM

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification


@pytest.fixture
def model(shape: dict[str, Any], tiny_config: Callable[..., HfGptConfig]) -> HfGptForCausalLM:
    torch.manual_seed(0)
    return HfGptForCausalLM(tiny_config(**shape)).eval()


@pytest.fixture
def input_ids() -> Tensor:
    return torch.randint(97, (2, 14), generator=torch.Generator().manual_seed(3))


def gradients(model: HfGptForCausalLM) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    model.zero_grad(set_to_none=True)
    return found


def test_a_compiled_training_step_has_one_graph_and_the_eager_gradients(model, input_ids) -> None:
    mask = torch.ones_like(input_ids)
    mask[0, 9:] = 0
    inputs = {"input_ids": input_ids, "labels": input_ids, "attention_mask": mask, "use_cache": False}
    loss = model.train()(**inputs).loss
    loss.backward()
    expected = gradients(model)
    torch.compiler.reset()
    compiled_loss = torch.compile(model, fullgraph=True)(**inputs).loss
    compiled_loss.backward()
    torch.testing.assert_close(compiled_loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", [HfGptForCausalLM, HfGptForSequenceClassification])
@torch.no_grad()
def test_an_exported_model_takes_other_batches_and_lengths(shape, tiny_config, input_ids, head) -> None:
    torch.manual_seed(0)
    model = head(tiny_config(**shape)).eval()
    batch, tokens = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("tokens", min=2, max=32)
    mask = torch.ones_like(input_ids)
    exported = torch.export.export(
        model,
        (),
        {"input_ids": input_ids, "attention_mask": mask, "use_cache": False},
        dynamic_shapes={
            "input_ids": {0: batch, 1: tokens},
            "attention_mask": {0: batch, 1: tokens},
            "use_cache": None,
        },
        strict=False,
    ).module()
    longer = torch.randint(97, (5, 23), generator=torch.Generator().manual_seed(4))
    padded = (torch.arange(23) >= torch.arange(5)[:, None]).long()
    logits = exported(input_ids=longer, attention_mask=padded, use_cache=False).logits
    expected = model(longer, attention_mask=padded, use_cache=False).logits
    if head is HfGptForCausalLM:  # what stands at padding is nobody's concern
        logits, expected = logits[padded.bool()], expected[padded.bool()]
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_model_exported_with_its_static_cache_decodes_the_greedy_text(tiny_config, input_ids) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config()).eval()
    expected = model.generate(input_ids[:1], do_sample=False, pad_token_id=0, max_new_tokens=12)
    model.generation_config.use_cache = True
    model.generation_config.cache_implementation = "static"
    model.generation_config.cache_config = {"batch_size": 1, "max_cache_len": 32}
    exportable = TorchExportableModuleForDecoderOnlyLM(model, batch_size=1, max_cache_len=32)
    step = exportable.export(input_ids=input_ids[:1, :1], cache_position=torch.tensor([0])).module()
    text = input_ids[:1]
    for position in range(14 + 12 - 1):
        logits = step(input_ids=text[:, position : position + 1], cache_position=torch.tensor([position]))
        if position >= 13:
            text = torch.cat([text, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(text, expected)
