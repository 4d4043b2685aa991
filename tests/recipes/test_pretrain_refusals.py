"""What `hfgpt pretrain` refuses: with one sentence, before any long work, and leaving nothing behind."""

from pathlib import Path

import datasets
import pytest

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.recipes import corpus


@pytest.fixture
def unread_text(monkeypatch) -> None:
    """Fails a test in which the text is read before the mistake is found."""

    def read(*args: object, **kwargs: object) -> None:
        pytest.fail("the text was read before the mistake was found")

    monkeypatch.setattr(corpus, "load_text", read)


def test_a_source_that_is_not_there(recipe) -> None:
    assert "nowhere.txt" in recipe.refusal(source="/no/such/nowhere.txt")


def test_a_built_in_source_that_is_not_there(recipe) -> None:
    assert "builtin:stories" in recipe.refusal(source="builtin:storys")


def test_a_hub_source_without_a_connection(recipe, monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "no-such-organisation/no-such-data" in recipe.refusal(source="no-such-organisation/no-such-data")


@pytest.mark.usefixtures("unread_text")
def test_a_tokenizer_that_is_not_there(recipe, tmp_path) -> None:
    assert "tokenizer" in recipe.refusal(tokenizer=str(tmp_path / "nothing"))


@pytest.mark.usefixtures("unread_text")
def test_a_folder_without_a_tokenizer(recipe, tmp_path) -> None:
    assert "no tokenizer" in recipe.refusal(tokenizer=str(tmp_path))


@pytest.mark.usefixtures("unread_text")
def test_an_output_folder_that_is_a_file(recipe) -> None:
    recipe.output_dir.write_text("mine", encoding="utf-8")
    assert "is a file" in recipe.refusal()
    assert recipe.output_dir.read_text(encoding="utf-8") == "mine"


@pytest.mark.usefixtures("unread_text")
def test_an_output_folder_with_something_in_it(recipe) -> None:
    recipe.output_dir.mkdir()
    (recipe.output_dir / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "--overwrite_output_dir" in recipe.refusal()
    assert [path.name for path in recipe.output_dir.iterdir()] == ["thesis.txt"]


def test_an_output_folder_that_cannot_be_made(recipe, text_file) -> None:
    assert "output_dir" in recipe.refusal(output_dir=str(text_file / "below-a-file"))


@pytest.mark.usefixtures("unread_text")
def test_a_number_format_that_the_device_lacks(recipe) -> None:
    assert "fp16" in recipe.refusal(mixed_precision="fp16")


@pytest.mark.usefixtures("unread_text")
def test_several_mistakes_are_said_at_once(recipe) -> None:
    message = recipe.refusal(max_steps=0, validation_fraction=2.0, model={"hidden_sze": 1})
    for word in ("max_steps", "validation_fraction", "hidden_sze"):
        assert word in message


def text(folder: Path, content: str) -> str:
    path = folder / "text.txt"
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_an_empty_text(recipe, tmp_path) -> None:
    assert "no document with text" in recipe.refusal(source=text(tmp_path, " \n"))


def test_a_text_too_short_for_one_block(recipe, tmp_path, tokenizer_folder) -> None:
    assert "tokens" in recipe.refusal(source=text(tmp_path, "the cat sat " * 3), tokenizer=str(tokenizer_folder))


def test_a_text_too_short_for_one_global_batch(recipe, tmp_path, tokenizer_folder) -> None:
    source = text(tmp_path, "the cat sat on the mat " * 60)
    message = recipe.refusal(source=source, tokenizer=str(tokenizer_folder), global_batch_size=64)
    assert "fewer than one global batch of 64" in message


def test_a_text_too_short_for_the_vocabulary(recipe, tmp_path) -> None:
    assert "ask for" in recipe.refusal(source=text(tmp_path, "the cat " * 99), tokenizer_vocab_size=4000)


@pytest.mark.parametrize(("fraction", "words"), [(1e-6, "one block of 16"), (1e-20, "validation_fraction")])
def test_a_validation_part_without_a_block(recipe, tmp_path, tokenizer_folder, fraction: float, words: str) -> None:
    source = text(tmp_path, "the cat sat on the mat " * 60)
    assert words in recipe.refusal(source=source, tokenizer=str(tokenizer_folder), validation_fraction=fraction)


def test_a_column_that_is_not_there(recipe, tmp_path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "the cat"}\n', encoding="utf-8")
    assert "'body'" in recipe.refusal(source=str(path), text_column="body")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"hidden_size": 15, "num_attention_heads": 2}, "multiple of num_attention_heads"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"max_position_embeddings": 8}, "block_size (16) is greater than the model's max_position_embeddings (8)"),
        ({"vocab_size": 100}, "tokenizer has 280 ids"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_built(recipe, model, words: str) -> None:
    assert words in recipe.refusal(model=model)


def test_an_attention_function_that_there_is_not(recipe) -> None:
    assert "attn_implementation" in recipe.refusal(attn_implementation="nope")


def test_a_checkpoint_that_is_not_there(recipe, tmp_path) -> None:
    recipe.refusal(init_from=str(tmp_path / "nothing"), tokenizer=None, model=None)


def test_a_block_too_long_for_the_checkpoint(recipe, checkpoint) -> None:
    message = recipe.refusal(init_from=str(checkpoint), tokenizer=None, model=None, block_size=17)
    assert "max_position_embeddings (16)" in message


def test_a_tokenizer_with_more_ids_than_the_checkpoint(recipe, checkpoint) -> None:
    message = recipe.refusal(init_from=str(checkpoint), tokenizer="train", tokenizer_vocab_size=290, model=None)
    assert "290 ids" in message


def test_a_prompt_too_long_for_the_context(recipe) -> None:
    assert "holds 16" in recipe.refusal(sample_prompts=["the cat sat on the mat and it sat"])


# ----------------------------------------------------------------------------------------------------------------------
# Before any long work, and leaving nothing behind
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "/no/such/nowhere.txt"},
        {"tokenizer": "/no/such/tokenizer"},
        {"model": {"hidden_size": 15, "num_attention_heads": 2}},
        {"tokenizer_vocab_size": 100_000},
        {"global_batch_size": 100_000},
        {"sample_prompts": ["the cat sat on the mat and it sat"]},
    ],
    ids=lambda fields: ", ".join(fields),
)
def test_a_refused_run_leaves_no_folder_so_that_the_corrected_command_works(recipe, fields) -> None:
    recipe.refusal(**fields)
    assert not recipe.output_dir.exists()


def test_a_refused_run_leaves_the_run_that_it_would_have_replaced(recipe) -> None:
    recipe.run()
    before = {path: path.read_bytes() for path in recipe.output_dir.rglob("*") if path.is_file()}
    recipe.refusal(source="/no/such/nowhere.txt", overwrite_output_dir=True)
    assert {path: path.read_bytes() for path in recipe.output_dir.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("unread_text")
@pytest.mark.parametrize(
    "fields",
    [{"block_size": 17}, {"model": {"hidden_size": 32}}, {"model": {"attention_dropout": "much"}}],
    ids=str,
)
def test_what_does_not_fit_the_checkpoint_is_known_before_the_text_is_read(recipe, checkpoint, fields) -> None:
    recipe.refusal(**{"init_from": str(checkpoint), "tokenizer": None, "model": None, **fields})


@pytest.mark.usefixtures("unread_text")
def test_a_checkpoint_that_is_not_there_is_known_before_the_text_is_read(recipe, tmp_path, tokenizer_folder) -> None:
    recipe.refusal(init_from=str(tmp_path / "nothing"), tokenizer=str(tokenizer_folder), model=None)


@pytest.mark.usefixtures("unread_text")
def test_a_model_that_cannot_be_built_is_known_before_the_text_is_read(recipe) -> None:
    recipe.refusal(model={"hidden_size": 15, "num_attention_heads": 2})


def test_a_model_that_sees_its_targets_is_refused(recipe, tmp_path) -> None:
    assert "would see the next one" in recipe.refusal("--model.is_causal", "false")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    HfGptForCausalLM(HfGptConfig(vocab_size=280, is_causal=False, **sizes)).save_pretrained(tmp_path / "seer")
    assert "would see the next one" in recipe.refusal(
        init_from=str(tmp_path / "seer"), model=None, tokenizer_vocab_size=None
    )
