"""The model on a GPU: what it computes on the CPU, by every way to compute attention."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.serving.answering import answer_prompts
from tests.serving.test_answering import STOP, Words, generated, prompts_of, random_model

MakeConfig = Callable[..., HfGptConfig]

LENGTHS = [5, 9, 1, 4]  # of four packed documents
VARIANTS: dict[str, dict[str, Any]] = {
    "causal": {},
    "window": {"sliding_window": 3},
    "rotary, groups": {"position_embedding_type": "rotary", "num_key_value_heads": 2},
    "not causal": {"is_causal": False},
}
INPUTS = ["whole", "padded on the left", "padded on the right", "packed"]


def make_inputs(kind: str) -> dict[str, torch.Tensor]:
    tokens = sum(LENGTHS)
    ids = torch.randint(97, (1 if kind == "packed" else 3, tokens), generator=torch.Generator().manual_seed(1))
    if kind == "packed":
        positions = torch.cat([torch.arange(length) for length in LENGTHS])
        return {"input_ids": ids, "position_ids": positions[None]}
    mask = torch.ones_like(ids)
    if kind == "padded on the left":
        mask[1, :7] = 0
    elif kind == "padded on the right":
        mask[1, -7:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_logits_and_gradients_are_those_of_the_cpu(
    tiny_config: MakeConfig, implementation: str, variant: str, kind: str
) -> None:
    torch.manual_seed(0)
    on_cpu = HfGptForCausalLM(tiny_config(**VARIANTS[variant]))
    on_cpu.set_attn_implementation("eager")
    on_gpu = copy.deepcopy(on_cpu).cuda()
    on_gpu.set_attn_implementation(implementation)
    inputs = make_inputs(kind)
    real = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    judged = real & torch.cat([real[:, :1], real[:, :-1]], 1)  # what the last of the padding predicts is of no account
    labels = inputs["input_ids"].masked_fill(~judged, -100)
    with torch.compiler.set_stance("force_eager"):  # flex attention's plain form, without a compiler's half minutes
        expected = on_cpu(**inputs, labels=labels)
        found = on_gpu(**{name: value.cuda() for name, value in inputs.items()}, labels=labels.cuda())
        expected.loss.backward()
        found.loss.backward()
    torch.testing.assert_close(found.logits.cpu()[real], expected.logits[real], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.loss.cpu(), expected.loss, rtol=1e-5, atol=1e-5)
    for (name, gradient), other in zip(on_gpu.named_parameters(), on_cpu.parameters(), strict=True):
        torch.testing.assert_close(gradient.grad.cpu(), other.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("variant", ["causal", "rotary, groups"])
def test_compiled_flex_attention_computes_the_same(tiny_config: MakeConfig, variant: str) -> None:
    """With heads of 16 features, the fewest that its kernel takes."""
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(**VARIANTS[variant], hidden_size=64)).cuda().eval()
    inputs = {name: value.cuda() for name, value in make_inputs("packed").items()}
    with torch.no_grad():
        model.set_attn_implementation("eager")
        expected = model(**inputs).logits
        model.set_attn_implementation("flex_attention")
        torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-2, atol=5e-2)  # its products are of tf32


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("architecture", [{}, {"position_embedding_type": "rotary", "num_key_value_heads": 2}])
def test_answers_in_bulk_are_those_of_generate_on_the_cpu(tiny_config, architecture, batch_size) -> None:
    model = random_model(tiny_config, **architecture)
    prompts = prompts_of(13)
    expected = [generated(model, prompt, STOP, 15) for prompt in prompts]
    answers = answer_prompts(
        copy.deepcopy(model).cuda(), Words(), prompts, stop_token_ids=STOP, max_new_tokens=15, batch_size=batch_size
    )
    assert [(answer.token_ids, answer.finished) for answer in answers] == expected
