"""Tokens added to a checkpoint or a new model by the pretraining recipe."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel

from hfgpt import HfGptForCausalLM
from hfgpt.cli.main import main
from hfgpt.recipes import corpus
from hfgpt.recipes.embeddings import make_room
from hfgpt.tokenization import TextEncoder, load_tokenizer

WORDS = ["red house", "naïve"]
SPECIAL_WORDS = ["<|im_start|>"]


def grow(model: HfGptForCausalLM, num_known: int, num_new: int) -> list[str]:
    """`make_room` for a tokenizer of so many ids, the last of them new."""
    return make_room(model, num_known + num_new, num_new)


@pytest.mark.parametrize("tied", [True, False])
def test_old_logits_are_unchanged_and_new_rows_are_the_mean_of_the_old(tiny_config, tied: bool) -> None:
    torch.manual_seed(0)
    model = HfGptForCausalLM(tiny_config(tie_word_embeddings=tied)).eval()
    by_transformers = copy.deepcopy(model)
    input_ids = torch.randint(0, 97, (2, 20))
    with torch.no_grad():
        before = model(input_ids).logits
        (said,) = grow(model, 97, 3)
        after = model(input_ids).logits
    by_transformers.resize_token_embeddings(100, mean_resizing=True)  # the mean, and next to no noise

    assert torch.equal(after[..., :97], before)
    assert said == "embeddings: the last 3 ids begin at the mean of the others"
    assert model.config.vocab_size == after.shape[-1] == 100
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    for embeddings in ("get_input_embeddings", "get_output_embeddings"):
        ours, theirs = (getattr(grown, embeddings)().weight for grown in (model, by_transformers))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    # By Jensen's inequality the new ids are no likelier than the average of the old ones.
    assert (after[..., 97:].exp().mean(-1) <= before.exp().mean(-1)).all()


@pytest.mark.parametrize(("num_new", "num_rows"), [(3, 97), (7, 97), (9, 99)])
def test_new_ids_first_take_the_rows_that_the_model_has_to_spare(tiny_config, num_new: int, num_rows: int) -> None:
    """A vocabulary padded from 90 to 97; the rows that stand for no token are no part of the mean."""
    model = HfGptForCausalLM(tiny_config())
    before = model.get_input_embeddings().weight.detach().clone()
    (said,) = grow(model, 90, num_new)
    after = model.get_input_embeddings().weight
    assert len(after) == model.config.vocab_size == num_rows
    assert f"{min(num_new, 7)} of them in rows that the model had to spare" in said
    assert torch.equal(after[:90], before[:90])
    torch.testing.assert_close(after[90 : 90 + num_new], before[:90].mean(0).expand(num_new, -1))
    assert torch.equal(after[90 + num_new : 97], before[90 + num_new :])


def test_nothing_is_changed_where_nothing_is_added(tiny_config) -> None:
    model = HfGptForCausalLM(tiny_config())
    before = copy.deepcopy(model.state_dict())
    assert grow(model, 97, 0) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layout", ["hfgpt", "gpt2"])
def test_a_checkpoint_of_either_layout_learns_added_tokens(
    recipe, checkpoint, gpt2_checkpoint, text_file, layout: str
) -> None:
    source = {"hfgpt": checkpoint, "gpt2": gpt2_checkpoint}[layout]
    printed = recipe.run(
        init_from=str(source), tokenizer=None, model=None, added_tokens=WORDS, added_special_tokens=SPECIAL_WORDS
    )
    assert "tokenizer: 283 ids" in printed
    assert "added tokens: 'red house', 'naïve', '<|im_start|>'\n" in printed
    assert "embeddings: the last 3 ids begin at the mean of the others\n" in printed

    model, tokenizer = AutoModelForCausalLM.from_pretrained(recipe.final), AutoTokenizer.from_pretrained(recipe.final)
    assert type(model) is HfGptForCausalLM
    assert model.config.vocab_size == len(tokenizer) == 283
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert tokenizer.convert_tokens_to_ids([*WORDS, *SPECIAL_WORDS]) == [280, 281, 282]
    text = f"{text_file.read_text(encoding='utf-8')} a naïve red house<|im_start|>"
    (ids,) = TextEncoder(load_tokenizer(recipe.final))([text])
    assert ids == tokenizer(text, verbose=False)["input_ids"]
    assert ids.count(280) == text.count("red house")
    assert 282 not in ids
    assert tokenizer.decode(ids) == text
    answer = model.generate(torch.tensor([tokenizer("a red house")["input_ids"]]), max_new_tokens=3, do_sample=False)
    assert tokenizer.decode(answer[0]).startswith("a red house")


def test_tokens_that_the_checkpoint_has_are_said_and_left_alone(recipe, checkpoint) -> None:
    fields = {"tokenizer": None, "model": None, "added_tokens": [*WORDS, "cat"]}
    first = recipe.run(init_from=str(checkpoint), **fields)
    assert "added tokens: 'red house', 'naïve'; it had 'cat' already\n" in first
    again = recipe.folder / "again"
    second = recipe.run("--output_dir", str(again), init_from=str(recipe.final), **fields)
    assert "added tokens: none; it had 'red house', 'naïve', 'cat' already\n" in second
    assert "embeddings:" not in second
    assert AutoModelForCausalLM.from_pretrained(again / "final").config.vocab_size == 282


@pytest.mark.parametrize("given", ["train", "folder"])
def test_a_new_model_has_rows_for_added_tokens(recipe, tokenizer_folder, given: str) -> None:
    tokenizer = {"train": "train", "folder": str(tokenizer_folder)}[given]
    recipe.run("--added_tokens", '["red house", "naïve"]', tokenizer=tokenizer, added_special_tokens=SPECIAL_WORDS)
    assert AutoModelForCausalLM.from_pretrained(recipe.final).config.vocab_size == 283
    assert AutoTokenizer.from_pretrained(recipe.final).convert_tokens_to_ids("red house") == 280


def test_a_grown_model_opens_from_gpt2s_layout_with_transformers_alone(
    recipe, checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.run(init_from=str(checkpoint), tokenizer=None, model=None, added_tokens=WORDS)
    monkeypatch.setattr("sys.argv", ["hfgpt", "convert", str(recipe.final), str(tmp_path / "gpt2"), "--to", "gpt2"])
    with pytest.raises(SystemExit, match="0"):
        main()
    ours, theirs = HfGptForCausalLM.from_pretrained(recipe.final), GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2")
    input_ids = torch.tensor([[1, 281, 280, 5]])
    torch.testing.assert_close(theirs.eval()(input_ids).logits, ours.eval()(input_ids).logits)
    assert theirs.config.vocab_size == 282


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"added_tokens": [""]}, "more than white space"),
        ({"added_tokens": ["a b", "a b"]}, "'a b' is given more than once"),
        ({"added_tokens": ["x"], "added_special_tokens": ["x"]}, "'x' is given more than once"),
        ({"added_tokens": "Lindale"}, "added_tokens"),
        ({"added_tokens": ["<|endoftext|>"]}, "'<|endoftext|>' is a special token of the tokenizer already"),
        ({"added_special_tokens": ["cat"]}, "'cat' is an ordinary token of the tokenizer already"),
    ],
    ids=str,
)
def test_what_cannot_be_added_is_refused_before_the_text_is_read(
    recipe, checkpoint, monkeypatch, fields, words: str
) -> None:
    def read(*args: object, **kwargs: object) -> None:
        pytest.fail("the text was read before the mistake was found")

    monkeypatch.setattr(corpus, "load_text", read)
    assert words in recipe.refusal(init_from=str(checkpoint), tokenizer=None, model=None, **fields)
    assert not recipe.output_dir.exists()


def test_a_tokenizer_that_is_too_large_before_anything_is_added_is_refused(recipe, checkpoint) -> None:
    fields = {"tokenizer": "train", "tokenizer_vocab_size": 290, "model": None, "added_tokens": WORDS}
    assert "The tokenizer has 290 ids" in recipe.refusal(init_from=str(checkpoint), **fields)
