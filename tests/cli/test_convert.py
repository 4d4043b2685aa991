"""`hfgpt convert`: there and back, bit for bit; and from the checkpoint files of other code bases."""

import json
from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from hfgpt import HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel

HEADS = {
    "causal-lm": (HfGptForCausalLM, GPT2LMHeadModel, AutoModelForCausalLM),
    "classification": (
        HfGptForSequenceClassification,
        GPT2ForSequenceClassification,
        AutoModelForSequenceClassification,
    ),
    "base": (HfGptModel, GPT2Model, AutoModel),
}


def equal_weights(left, right) -> bool:
    left, right = left.state_dict(), right.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@torch.no_grad()
def output(model) -> torch.Tensor:
    tokens = torch.arange(1, 13)[None]
    return model.eval()(tokens, attention_mask=torch.ones_like(tokens))[0]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tied", [True, False])
def test_to_gpt2_and_back_is_bit_equal(hfgpt, save, tmp_path, head: str, tied: bool) -> None:
    ours_class, gpt2_class, auto_class = HEADS[head]
    source = save(ours_class, tie_word_embeddings=tied, id2label={0: "ham", 1: "spam", 2: "other"})
    there = hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2")
    assert there.status == 0
    assert f"({head}) written to" in there.out
    back = hfgpt("convert", tmp_path / "gpt2", tmp_path / "back", "--to", "hfgpt")
    assert back.status == 0

    original = ours_class.from_pretrained(source)
    gpt2, info = gpt2_class.from_pretrained(tmp_path / "gpt2", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(auto_class.from_pretrained(tmp_path / "gpt2")) is gpt2_class
    torch.testing.assert_close(output(gpt2), output(original), rtol=1e-5, atol=1e-5)
    returned = ours_class.from_pretrained(tmp_path / "back")
    assert equal_weights(returned, original)
    assert torch.equal(output(returned), output(original))
    for name in ("hidden_size", "tie_word_embeddings", "hidden_act", "id2label", "eos_token_id"):
        assert getattr(returned.config, name) == getattr(original.config, name), name


@pytest.mark.parametrize("head", HEADS)
def test_a_gpt2_checkpoint_comes_through_both_ways_bit_equal(hfgpt, tmp_path, head: str) -> None:
    gpt2_class = HEADS[head][1]
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "pad_token_id": 0}
    gpt2_class(GPT2Config(**sizes)).save_pretrained(tmp_path / "source")
    assert hfgpt("convert", tmp_path / "source", tmp_path / "ours", "--to", "hfgpt").status == 0
    assert hfgpt("convert", tmp_path / "ours", tmp_path / "back", "--to", "gpt2").status == 0
    original, returned = (gpt2_class.from_pretrained(tmp_path / name) for name in ("source", "back"))
    assert equal_weights(original, returned)
    assert torch.equal(output(original), output(returned))


def test_the_number_format_stays(hfgpt, save, tmp_path) -> None:
    source = save()
    HfGptForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    assert hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").status == 0
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2").dtype == torch.bfloat16


def test_the_tokenizer_and_the_defaults_for_drawing_go_along(hfgpt, model_folder, tmp_path, tokenizer) -> None:
    assert hfgpt("convert", model_folder, tmp_path / "gpt2", "--to", "gpt2").status == 0
    copied = AutoTokenizer.from_pretrained(tmp_path / "gpt2")
    assert copied("the cat <|endoftext|>")["input_ids"] == tokenizer("the cat <|endoftext|>")["input_ids"]
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2").generation_config.top_k == 50


def test_a_missing_tokenizer_is_said(hfgpt, save, tmp_path) -> None:
    source = save(with_tokenizer=False)
    assert "No tokenizer" in hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").out


def test_biases_that_gpt2_always_has_are_zero_and_said(hfgpt, save, tmp_path) -> None:
    source = save(qkv_bias=False)
    answer = hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2")
    assert "Zero biases were added to q, k and v" in answer.out
    gpt2 = GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    assert not gpt2.transformer.h[0].attn.c_attn.bias.any()
    torch.testing.assert_close(output(gpt2), output(HfGptForCausalLM.from_pretrained(source)), rtol=1e-5, atol=1e-5)


def leftovers(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"datasets_cache"}


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_what_gpt2_cannot_hold_is_refused_and_nothing_is_left(hfgpt, save, tmp_path, positions: str) -> None:
    source = save(position_embedding_type=positions)
    assert positions in hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").sentence
    assert leftovers(tmp_path) == {"model"}


def test_a_destination_with_something_in_it_is_refused_and_left_alone(hfgpt, model_folder, tmp_path) -> None:
    destination = tmp_path / "mine"
    destination.mkdir()
    (destination / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "not an empty folder" in hfgpt("convert", model_folder, destination, "--to", "gpt2").sentence
    assert leftovers(tmp_path) == {"model", "mine"}
    assert leftovers(destination) == {"thesis.txt"}


def test_an_empty_destination_is_used(hfgpt, model_folder, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    assert hfgpt("convert", model_folder, tmp_path / "empty", "--to", "gpt2").status == 0
    assert leftovers(tmp_path) == {"model", "empty"}


def test_a_destination_deep_down_is_made(hfgpt, model_folder, tmp_path) -> None:
    assert hfgpt("convert", model_folder, tmp_path / "a" / "b", "--to", "gpt2").status == 0
    assert (tmp_path / "a" / "b" / "config.json").is_file()


def test_a_destination_below_a_file_is_one_sentence(hfgpt, model_folder, tmp_path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert "cannot be written" in hfgpt("convert", model_folder, tmp_path / "file" / "x", "--to", "gpt2").sentence


def test_a_source_that_is_not_there_leaves_nothing(hfgpt, tmp_path) -> None:
    assert "There is no folder" in hfgpt("convert", tmp_path / "nothing", tmp_path / "gpt2", "--to", "gpt2").sentence
    assert leftovers(tmp_path) == set()


def test_a_classification_head_is_not_invented(hfgpt, model_folder, tmp_path) -> None:
    answer = hfgpt("convert", model_folder, tmp_path / "new", "--to", "hfgpt", "--head", "classification")
    assert "no classification head" in answer.sentence
    assert leftovers(tmp_path) == {"model"}


# ----------------------------------------------------------------------------------------------------------------------
# What llama.cpp needs of GPT-2's layout
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_llama_cpp_knows_every_tensor_in_gpt2s_layout_and_finds_all_it_needs(hfgpt, save, tmp_path, tied: bool) -> None:
    source = save(tie_word_embeddings=tied, qkv_bias=False)
    assert hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").status == 0
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    written = load_file(tmp_path / "gpt2" / "model.safetensors")
    mapped = {names.get_type_and_name(name, try_suffixes=(".weight", ".bias")) for name in written}
    assert None not in mapped
    assert len(mapped) == len(written)

    embeddings = {gguf.MODEL_TENSOR.TOKEN_EMBD, gguf.MODEL_TENSOR.POS_EMBD, gguf.MODEL_TENSOR.OUTPUT}
    needed = set()
    for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GPT2]:
        if kind == gguf.MODEL_TENSOR.OUTPUT and tied:
            continue  # llama.cpp then takes the embedding
        template = gguf.TENSOR_NAMES[kind]
        for name in {template.format(bid=layer) for layer in range(2)}:
            needed |= {(kind, f"{name}.weight")} | (set() if kind in embeddings else {(kind, f"{name}.bias")})
    assert mapped == needed


def test_llama_cpp_finds_its_sizes_in_gpt2s_configuration(hfgpt, model_folder, tmp_path) -> None:
    assert hfgpt("convert", model_folder, tmp_path / "gpt2", "--to", "gpt2").status == 0
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["GPT2LMHeadModel"]
    sizes = {name: config[name] for name in ("n_layer", "n_ctx", "n_embd", "n_head", "layer_norm_epsilon")}
    assert sizes == {"n_layer": 2, "n_ctx": 32, "n_embd": 16, "n_head": 2, "layer_norm_epsilon": 1e-5}
    # It transposes these four; `nn.Linear` stores (out, in), GPT-2 (in, out).
    written = load_file(tmp_path / "gpt2" / "model.safetensors")
    layer = "transformer.h.0."
    assert written[f"{layer}attn.c_attn.weight"].shape == (16, 48)
    assert written[f"{layer}mlp.c_fc.weight"].shape == (16, 64)
    assert written[f"{layer}mlp.c_proj.weight"].shape == (64, 16)


def test_a_feed_forward_width_that_llama_cpp_would_misread_is_refused_for_gpt2s_layout_only(
    hfgpt, save, tmp_path
) -> None:
    source = save(intermediate_size=40)
    sentence = hfgpt("convert", source, tmp_path / "gpt2", "--to", "gpt2").sentence
    assert "intermediate_size is 40" in sentence
    assert "llama.cpp" in sentence
    assert "--to hfgpt" in sentence
    assert leftovers(tmp_path) == {"model"}
    assert hfgpt("convert", source, tmp_path / "ours", "--to", "hfgpt").status == 0


def test_a_gelu_that_llama_cpp_does_not_compute_is_said(hfgpt, save, tmp_path) -> None:
    answer = hfgpt("convert", save(hidden_act="gelu"), tmp_path / "gpt2", "--to", "gpt2")
    assert "llama.cpp knows GPT-2's formula by tanh only" in answer.out


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoint files of other code bases
# ----------------------------------------------------------------------------------------------------------------------

MODEL_ARGS = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 32, "bias": True, "vocab_size": 97, "dropout": 0.0}


@pytest.fixture
def gpt2(random_gpt2):
    return random_gpt2(activation_function="gelu")


@pytest.fixture
def nanogpt_weights(gpt2) -> dict[str, torch.Tensor]:
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {name: weight.T if name.endswith(transposed) else weight for name, weight in gpt2.state_dict().items()}


@pytest.fixture
def nanogpt_file(nanogpt_weights, tmp_path) -> Path:
    """What nanoGPT's train.py saves."""
    checkpoint = {"model": {f"_orig_mod.{name}": weight for name, weight in nanogpt_weights.items()}, "iter_num": 5}
    extras = {"model_args": MODEL_ARGS, "best_val_loss": torch.tensor(1.5), "config": {"dataset": "shakespeare_char"}}
    torch.save(checkpoint | extras | {"optimizer": {"state": {}, "param_groups": []}}, tmp_path / "ckpt.pt")
    return tmp_path / "ckpt.pt"


@pytest.fixture
def book_file(nanogpt_weights, tmp_path) -> Path:
    """What the book's section 5.4 saves, a checkpoint of its fused variant."""
    renamed = {}
    for name, weight in nanogpt_weights.items():
        for theirs, book in {
            "transformer.wte": "tok_emb",
            "transformer.wpe": "pos_emb",
            "transformer.ln_f": "final_norm",
            "lm_head": "out_head",
            "transformer.h": "trf_blocks",
            "ln_": "norm",
            "attn.c_attn": "att.qkv",
            "attn.c_proj": "att.proj",
            "mlp.c_fc": "ff.layers.0",
            "mlp.c_proj": "ff.layers.2",
        }.items():
            name = name.replace(theirs, book)
        renamed[name] = weight
    torch.save({"model_state_dict": renamed, "optimizer_state_dict": {}}, tmp_path / "book.pth")
    return tmp_path / "book.pth"


@pytest.mark.parametrize("to", ["hfgpt", "gpt2"])
def test_nanogpts_checkpoint_becomes_a_folder_with_its_logits(hfgpt, nanogpt_file, gpt2, tmp_path, to: str) -> None:
    answer = hfgpt("convert", nanogpt_file, tmp_path / "new", "--to", to)
    assert answer.status == 0
    assert f"{nanogpt_file} holds nanoGPT's GPT: 2 layers of width 32, 4 heads" in answer.out
    assert "The exact GELU is assumed" in answer.out
    assert "No tokenizer was saved" in answer.out
    model, info = HEADS["causal-lm"][to == "gpt2"].from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(output(model), output(gpt2), rtol=0, atol=3e-5)


@pytest.mark.parametrize("file_format", ["pth", "safetensors", "before 2020"])
def test_the_books_checkpoint_becomes_a_folder_in_hfgpts_layout_unless_told_otherwise(
    hfgpt, book_file, gpt2, tmp_path, file_format: str
) -> None:
    if file_format == "safetensors":
        weights = torch.load(book_file)["model_state_dict"]
        book_file = tmp_path / "book.safetensors"
        save_file({name: weight.clone().contiguous() for name, weight in weights.items()}, book_file)
    elif file_format == "before 2020":
        torch.save(torch.load(book_file), book_file, _use_new_zipfile_serialization=False)
    options = ("--num-attention-heads", 4, "--hidden-act", "gelu")
    answer = hfgpt("convert", book_file, tmp_path / "new", *options)
    assert answer.status == 0
    assert "holds the book's GPTModelFast" in answer.out
    model = HfGptForCausalLM.from_pretrained(tmp_path / "new")
    torch.testing.assert_close(output(model), output(gpt2), rtol=0, atol=3e-5)


def test_a_tokenizer_that_is_named_goes_along_and_gives_the_special_tokens(
    hfgpt, random_gpt2, tokenizer, tmp_path
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = random_gpt2(vocab_size=320, bos_token_id=None, eos_token_id=None)
    transposed = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    weights = {name: value.T if name.endswith(transposed) else value for name, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "bare.pt")
    options = ("--num-attention-heads", 4, "--tokenizer", tmp_path / "tokenizer")
    for to, auto_class in (("hfgpt", HfGptForCausalLM), ("gpt2", GPT2LMHeadModel)):
        answer = hfgpt("convert", tmp_path / "bare.pt", tmp_path / to, "--to", to, *options)
        assert answer.status == 0
        assert f"The tokenizer {tmp_path / 'tokenizer'} was saved beside it." in answer.out
        assert AutoTokenizer.from_pretrained(tmp_path / to)("the cat")["input_ids"] == tokenizer("the cat")["input_ids"]
        loaded = auto_class.from_pretrained(tmp_path / to)
        assert loaded.config.eos_token_id == loaded.generation_config.eos_token_id == tokenizer.eos_token_id


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(hfgpt, nanogpt_file, tokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    answer = hfgpt("convert", nanogpt_file, tmp_path / "new", "--tokenizer", tmp_path / "tokenizer")
    assert "has 270 ids, but the model 97" in answer.sentence
    assert leftovers(tmp_path) == {"tokenizer", "ckpt.pt"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "book.pth cannot be converted: the number of heads cannot be seen"),
        (("--num-attention-heads", 5), "must be a multiple of num_attention_heads"),
        (("--num-attention-heads", 4, "--lora-alpha", 2), "leave out --lora-alpha"),
        (("--num-attention-heads", 4, "--lora-alpha", "nan"), "an alpha of nan has no meaning"),
        (("--num-attention-heads", 4, "--head", "base"), "is a causal-lm model: convert it with --head auto"),
    ],
)
def test_what_a_file_cannot_be_converted_with_is_one_sentence_and_leaves_nothing(
    hfgpt, book_file, tmp_path, options: tuple, complaint: str
) -> None:
    assert complaint in hfgpt("convert", book_file, tmp_path / "new", *options).sentence
    assert leftovers(tmp_path) == {"book.pth"}


@pytest.mark.parametrize(
    "option",
    [("--num-attention-heads", 4), ("--lora-alpha", 2.0), ("--hidden-act", "gelu")],
    ids=lambda option: option[0],
)
def test_options_for_files_are_refused_for_folders(hfgpt, model_folder, tmp_path, option: tuple) -> None:
    sentence = hfgpt("convert", model_folder, tmp_path / "new", *option).sentence
    assert f"{option[0]} is for the checkpoint files of the book and nanoGPT" in sentence
    assert leftovers(tmp_path) == {"model"}


def test_a_file_that_is_not_there_or_damaged_is_one_sentence_and_leaves_nothing(hfgpt, nanogpt_file, tmp_path) -> None:
    assert "There is no file" in hfgpt("convert", tmp_path / "nothing.pth", tmp_path / "new").sentence
    nanogpt_file.write_bytes(nanogpt_file.read_bytes()[:1000])
    assert "is damaged" in hfgpt("convert", nanogpt_file, tmp_path / "new").sentence
    assert leftovers(tmp_path) == {"ckpt.pt"}


def test_a_folder_with_a_checkpoint_file_but_no_model_points_to_the_file(hfgpt, nanogpt_file, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    nanogpt_file.rename(tmp_path / "out" / "ckpt.pt")
    sentence = hfgpt("convert", tmp_path / "out", tmp_path / "new").sentence
    assert f"if {tmp_path / 'out' / 'ckpt.pt'} is the book's or nanoGPT's" in sentence
