"""The book's own code as oracle of the conversion: what its models save, hfgpt's compute with the same logits."""

import pytest
import torch
from llms_from_scratch.appendix_e import replace_linear_with_lora
from llms_from_scratch.ch04 import GPTModel, GPTModelFast
from llms_from_scratch.kv_cache.gpt2 import GPTModel as GPTModelWithCache
from torch import Tensor, nn

from hfgpt import HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.foreign_checkpoints import recognise

SHAPE = {"vocab_size": 500, "context_length": 64, "emb_dim": 96, "n_heads": 6, "n_layers": 3, "drop_rate": 0.0}


def book_model(model_class: type[nn.Module] = GPTModel, *, qkv_bias: bool = True, **shape) -> nn.Module:
    """A model of the book's with every parameter random, biases and LayerNorms too, where a mistake would not show."""
    torch.manual_seed(123)
    model = model_class(SHAPE | {"qkv_bias": qkv_bias} | shape).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            nn.init.normal_(parameter, std=0.15)
    return model


def classifier(num_classes: int = 2, **head) -> nn.Module:
    """Section 6.5: another output layer in place of the language model's."""
    model = book_model()
    model.out_head = nn.Linear(96, num_classes, **head)
    return model


@pytest.fixture
def token_ids() -> Tensor:
    return torch.randint(500, (3, 41), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("qkv_bias", [False, True])
@pytest.mark.parametrize("model_class", [GPTModel, GPTModelFast, GPTModelWithCache])
@torch.no_grad()
def test_a_language_model_has_the_book_s_logits(model_class, qkv_bias: bool, token_ids: Tensor) -> None:
    book = book_model(model_class, qkv_bias=qkv_bias)
    found = recognise(book.state_dict(), num_attention_heads=6)
    model = found.to_model()
    assert type(model) is HfGptForCausalLM
    assert model.num_parameters() == sum(parameter.numel() for parameter in book.parameters())
    assert found.config.qkv_bias is qkv_bias
    assert ("GPTModelFast" in found.description) is (model_class is GPTModelFast)
    expected = book(token_ids)
    assert expected.abs().max() > 3  # the tolerance means something
    torch.testing.assert_close(model(token_ids).logits, expected, rtol=0, atol=2e-5)


@torch.no_grad()
def test_the_saved_folder_opens_with_the_book_s_logits(tmp_path, token_ids: Tensor) -> None:
    book = book_model()
    recognise(book.state_dict(), num_attention_heads=6).to_model().save_pretrained(tmp_path)
    loaded, info = HfGptForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(loaded.eval()(token_ids).logits, book(token_ids), rtol=0, atol=2e-5)


def test_weights_are_renamed_and_not_changed() -> None:
    book = book_model()
    found = recognise(book.state_dict(), num_attention_heads=6)
    for ours, theirs in {
        "model.embed_tokens.weight": "tok_emb.weight",
        "model.layers.2.self_attn.k_proj.weight": "trf_blocks.2.att.W_key.weight",
        "model.layers.1.mlp.fc2.bias": "trf_blocks.1.ff.layers.2.bias",
        "model.norm.bias": "final_norm.shift",
    }.items():
        assert torch.equal(found.weights[ours], book.state_dict()[theirs]), ours


@torch.no_grad()
def test_the_head_is_tied_only_if_it_is_the_embedding_bit_for_bit(token_ids: Tensor) -> None:
    book = book_model()
    book.out_head.weight.copy_(book.tok_emb.weight)  # as the book does with GPT-2's weights (section 5.5)
    model = recognise(book.state_dict(), num_attention_heads=6).to_model()
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    torch.testing.assert_close(model(token_ids).logits, book(token_ids), rtol=0, atol=2e-5)
    book.out_head.weight[0, 0] += 1e-6
    assert not recognise(book.state_dict(), num_attention_heads=6).config.tie_word_embeddings


@pytest.mark.parametrize("width", [768, 1024, 1280, 1600])
def test_gpt2s_four_widths_have_the_book_s_number_of_heads_and_that_is_said(width: int) -> None:
    heads = {768: 12, 1024: 16, 1280: 20, 1600: 25}[width]  # table of section 5.5
    book = book_model(emb_dim=width, n_heads=heads, n_layers=1, vocab_size=20, context_length=8)
    found = recognise(book.state_dict())
    assert found.config.num_attention_heads == heads
    assert any(f"{heads} heads are assumed" in note for note in found.notes)
    assert recognise(book.state_dict(), num_attention_heads=8).config.num_attention_heads == 8


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_a_classifier_has_the_book_s_logits(tmp_path, num_classes: int, bias: bool, token_ids: Tensor) -> None:
    book = classifier(num_classes, bias=bias)
    found = recognise(book.state_dict(), num_attention_heads=6)
    assert f"a classifier of {num_classes} classes" in found.description
    assert any("The bias of its head" in note for note in found.notes) is bias
    found.to_model().save_pretrained(tmp_path)
    model = HfGptForSequenceClassification.from_pretrained(tmp_path).eval()
    expected = book(token_ids)[:, -1]  # the book judges by the last token
    torch.testing.assert_close(model(token_ids).logits, expected, rtol=0, atol=2e-6)


def test_a_bias_that_dependent_rows_leave_no_place_for_is_refused() -> None:
    book = classifier()
    with torch.no_grad():
        book.out_head.weight[1] = book.out_head.weight[0]
        book.out_head.bias.copy_(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="linearly dependent"):
        recognise(book.state_dict(), num_attention_heads=6)


@pytest.mark.parametrize("model_class", [GPTModel, GPTModelFast])
@pytest.mark.parametrize("make", [book_model, classifier])
@torch.no_grad()
def test_lora_layers_are_merged_as_the_book_adds_them(model_class, make, token_ids: Tensor) -> None:
    book = book_model(model_class) if make is book_model else classifier()
    before = book(token_ids)
    replace_linear_with_lora(book, rank=4, alpha=8)
    for name, parameter in book.named_parameters():
        if name.endswith("lora.B"):  # zero at first: a LoRA that has learned nothing
            nn.init.normal_(parameter, std=0.03)
    expected = book(token_ids)
    assert (expected - before).abs().max() > 0.5
    found = recognise(book.state_dict(), num_attention_heads=6, lora_alpha=8)
    assert any("LoRA layers of rank 4 were merged with alpha = 8" in note for note in found.notes)
    logits = found.to_model()(token_ids).logits
    torch.testing.assert_close(logits, expected if make is book_model else expected[:, -1], rtol=0, atol=3e-5)


def test_the_alpha_of_lora_layers_is_never_guessed() -> None:
    book = book_model()
    replace_linear_with_lora(book, rank=4, alpha=8)
    with pytest.raises(ValueError, match="--lora-alpha"):
        recognise(book.state_dict(), num_attention_heads=6)


def test_a_lora_layer_that_is_not_whole_is_refused() -> None:
    book = book_model()
    replace_linear_with_lora(book, rank=4, alpha=8)
    weights = book.state_dict()
    del weights["trf_blocks.1.ff.layers.0.lora.B"]
    with pytest.raises(ValueError, match=r"lacks trf_blocks.1.ff.layers.0.lora.B"):
        recognise(weights, num_attention_heads=6, lora_alpha=8)


def test_the_causal_mask_is_left_out_and_said() -> None:
    found = recognise(book_model().state_dict(), num_attention_heads=6)
    assert "3 buffers with the causal mask were left out." in found.notes
    assert not any("mask" in name for name in found.weights)


def test_a_mask_of_another_context_or_another_kind_is_refused() -> None:
    weights = book_model().state_dict()
    cut = weights | {"pos_emb.weight": weights["pos_emb.weight"][:-1]}
    with pytest.raises(ValueError, match=r"att.mask has shape \(64, 64\), but pos_emb.weight is for 63 positions"):
        recognise(cut, num_attention_heads=6)
    open_mask = weights | {"trf_blocks.1.att.mask": torch.zeros(64, 64)}
    with pytest.raises(ValueError, match=r"trf_blocks.1.att.mask is not the causal mask"):
        recognise(open_mask, num_attention_heads=6)
