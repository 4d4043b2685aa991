"""The book's own code as oracle: the package `llms-from-scratch` that its author publishes, chapters 3 to 5."""

import pytest
import torch
from llms_from_scratch.ch03 import MultiHeadAttention
from llms_from_scratch.ch04 import GELU, GPTModel, LayerNorm, generate_text_simple
from llms_from_scratch.ch05 import calc_loss_batch, generate
from torch import Tensor, nn

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.modeling_hfgpt import ACTIVATIONS, HfGptAttention, causal_lm_loss, causal_mask, eager_attention_forward

# The example of sections 3.3 to 3.6: "Your journey starts with one step", three features a word.
EXAMPLE = [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.10]]
EXAMPLE += [[0.05, 0.80, 0.55]]
# What section 3.6.2 prints for it with two heads.
EXAMPLE_CONTEXT = [[0.3190, 0.4858], [0.2943, 0.3897], [0.2856, 0.3593], [0.2693, 0.3873], [0.2639, 0.3928]]
EXAMPLE_CONTEXT += [[0.2575, 0.4028]]


def copy_weights(ours: nn.Module, book: nn.Module, names: dict[str, str]) -> None:
    """Give each submodule of ours the book's parameters; `scale` and `shift` are the weight and bias of a LayerNorm."""
    with torch.no_grad():
        for our_name, book_name in names.items():
            target, source = ours.get_submodule(our_name), book.get_submodule(book_name)
            for parameter, value in zip(target.parameters(), source.parameters(), strict=True):
                parameter.copy_(value)


def layer_names(number: int) -> dict[str, str]:
    ours, book = f"model.layers.{number}.", f"trf_blocks.{number}."
    return {
        f"{ours}input_layernorm": f"{book}norm1",
        f"{ours}self_attn.q_proj": f"{book}att.W_query",
        f"{ours}self_attn.k_proj": f"{book}att.W_key",
        f"{ours}self_attn.v_proj": f"{book}att.W_value",
        f"{ours}self_attn.o_proj": f"{book}att.out_proj",
        f"{ours}post_attention_layernorm": f"{book}norm2",
        f"{ours}mlp.fc1": f"{book}ff.layers.0",
        f"{ours}mlp.fc2": f"{book}ff.layers.2",
    }


@pytest.fixture(scope="module", params=[False, True], ids=["no-qkv-bias", "qkv-bias"])
def models(request: pytest.FixtureRequest) -> tuple[HfGptForCausalLM, GPTModel]:
    """Our model and the book's with the same random weights."""
    torch.manual_seed(123)
    shape = {"vocab_size": 500, "context_length": 64, "emb_dim": 96, "n_heads": 6, "n_layers": 3}
    book = GPTModel(shape | {"drop_rate": 0.0, "qkv_bias": request.param}).eval()
    for parameter in book.parameters():
        if parameter.ndim == 1:  # LayerNorms begin at 1 and 0, where a mistake would not show
            nn.init.uniform_(parameter, 0.5, 1.5)
    config = HfGptConfig(
        vocab_size=500,
        max_position_embeddings=64,
        hidden_size=96,
        num_attention_heads=6,
        num_hidden_layers=3,
        qkv_bias=request.param,
        tie_word_embeddings=False,
        embedding_dropout=0.0,
        attention_dropout=0.0,
        residual_dropout=0.0,
    )
    ours = HfGptForCausalLM(config).eval()
    names = {"model.embed_tokens": "tok_emb", "model.embed_positions": "pos_emb", "model.norm": "final_norm"}
    for number in range(3):
        names |= layer_names(number)
    copy_weights(ours, book, names | {"lm_head": "out_head"})
    assert ours.num_parameters() == sum(parameter.numel() for parameter in book.parameters())
    return ours, book


@pytest.fixture
def token_ids() -> Tensor:
    return torch.randint(500, (3, 41), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_logits_are_those_of_the_book(
    models: tuple[HfGptForCausalLM, GPTModel], token_ids: Tensor, implementation: str
) -> None:
    ours, book = models
    ours.set_attn_implementation(implementation)
    expected = book(token_ids)
    assert 2 < expected.abs().max() < 6  # the tolerance means something
    torch.testing.assert_close(ours(token_ids).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_loss_is_the_book_s_whether_the_targets_are_shifted_by_us_or_by_the_caller(
    models: tuple[HfGptForCausalLM, GPTModel], token_ids: Tensor
) -> None:
    ours, book = models
    inputs, targets = token_ids[:, :-1], token_ids[:, 1:]  # the book's pairs (section 2.6)
    expected = calc_loss_batch(inputs, targets, book, "cpu")
    torch.testing.assert_close(ours(inputs, shift_labels=targets).loss, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(token_ids, labels=token_ids).loss, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(causal_lm_loss(book(token_ids), token_ids), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_greedy_text_is_the_book_s(models: tuple[HfGptForCausalLM, GPTModel], token_ids: Tensor) -> None:
    ours, book = models
    prompt = token_ids[:, :8]
    expected = generate_text_simple(book, prompt, max_new_tokens=20, context_size=64)
    actual = ours.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False)
    assert torch.equal(actual, expected)


@torch.no_grad()
def test_text_drawn_with_temperature_and_top_k_is_the_book_s(
    models: tuple[HfGptForCausalLM, GPTModel], token_ids: Tensor
) -> None:
    ours, book = models
    prompt = token_ids[:1, :8]
    torch.manual_seed(5)
    expected = generate(book, prompt, max_new_tokens=20, context_size=64, temperature=1.4, top_k=25)
    torch.manual_seed(5)
    arguments = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 20, "temperature": 1.4}
    actual = ours.generate(prompt, do_sample=True, top_k=25, top_p=1.0, **arguments)
    assert torch.equal(actual, expected)


def test_attention_gives_the_rows_that_the_book_prints() -> None:
    torch.manual_seed(123)
    book = MultiHeadAttention(d_in=3, d_out=2, context_length=6, dropout=0.0, num_heads=2)
    attention = HfGptAttention(HfGptConfig(hidden_size=2, num_attention_heads=2, qkv_bias=False), layer_idx=0).eval()
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight = nn.Parameter(torch.empty(2, 3))  # in the book's example the input is wider than the output
    names = {"q_proj": "W_query", "k_proj": "W_key", "v_proj": "W_value", "o_proj": "out_proj"}
    copy_weights(attention, book, names)
    mask = torch.zeros(6, 6).masked_fill(~causal_mask(6), -torch.inf)[None, None]
    embeddings = torch.tensor([EXAMPLE])
    for implementation in ("eager", "sdpa"):
        attention.config._attn_implementation = implementation
        context, _ = attention(embeddings, mask, rotation=None, past_key_values=None)
        torch.testing.assert_close(context[0], torch.tensor(EXAMPLE_CONTEXT), rtol=0, atol=5e-5)
        torch.testing.assert_close(context, book(embeddings), rtol=0, atol=1e-6)


def test_causal_mask_is_the_complement_of_the_book_s() -> None:
    book = MultiHeadAttention(d_in=3, d_out=2, context_length=9, dropout=0.0, num_heads=2)
    assert torch.equal(causal_mask(9), ~book.mask.bool())


def test_gelu_and_layer_norm_are_the_book_s() -> None:
    torch.manual_seed(0)
    features = torch.randn(50, 64) * 3
    torch.testing.assert_close(ACTIVATIONS["gelu_pytorch_tanh"](features), GELU()(features), rtol=0, atol=1e-6)
    book = LayerNorm(64)
    nn.init.normal_(book.scale)
    nn.init.normal_(book.shift)
    ours = nn.LayerNorm(64, eps=HfGptConfig().layer_norm_eps)
    copy_weights(nn.ModuleDict({"norm": ours}), nn.ModuleDict({"norm": book}), {"norm": "norm"})
    torch.testing.assert_close(ours(features), book(features), rtol=0, atol=2e-6)


def test_an_untrained_model_loses_the_logarithm_of_the_vocabulary() -> None:
    torch.manual_seed(123)
    model = HfGptForCausalLM(HfGptConfig(hidden_size=192, num_hidden_layers=3, num_attention_heads=6)).eval()
    token_ids = torch.randint(50257, (2, 64))
    with torch.no_grad():
        loss = model(token_ids, labels=token_ids).loss.item()
    assert loss == pytest.approx(10.825, abs=0.1)  # ln(50257); the book's example is at 10.794


def test_dropping_attention_weights_is_inverted_dropout_and_only_in_training() -> None:
    torch.manual_seed(0)
    module = nn.Identity()
    query = key = torch.zeros(1, 1, 400, 8)  # all scores equal: each weight is 1 / 400
    value = torch.ones(1, 1, 400, 8)
    _, weights = eager_attention_forward(module.train(), query, key, value, None, scaling=1.0, dropout=0.25)
    assert weights.unique().tolist() == pytest.approx([0.0, 1 / 400 / 0.75])
    assert (weights == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    _, weights = eager_attention_forward(module.eval(), query, key, value, None, scaling=1.0, dropout=0.25)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 400))
