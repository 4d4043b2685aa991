"""transformers' own GPT-2 as oracle: the same weights, at the true widths of all four sizes, compute the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hfgpt import HfGptForCausalLM, HfGptModel

TOLERANCE = 1e-5  # fp32, logits up to 5 (five standard deviations of 1); GPT-2's own rounding error is of this size

# Width, heads and vocabulary of the four GPT-2 sizes. "small" is whole; of the others the first two blocks and a part
# of the vocabulary keep these tests fast.
SIZES = {
    "small": {"n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50257},
    "medium": {"n_embd": 1024, "n_head": 16, "n_layer": 2, "vocab_size": 2048},
    "large": {"n_embd": 1280, "n_head": 20, "n_layer": 2, "vocab_size": 2048},
    "xl": {"n_embd": 1600, "n_head": 25, "n_layer": 2, "vocab_size": 2048},
}


class Pair(NamedTuple):
    """The same weights in both models, and a batch of token ids."""

    ours: HfGptForCausalLM
    theirs: PreTrainedModel
    input_ids: Tensor


@pytest.fixture(scope="module", params=SIZES)
def pair(
    request: pytest.FixtureRequest,
    random_gpt2: Callable[..., PreTrainedModel],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pair]:
    size = SIZES[request.param]
    theirs = random_gpt2(n_positions=64, logit_scale=1.0, **size)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    ours = HfGptForCausalLM.from_pretrained(folder).eval()
    (folder / "model.safetensors").unlink()
    input_ids = torch.randint(size["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(1))
    yield Pair(ours, theirs, input_ids)
    ours.zero_grad()


def in_gpt2_layout(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names under GPT-2's, written out by hand so that it does not lean on hfgpt's own conversion."""
    renamed = {
        "transformer.wte.weight": named["model.embed_tokens.weight"],
        "transformer.wpe.weight": named["model.embed_positions.weight"],
        "transformer.ln_f.weight": named["model.norm.weight"],
        "transformer.ln_f.bias": named["model.norm.bias"],
    }
    for number in range(sum(name.endswith("mlp.fc1.weight") for name in named)):
        old, new = f"model.layers.{number}.", f"transformer.h.{number}."
        for ours, theirs in (("input_layernorm", "ln_1"), ("post_attention_layernorm", "ln_2")):
            renamed[f"{new}{theirs}.weight"] = named[f"{old}{ours}.weight"]
            renamed[f"{new}{theirs}.bias"] = named[f"{old}{ours}.bias"]
        for ours, theirs in (("self_attn.o_proj", "attn.c_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
            renamed[f"{new}{theirs}.weight"] = named[f"{old}{ours}.weight"].T
            renamed[f"{new}{theirs}.bias"] = named[f"{old}{ours}.bias"]
        query_key_value = [f"{old}self_attn.{letter}_proj" for letter in "qkv"]
        renamed[f"{new}attn.c_attn.weight"] = torch.cat([named[f"{name}.weight"].T for name in query_key_value], dim=1)
        renamed[f"{new}attn.c_attn.bias"] = torch.cat([named[f"{name}.bias"] for name in query_key_value])
    return renamed


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_logits_and_hidden_states_are_those_of_gpt2(pair: Pair, implementation: str) -> None:
    pair.ours.set_attn_implementation(implementation)
    expected = pair.theirs(pair.input_ids, output_hidden_states=True)
    actual = pair.ours(pair.input_ids, output_hidden_states=True)
    assert 4 < expected.logits.abs().max() < 7  # the tolerance means something
    torch.testing.assert_close(actual.logits, expected.logits, rtol=0, atol=TOLERANCE)
    assert len(actual.hidden_states) == len(expected.hidden_states) == pair.ours.config.num_hidden_layers + 1
    for ours, theirs in zip(actual.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=TOLERANCE)


@torch.no_grad()
def test_what_remains_of_the_difference_is_rounding(
    random_gpt2: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    theirs = random_gpt2(n_layer=6, n_embd=96, n_head=6).double()
    theirs.save_pretrained(tmp_path)
    ours = HfGptForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="sdpa").eval()
    input_ids = torch.arange(32).unsqueeze(0)
    torch.testing.assert_close(ours(input_ids).logits, theirs(input_ids).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_loss_and_gradients_are_those_of_gpt2(pair: Pair, implementation: str) -> None:
    pair.ours.set_attn_implementation(implementation)
    labels = pair.input_ids.clone()
    labels[0, :7] = -100
    losses = []
    for model in (pair.ours, pair.theirs):
        model.zero_grad()
        loss = model(pair.input_ids, labels=labels).loss
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=TOLERANCE)

    actual = in_gpt2_layout({name: parameter.grad for name, parameter in pair.ours.named_parameters()})
    expected = {name: parameter.grad for name, parameter in pair.theirs.named_parameters()}
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(actual[name], gradient, rtol=0, atol=1e-4 * scale, msg=lambda text, n=name: n + text)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_greedy_text_is_that_of_gpt2(pair: Pair, implementation: str) -> None:
    pair.ours.set_attn_implementation(implementation)
    arguments = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(pair.input_ids)
    expected = pair.theirs.generate(pair.input_ids, attention_mask=mask, **arguments)
    actual = pair.ours.generate(pair.input_ids, attention_mask=mask, **arguments)
    assert actual.shape == (2, 36)
    assert torch.equal(actual, expected)


def test_beam_search_finds_what_gpt2_finds(random_gpt2: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    theirs = random_gpt2()
    theirs.save_pretrained(tmp_path)
    ours = HfGptForCausalLM.from_pretrained(tmp_path).eval()
    prompt = torch.tensor([[5, 9, 33], [1, 80, 2]])
    arguments = {"attention_mask": torch.ones_like(prompt), "num_beams": 4, "max_new_tokens": 10, "do_sample": False}
    assert torch.equal(ours.generate(prompt, **arguments), theirs.generate(prompt, **arguments))


def test_left_padded_batches_are_those_of_gpt2(random_gpt2: Callable[..., PreTrainedModel], tmp_path: Path) -> None:
    theirs = random_gpt2()
    theirs.save_pretrained(tmp_path)
    ours = HfGptForCausalLM.from_pretrained(tmp_path).eval()
    prompt, mask = torch.tensor([[0, 0, 0, 7, 8], [5, 4, 3, 2, 1]]), torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])
    arguments = {"attention_mask": mask, "max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    assert torch.equal(ours.generate(prompt, **arguments), theirs.generate(prompt, **arguments))


# Tied embeddings and q/k/v bias as in GPT-2, then the book's variant; from the book, and from GPT-2's own models.
PARAMETERS = {
    (768, 12, 12): (124_439_808, 163_009_536),
    (1024, 24, 16): (354_823_168, 406_212_608),
    (1280, 36, 20): (774_030_080, 838_220_800),
    (1600, 48, 25): (1_557_611_200, 1_637_792_000),
}


@pytest.mark.parametrize(("shape", "counts"), PARAMETERS.items(), ids=lambda value: str(value[0]))
def test_parameter_counts_are_those_of_gpt2_and_of_the_book(
    shape: tuple[int, int, int], counts: tuple[int, int]
) -> None:
    hidden_size, num_hidden_layers, num_attention_heads = shape
    sizes = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
    }
    config_class = HfGptModel.config_class
    with torch.device("meta"):  # nothing is allocated
        gpt2 = HfGptForCausalLM(config_class(**sizes))
        book = HfGptForCausalLM(config_class(**sizes, qkv_bias=False, tie_word_embeddings=False))
    assert (gpt2.num_parameters(), book.num_parameters()) == counts
