"""From a YAML file and the command line to a configuration, and what is refused on the way."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfgpt.errors import UserError
from hfgpt.recipes.configuration import parse_config, shipped_configs
from hfgpt.recipes.pretrain_config import PretrainConfig

SHIPPED = shipped_configs("pretrain")


def parse(*arguments: str) -> PretrainConfig:
    return parse_config("pretrain", PretrainConfig, "Pretraining.", arguments)


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def yaml_file(tmp_path: Path):
    def write(content: str | bytes) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return str(path)

    return write


def test_all_recipes_are_shipped() -> None:
    assert set(SHIPPED) == {
        "book-base", "continue", "demo", "gpt2-124m", "instructions-base", "shakespeare", "sms", "verdict",
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED.values(), ids=lambda path: path.stem)
def test_every_shipped_recipe_parses_by_name_and_by_path_to_what_its_file_says(path: Path) -> None:
    by_name, by_path = parse("--config", path.stem), parse("--config", str(path))
    assert by_name == by_path
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {name: getattr(by_name, name) for name in content} == content


@pytest.mark.parametrize("path", SHIPPED.values(), ids=lambda path: path.stem)
def test_every_shipped_recipe_begins_with_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "demo", "--max_steps", "5", "--model.hidden_size", "64"),
        ("--config=demo", "--max-steps=5", "--model.hidden-size=64"),
        ("--max-steps", "5", "--model.hidden-size", "64", "--config", "demo"),
        ("--config", "demo", "--max_steps", "7", "--model.hidden_size=64", "--max-steps", "5"),
    ],
    ids=["spaces", "equals signs and dashes", "config last", "twice"],
)
def test_options_override_the_file_in_any_spelling_and_order(arguments: tuple[str, ...]) -> None:
    config, unchanged = parse(*arguments), parse("--config", "demo")
    model = {**unchanged.model, "hidden_size": 64}
    assert config == dataclasses.replace(unchanged, max_steps=5, model=model)


def test_values_keep_their_dashes_and_equals_signs() -> None:
    config = parse("--config", "demo", "--source", "my-texts/a-b=c.txt", "--output-dir=runs/x-y")
    assert (config.source, config.output_dir) == ("my-texts/a-b=c.txt", "runs/x-y")


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "1.0e-3", ".001"])
def test_a_number_may_be_written_with_an_exponent(yaml_file, number: str) -> None:
    content = f"output_dir: x\nsource: y\nmax_steps: 3\nlearning_rate: {number}\nmodel: {{layer_norm_eps: {number}}}\n"
    config = parse("--config", yaml_file(content))
    assert (config.learning_rate, config.model) == (0.001, {"layer_norm_eps": 0.001})
    assert parse("--config", "demo", "--learning_rate", number).learning_rate == 0.001


def test_lists_and_null_are_given_as_yaml() -> None:
    options = {"--sample_prompts": '["a b", ""]', "--ngram_baselines": "[3]", "--max_steps": "null"}
    options |= {"--num_train_epochs": "1.5", "--overwrite_output_dir": "true"}
    config = parse("--config", "demo", *(word for option in options.items() for word in option))
    assert (config.sample_prompts, config.ngram_baselines) == (["a b", ""], [3])
    assert (config.max_steps, config.num_train_epochs, config.overwrite_output_dir) == (None, 1.5, True)


def test_a_configuration_without_a_file_is_given_by_options_alone() -> None:
    config = parse("--output_dir", "x", "--source", "y", "--max_steps", "3")
    assert config == PretrainConfig(output_dir="x", source="y", max_steps=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "demo", "--learning_rte", "1"], ["--learning_rte"]),
        (["--config", "demo", "--max_steps", "many"], ["max_steps", "many"]),
        (["--config", "demo", "--max_steps", "5.5"], ["max_steps", "5.5"]),
        (["--config", "demo", "--lr_scheduler_type", "cosin"], ["lr_scheduler_type", "cosin", "linear"]),
        (["--config", "demo", "--sample_prompts", "hello"], ["sample_prompts", "list"]),
        (["--config", "demo", "--model", "3"], ["model", "dict"]),
        (["--config", "demo", "--max_steps"], ["max_steps"]),
        (["--config", "demo", "--learning_rate", ".nan"], ["learning_rate", "finite"]),
        (["--config", "demo", "stray"], ["stray"]),
        (["--config", "dmo"], ["'dmo'", "demo, gpt2-124m"]),
        (["--config", "no/such/file.yaml"], ["no/such/file.yaml"]),
        (["--config=no/such/file.yaml"], ["no/such/file.yaml"]),
        (["--config"], ["--config"]),
        ([], ["output_dir, source"]),
        (["--output_dir", "x", "--max_steps", "3"], ["source"]),
        (["--output_dir", "x", "--source", "y"], ["exactly one of max_steps and num_train_epochs"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], words: list[str]) -> None:
    message = refused(*arguments)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("output_dir: x\nsource: y\nmax_steps: 3\nlearning_rte: 1\n", ["learning_rte"]),
        ("output_dir: [x\nsource: y: z\n", ["line 1"]),
        ("- a\n- b\n", ["config"]),
        ("", ["config"]),
        ("source: y\nmax_steps: 3\n", ["output_dir"]),
        ("output_dir: x\nsource: y\nmax_steps: three\n", ["max_steps", "three"]),
        (b"\xff\xfe\x00", ["cannot be read"]),
        (b"output_dir: a\x00b\n", ["config"]),
    ],
    ids=["unknown key", "broken", "a list", "empty", "key missing", "wrong type", "not UTF-8", "control character"],
)
def test_a_wrong_file_is_one_sentence(yaml_file, content: str | bytes, words: list[str]) -> None:
    message = refused("--config", yaml_file(content))
    for word in words:
        assert word in message


def problems(**fields: Any) -> list[str]:
    return PretrainConfig(**{"output_dir": "x", "source": "y", "max_steps": 3, **fields}).problems()


def test_the_defaults_of_pretraining_are_sound() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_steps": 0}, "max_steps must be greater than zero"),
        ({"validation_fraction": 0.0}, "validation_fraction must lie between 0 and 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must lie between 0 and 1"),
        ({"block_size": 0, "sample_max_new_tokens": -1}, "block_size must be greater than zero, but is 0."),
        ({"stride": 0}, "stride must be greater than zero"),
        ({"sample_max_new_tokens": 0}, "sample_max_new_tokens must be greater than zero"),
        ({"max_validation_documents": 0}, "max_validation_documents must be greater than zero"),
        ({"stream_lanes": 0}, "stream_lanes must be greater than zero"),
        ({"shuffle_buffer_size": 0}, "shuffle_buffer_size must be greater than zero"),
        ({"tokenizer_vocab_size": 256}, "tokenizer_vocab_size must be at least 257"),
        ({"streaming": True}, "A stream cannot train a tokenizer"),
        ({"streaming": True, "tokenizer": "t", "max_steps": None, "num_train_epochs": 1.0}, "give max_steps"),
        ({"streaming": True, "tokenizer": "t", "ngram_baselines": [2]}, "n-gram baselines need the whole text"),
        ({"streaming": True, "tokenizer": "t", "stride": 8}, "leave stride out"),
        ({"streaming": True, "tokenizer": "t", "split_by": "characters"}, "cannot be split by characters"),
        ({"ngram_baselines": [2, 0]}, "orders from 1 upwards"),
        ({"model": {"hidden_sze": 3, "n_layr": 1}}, "model has no field hidden_sze, n_layr"),
        ({"model": {"dtype": "bfloat16"}}, "model has no field dtype"),
        ({"model": {"hidden_size": 64, "n_embd": 32}}, "model gives hidden_size twice, also as n_embd"),
        ({"model": {"hidden_size": 10, "num_attention_heads": 3}}, "multiple of num_attention_heads (3)"),
        ({"model": {"hidden_size": "wide"}}, "'hidden_size' expected int"),
        ({"block_size": 50, "sample_max_new_tokens": 50}, "must be less than block_size (50)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_pretraining_cannot_do_is_said(fields: dict[str, Any], words: str) -> None:
    assert any(words in problem for problem in problems(**fields)), problems(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"streaming": True, "tokenizer": "t"},
        {"streaming": True, "init_from": "m"},
        {"model": {"n_embd": 96, "hidden_act": "gelu"}},
        {"block_size": 8, "init_from": "m"},
        {"block_size": 8, "model": {"max_position_embeddings": 64}},
        {"tokenizer": "t", "tokenizer_vocab_size": 3},
    ],
    ids=str,
)
def test_what_pretraining_can_do_is_not_refused(fields: dict[str, Any]) -> None:
    assert problems(**fields) == []


def test_the_tokenizer_defaults_to_that_of_the_checkpoint_and_else_to_a_new_one() -> None:
    def name(**fields: str) -> str:
        return PretrainConfig(output_dir="x", source="y", max_steps=1, **fields).tokenizer_name

    assert (name(), name(init_from="m"), name(init_from="m", tokenizer="t")) == ("train", "m", "t")


def test_help_lists_every_field_with_its_text_and_exits_with_0(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(PretrainConfig):
        assert f"--{field.name}" in text
    assert "Peak learning rate." in text


@pytest.mark.parametrize("option", ["--print_config", "--print-config"])
def test_print_config_prints_what_a_run_would_use_and_exits_with_0(capsys, yaml_file, option: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse("--config", "demo", "--max_steps", "5", option)
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert parse("--config", yaml_file(printed)) == parse("--config", "demo", "--max_steps", "5")
