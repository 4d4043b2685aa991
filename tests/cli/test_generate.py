"""`hfgpt generate`: text for people, JSON for programs."""

import json

import pytest

from hfgpt.serving.generation import continue_prompt
from hfgpt.serving.loading import load_model
from hfgpt.tokenization import load_tokenizer


def texts(answer) -> list[str]:
    assert answer.status == 0
    return [json.loads(line)["text"] for line in answer.out.splitlines()]


def test_the_prompt_is_printed_with_its_continuation(hfgpt, model_folder) -> None:
    answer = hfgpt(
        "generate", "--model", model_folder, "--prompt", "the cat", "--max-new-tokens", 8, "--temperature", 0
    )
    (expected,) = continue_prompt(
        load_model(model_folder), load_tokenizer(model_folder), "the cat", max_new_tokens=8, temperature=0
    )
    assert answer.status == 0
    assert answer.out == f"the cat{expected}\n"


def test_nothing_but_the_text_is_printed(hfgpt, model_folder) -> None:
    """No warning of ignored settings, no progress bar: not even for greedy text from a model that draws by default."""
    for options in (["--temperature", 0], ["--top-k", 5, "--top-p", 0.5], ["--json"]):
        answer = hfgpt("generate", "--model", model_folder, "--prompt", "the", *options)
        assert (answer.status, answer.err) == (0, "")


def test_samples_are_printed_one_under_the_other(hfgpt, model_folder) -> None:
    options = ["--model", model_folder, "--prompt", "the cat", "--num-samples", 3, "--seed", 1, "--max-new-tokens", 4]
    plain, as_json = hfgpt("generate", *options), hfgpt("generate", *options, "--json")
    assert plain.out == "\n".join(f"the cat{text}\n" for text in texts(as_json))


def test_json_is_one_object_a_line_with_prompt_text_and_number(hfgpt, model_folder) -> None:
    answer = hfgpt("generate", "--model", model_folder, "--prompt", 'a "cat" ü', "--num-samples", 2, "--json")
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line.keys() for line in lines] == [{"prompt", "text", "sample"}] * 2
    assert [(line["prompt"], line["sample"]) for line in lines] == [('a "cat" ü', 0), ('a "cat" ü', 1)]


def test_seeds_repeat_and_differ(hfgpt, model_folder) -> None:
    def generate(*options: object) -> list[str]:
        return texts(hfgpt("generate", "--model", model_folder, "--prompt", "the", "--json", *options))

    assert generate("--seed", 1) == generate("--seed", 1)
    assert generate("--seed", 1) != generate("--seed", 2)
    assert generate() != generate()


def test_an_empty_prompt_begins_a_document(hfgpt, model_folder) -> None:
    assert len(texts(hfgpt("generate", "--model", model_folder, "--json"))) == 1


def test_a_long_prompt_leaves_less_room_by_default(hfgpt, model_folder, tokenizer) -> None:
    prompt = "cat " * 13
    room = 32 - len(tokenizer(prompt)["input_ids"])
    assert 0 < room < 20
    assert len(texts(hfgpt("generate", "--model", model_folder, "--prompt", prompt, "--json"))) == 1
    options = ["--max-new-tokens", room + 1]
    assert "holds 32" in hfgpt("generate", "--model", model_folder, "--prompt", prompt, *options, "--json").sentence


def test_a_prompt_longer_than_the_context_is_one_sentence(hfgpt, model_folder) -> None:
    answer = hfgpt("generate", "--model", model_folder, "--prompt", "the cat " * 60, "--json")
    assert answer.status == 2
    assert answer.out == ""
    assert "shorten the prompt" in answer.err.splitlines()[-1]


def test_a_prompt_that_is_not_utf8_is_read_all_the_same(hfgpt, model_folder) -> None:
    """Python hands over such bytes as halves of surrogate pairs, which can be neither encoded nor printed."""
    answer = hfgpt("generate", "--model", model_folder, "--prompt", "the \udcff", "--temperature", 0)
    assert answer.status == 0
    assert answer.out.startswith("the \ufffd")


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", -1],
        ["--top-k", 0],
        ["--top-p", 2],
        ["--num-samples", 0],
        ["--max-new-tokens", 0],
        ["--seed", -1],
    ],
    ids=lambda options: f"{options[0]} {options[1]}",
)
def test_numbers_out_of_range_end_with_status_2(hfgpt, model_folder, options) -> None:
    answer = hfgpt("generate", "--model", model_folder, *options)
    assert answer.status == 2
    assert "Traceback" not in answer.err


def test_a_model_without_a_tokenizer_needs_one(hfgpt, save, model_folder) -> None:
    bare = save(name="bare", with_tokenizer=False)
    assert "tokenizer" in hfgpt("generate", "--model", bare).sentence
    options = ["--tokenizer", model_folder, "--seed", 1, "--json"]
    assert texts(hfgpt("generate", "--model", bare, *options)) == texts(
        hfgpt("generate", "--model", model_folder, "--seed", 1, "--json")
    )


def test_a_missing_model_is_one_sentence(hfgpt, tmp_path) -> None:
    assert hfgpt("generate", "--model", tmp_path / "nothing").sentence.startswith("There is no folder")
