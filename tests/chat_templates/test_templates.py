"""Setting a template: what is saved, what ends an answer, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hfgpt.chat_templates import (
    TEMPLATES,
    encode_chat_prompt,
    encode_conversations,
    guard_chat_template,
    set_chat_template,
    special_tokens_of,
    stop_token_ids,
)
from hfgpt.errors import UserError
from hfgpt.tokenization import (
    END_OF_TEXT,
    encode_for_classification,
    extend_tokenizer,
    load_tokenizer,
    train_tokenizer,
    use_for_plain_text,
)

OWN = """
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
A:
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
    {%- else -%}
Q: {{ message.content }}{{ '\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}A:
{% endif -%}
"""
SPACE_BEFORE_THE_ANSWER = OWN.replace("A:\n", "A: ")
MESSAGES = [{"role": "user", "content": f"a {END_OF_TEXT}"}, {"role": "assistant", "content": "b"}]


@pytest.fixture
def own(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "own.jinja").write_text(text, encoding="utf-8")
        return tmp_path / "own.jinja"

    return write


@pytest.fixture
def fresh(plain: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return extend_tokenizer(plain, [], [])[0]


@pytest.mark.parametrize(("name", "stops"), [("alpaca", [299]), ("phi3", [299]), ("chatml", [301, 299])])
def test_an_answer_ends_with_its_templates_end_or_the_documents(name: str, stops: list[int], with_template) -> None:
    tokenizer = with_template(name)
    assert stop_token_ids(tokenizer) == stops
    assert tokenizer.eos_token_id == 299


def test_without_marked_answers_the_end_of_text_ends_them(fresh: PreTrainedTokenizerFast) -> None:
    fresh.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert stop_token_ids(fresh) == [299]
    with pytest.raises(UserError, match="marks no answer in the conversation: .*generation"):
        encode_conversations(fresh, [MESSAGES])


def test_a_template_of_ones_own_is_guarded_as_those_that_come_along(fresh: PreTrainedTokenizerFast, own) -> None:
    set_chat_template(fresh, own(OWN))
    assert fresh.apply_chat_template(MESSAGES, tokenize=False) == f"Q: a < |endoftext|>\nA:\nb{END_OF_TEXT}"
    assert stop_token_ids(fresh) == [299]


def test_setting_the_saved_template_anew_guards_against_new_tokens(with_template) -> None:
    tokenizer = with_template("phi3")
    before = tokenizer.chat_template
    set_chat_template(tokenizer, "saved")
    assert tokenizer.chat_template == before
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|tool|>"]})
    set_chat_template(tokenizer, "saved")
    assert tokenizer.chat_template != before
    messages = [{"role": "user", "content": "<|tool|><|user|>"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|user|>\n< |tool|>< |user|>"


def test_the_rule_is_off_in_the_saved_tokenizer_and_plain_text_still_follows_it(with_template, tmp_path: Path) -> None:
    tokenizer = with_template("chatml")
    tokenizer.save_pretrained(tmp_path)
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert loaded.split_special_tokens is False
        assert loaded.chat_template == tokenizer.chat_template
        ids = encode_for_classification(loaded, [END_OF_TEXT], max_length=100).input_ids[0]
        assert ids == loaded(END_OF_TEXT, split_special_tokens=True)["input_ids"]
        assert 299 not in ids
        assert encode_for_classification(loaded, [END_OF_TEXT * 2], max_length=3).input_ids[0] == ids[:3]


def test_a_tokenizer_can_go_back_to_plain_text(with_template, tmp_path: Path) -> None:
    tokenizer = with_template("alpaca")
    use_for_plain_text(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.chat_template is None
    assert 299 not in loaded(END_OF_TEXT)["input_ids"]


def test_tokens_added_to_a_tokenizer_with_a_template(with_template, caplog: pytest.LogCaptureFixture) -> None:
    """Ordinary ones leave it as it is; against special ones the guard would not hold, so the template goes, aloud."""
    tokenizer = with_template("alpaca")
    with_ordinary, _ = extend_tokenizer(tokenizer, ["cats"], [])
    assert with_ordinary.chat_template == tokenizer.chat_template
    assert with_ordinary.split_special_tokens is False
    assert "chat template" not in caplog.text
    with_special, _ = extend_tokenizer(tokenizer, [], ["<|tool|>"])
    assert with_special.chat_template is None
    assert with_special.split_special_tokens is True
    assert "chat template is left out" in caplog.text


def test_chatml_needs_its_tokens(fresh: PreTrainedTokenizerFast) -> None:
    assert special_tokens_of("chatml") == ("<|im_start|>", "<|im_end|>")
    with pytest.raises(UserError, match=r"needs the special tokens <\|im_start\|> and <\|im_end\|>"):
        set_chat_template(fresh, "chatml")
    assert fresh.chat_template is None


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (SPACE_BEFORE_THE_ANSWER, "has white space before the answer"),
        (OWN.replace("{{ eos_token }}", ""), "does not end the answer"),
        (
            OWN.replace("{{ eos_token }}{% endgeneration %}", "{% endgeneration %}{{ eos_token }}"),
            "does not end the ans",
        ),
        (OWN.replace("{{ eos_token }}", "{{ eos_token }} "), "does not end the answer"),
        (OWN.replace("{% generation %}", "").replace("{% endgeneration %}", ""), "marks no answer"),
        ("{% for message in messages %}", "cannot be used: .*endfor"),
        ("{{ 1 / 0 }}", "cannot be used: .*division by zero"),
        ("{{ messages.nothing.at_all }}", "cannot be used: .*undefined|cannot be used: .*has no attribute"),
        (OWN.replace("{%- if add_generation_prompt -%}A:", "{%- if add_generation_prompt -%}B:"), "another prompt"),
        ("", "marks no answer"),
    ],
)
def test_a_template_that_would_not_work_is_refused_in_a_sentence(fresh, own, template: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        set_chat_template(fresh, own(template))
    assert "own.jinja" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert fresh.chat_template is None
    assert fresh.split_special_tokens is True


def test_white_space_before_the_answer_is_said_where_a_token_joins_it_with_a_word(own) -> None:
    tokenizer = train_tokenizer(["Blue sky, Blue sea"] * 20, 264)
    assert len(tokenizer(" Blue")["input_ids"]) == 1
    with pytest.raises(UserError, match="has white space before the answer"):
        set_chat_template(tokenizer, own(SPACE_BEFORE_THE_ANSWER))


def test_a_template_that_is_not_there_is_refused_in_a_sentence(fresh, tmp_path: Path) -> None:
    for name in ("llama", tmp_path / "none.jinja", tmp_path):
        with pytest.raises(UserError, match="no chat template .*choose one of alpaca, phi3, chatml"):
            set_chat_template(fresh, name)
    (tmp_path / "latin.jinja").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="not UTF-8"):
        set_chat_template(fresh, tmp_path / "latin.jinja")
    with pytest.raises(UserError, match="has no chat template"):
        set_chat_template(fresh, "saved")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("@", "single character"),
        ("<|a b|>", "white space"),
        ("abab", "'abab' begins with the end of 'abab'"),
        ("|><|", r"begins with the end of"),
        ("<<|endoftext|>", r"'<\|endoftext\|>' begins with the end of '<<\|endoftext\|>'"),
    ],
)
def test_special_tokens_that_cannot_be_kept_out_of_text_are_refused(fresh, token: str, reason: str) -> None:
    fresh.add_special_tokens({"extra_special_tokens": [token]})
    for name in TEMPLATES[:2]:
        with pytest.raises(UserError, match=f"cannot be kept out of a user's text, since .*{reason}"):
            set_chat_template(fresh, name)


def test_special_tokens_in_normalised_text_are_refused(fresh: PreTrainedTokenizerFast) -> None:
    fresh.backend_tokenizer.normalizer = normalizers.Lowercase()
    fresh.add_special_tokens({"extra_special_tokens": [AddedToken("<|tool|>", normalized=True, special=True)]})
    with pytest.raises(UserError, match="normalised text"):
        set_chat_template(fresh, "alpaca")


def test_a_template_of_others_is_guarded_too_and_one_of_ours_is_left_as_it_is(fresh, with_template) -> None:
    fresh.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
    fresh.split_special_tokens = False
    assert 299 in encode_chat_prompt(fresh, MESSAGES), "what a user typed became the end token"
    guard_chat_template(fresh)
    assert fresh.decode(encode_chat_prompt(fresh, MESSAGES)) == "a < |endoftext|>\nb\n"
    assert 299 not in encode_chat_prompt(fresh, MESSAGES)
    ours = with_template("chatml")
    before = ours.chat_template
    guard_chat_template(ours)
    assert ours.chat_template == before
