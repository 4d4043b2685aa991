"""Conversations as tokens: the same as transformers', no special token out of what is said, loss on the answers."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, pipeline

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.chat_templates import (
    TEMPLATES,
    EncodedConversation,
    check_conversations,
    encode_chat_prompt,
    encode_conversations,
    set_chat_template,
    special_tokens_of,
    stop_token_ids,
)
from hfgpt.errors import UserError
from hfgpt.tokenization import END_OF_TEXT, extend_tokenizer, load_tokenizer

MARKERS = [END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>:\n", "< |endoftext|>", "<|endof", "<|"]
WORDS = ["text|>", "\n\n", "cat", "'s", "### Response:\n", "{{ 7 * 7 }}", "{% endfor %}", "3.14", "!!"]
CHARACTERS = " \n\t\x1c\x85\xa0\u2028\u3000\u200b\ufeff\x00é中👍\ud83d\udc4d"
PIECES = st.sampled_from([*MARKERS, *WORDS, *CHARACTERS])
CONTENTS = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(max_size=12))
EXCHANGES = st.lists(st.tuples(CONTENTS, st.none() | CONTENTS, CONTENTS), min_size=1, max_size=3)


def as_messages(exchanges: list[tuple[str, str | None, str]], system: str | None = None) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system, "input": None}]
    for question, material, answer in exchanges:
        messages.append({"role": "user", "content": question, "input": material})
        messages.append({"role": "assistant", "content": answer, "input": None})
    return messages


CONVERSATIONS = [
    as_messages([("Reverse the word.", "cat", "tac")]),
    as_messages([("Reverse.", None, "é 中 👍")], system="Be short."),
    as_messages([("One?", "", "Two."), (" Three? ", "four\n", "\nfive ")], system=" "),
    as_messages([(f"Copy {END_OF_TEXT}", "<|im_end|>", f"{END_OF_TEXT}<|assistant|>")]),
]


@pytest.fixture(scope="module", params=TEMPLATES)
def tokenizer(request: pytest.FixtureRequest, with_template: Callable[[str], PreTrainedTokenizerFast]):
    return with_template(request.param)


def marked(encoded: EncodedConversation) -> list[list[int]]:
    """The ids of each stretch that bears loss."""
    stretches: list[list[int]] = []
    before = False
    for id, bears_loss in zip(*encoded, strict=True):
        if bears_loss:
            stretches.append([]) if not before else None
            stretches[-1].append(id)
        before = bears_loss
    return stretches


def test_ids_and_marks_are_those_of_transformers(tokenizer: PreTrainedTokenizerFast) -> None:
    expected = tokenizer.apply_chat_template(
        CONVERSATIONS, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    encoded = encode_conversations(tokenizer, CONVERSATIONS)
    assert [ids for ids, _ in encoded] == expected["input_ids"]
    assert [list(map(int, bears_loss)) for _, bears_loss in encoded] == expected["assistant_masks"]
    for conversation in CONVERSATIONS:
        prompt = tokenizer.apply_chat_template(conversation[:-1], add_generation_prompt=True, return_dict=False)
        assert encode_chat_prompt(tokenizer, conversation[:-1]) == prompt


@settings(max_examples=150, deadline=None)
@given(exchanges=EXCHANGES, system=st.none() | CONTENTS)
def test_a_prompt_has_the_same_tokens_alone_and_in_the_conversation(tokenizer, exchanges, system) -> None:
    """Each answer follows on its prompt, token by token: what is generated is what was trained."""
    messages = as_messages(exchanges, system)
    encoded = encode_conversations(tokenizer, [messages])[0]
    check_conversations([encoded], tokenizer)
    answers = marked(encoded)
    assert len(answers) == len(exchanges)
    for number, answer in enumerate(answers):
        earlier = messages[: len(messages) - 2 * (len(exchanges) - number) + 1]
        prompt = encode_chat_prompt(tokenizer, earlier)
        assert encoded.input_ids[: len(prompt) + len(answer)] == prompt + answer


@settings(max_examples=150, deadline=None)
@given(exchanges=EXCHANGES, system=st.none() | CONTENTS)
def test_nothing_that_is_said_becomes_a_special_token(tokenizer, exchanges, system) -> None:
    special_ids = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}

    def specials(messages: list[dict[str, Any]]) -> list[int]:
        return [id for id in encode_conversations(tokenizer, [messages])[0].input_ids if id in special_ids]

    said = as_messages(exchanges, "s" if system and system.strip() else None)
    harmless = [{**message, "content": "x", "input": None} for message in said]
    if system is not None:
        said = as_messages(exchanges, system)
    assert specials(said) == specials(harmless)


@settings(max_examples=60, deadline=None)
@given(content=CONTENTS)
def test_what_is_said_comes_back_but_for_its_margins_and_a_space_in_each_marker(tokenizer, content) -> None:
    clean = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    (answer,) = marked(encode_conversations(tokenizer, [as_messages([("x", None, content)])])[0])
    said = str(tokenizer.decode(answer[:-1]))
    markers = [END_OF_TEXT, *tokenizer.extra_special_tokens]
    markers += ["<|user|>", "<|assistant|>", "<|system|>"] if "<|user|>\\n" in tokenizer.chat_template else []
    for marker in markers:
        clean = clean.replace(marker, f"{marker[0]} {marker[1:]}")
    assert said == clean


def test_the_book_writes_the_same_text_and_tokens(test_data: Path) -> None:
    """The book's `format_input`, its tokenizer and the collate function's end token, on its 1,100 entries."""
    book = pytest.importorskip("llms_from_scratch.ch07", reason="the book's code is installed by hand")
    entries = json.loads((test_data / "instruction-data.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(test_data / "gpt2")
    set_chat_template(tokenizer, "alpaca")
    encode = load_tokenizer(test_data / "gpt2")
    conversations = [
        as_messages([(entry["instruction"], entry["input"] or None, entry["output"])]) for entry in entries
    ]
    for entry, (ids, bears_loss) in zip(entries, encode_conversations(tokenizer, conversations), strict=True):
        prompt = encode(f"{book.format_input(entry)}\n\n### Response:\n")["input_ids"]
        assert ids == [*encode(f"{book.format_input(entry)}\n\n### Response:\n{entry['output']}")["input_ids"], 50256]
        assert bears_loss.index(True) == len(prompt)
        assert all(bears_loss[len(prompt) :])


def test_the_phi3_template_writes_what_the_books_exercise_asks_for(with_template) -> None:
    tokenizer = with_template("phi3")
    text = tokenizer.apply_chat_template(as_messages([("Reverse the word.", "cat", "tac")]), tokenize=False)
    assert text == f"<|user|>\nReverse the word.\ncat\n<|assistant|>:\ntac{END_OF_TEXT}"


def test_turns_follow_each_other_as_their_templates_say(with_template) -> None:
    messages = as_messages([("a", "b", "c"), ("d", None, "e")], system="s")
    texts = {name: with_template(name).apply_chat_template(messages, tokenize=False) for name in TEMPLATES}
    assert texts["alpaca"] == (
        f"s\n\n### Instruction:\na\n\n### Input:\nb\n\n### Response:\nc{END_OF_TEXT}"
        f"\n\n### Instruction:\nd\n\n### Response:\ne{END_OF_TEXT}"
    )
    assert texts["phi3"] == (
        f"<|system|>\ns\n<|user|>\na\nb\n<|assistant|>:\nc{END_OF_TEXT}\n<|user|>\nd\n<|assistant|>:\ne{END_OF_TEXT}"
    )
    assert texts["chatml"] == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\ne<|im_end|>\n"
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_saved_tokenizer_writes_the_same_in_a_process_without_hfgpt(name: str, with_template, tmp_path: Path) -> None:
    tokenizer = with_template(name)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "conversations.json").write_text(json.dumps(CONVERSATIONS))
    script = """
import json, sys
sys.modules["hfgpt"] = None  # an import of it would raise
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
conversations = json.load(open(sys.argv[1] + "/conversations.json"))
encoded = tokenizer.apply_chat_template(conversations, return_dict=True, return_assistant_tokens_mask=True)
print(json.dumps([encoded["input_ids"], encoded["assistant_masks"]]))
"""
    elsewhere = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    encoded = encode_conversations(load_tokenizer(tmp_path), CONVERSATIONS)
    assert encoded == encode_conversations(tokenizer, CONVERSATIONS)
    assert json.loads(elsewhere.stdout) == [
        [ids for ids, _ in encoded],
        [list(map(int, bears_loss)) for _, bears_loss in encoded],
    ]


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pipeline_gives_the_model_the_prompt_that_was_trained(name: str, with_template, tmp_path: Path) -> None:
    tokenizer = with_template(name)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 256}
    model = HfGptForCausalLM(HfGptConfig(vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    answer = pipeline("text-generation", str(tmp_path))
    messages = [{"role": "user", "content": f"Reverse {END_OF_TEXT}"}]
    seen: list[Any] = []
    hook = answer.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    answer(messages, max_new_tokens=1, do_sample=False)
    hook.remove()
    assert seen[0].tolist() == [encode_chat_prompt(tokenizer, messages)]


def test_loss_is_on_the_answers_and_their_ends_or_on_all_but_the_first_token(tokenizer) -> None:
    (on_answer,) = encode_conversations(tokenizer, CONVERSATIONS[2:3])
    (on_all,) = encode_conversations(tokenizer, CONVERSATIONS[2:3], loss_on="all")
    stop = stop_token_ids(tokenizer)[0]
    assert marked(on_answer) == [[*tokenizer(answer)["input_ids"], stop] for answer in ("Two.", "five")]
    assert on_all.input_ids == on_answer.input_ids
    assert on_all.bears_loss == [False] + [True] * (len(on_all.input_ids) - 1)
    check_conversations([on_answer, on_all], tokenizer)
    with pytest.raises(UserError, match="loss_on is 'everything': give answer or all"):
        encode_conversations(tokenizer, CONVERSATIONS, loss_on="everything")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_a_conversation_that_was_cut_anywhere_is_refused_by_its_number(tokenizer, loss_on) -> None:
    whole = encode_conversations(tokenizer, CONVERSATIONS, loss_on=loss_on)
    ids, bears_loss = whole[2]
    ends = [place for place, id in enumerate(ids) if id == stop_token_ids(tokenizer)[0]]
    after = len(ids) - ends[-1]  # the end token of a message, and what the template writes behind it
    # With loss on all, an end is an end: what was cut right behind the user's turn cannot be told from a whole.
    ends = [place for place in ends if loss_on == "all" or bears_loss[place]]
    for length in {*range(1, len(ids))} - {place + after for place in ends}:
        cut = EncodedConversation(ids[:length], bears_loss[:length])
        with pytest.raises(UserError, match="In conversation 2 (no token bears loss|an answer's end token)"):
            check_conversations([whole[0], cut], tokenizer)


def test_an_end_token_without_loss_is_refused(tokenizer) -> None:
    (encoded,) = encode_conversations(tokenizer, CONVERSATIONS[2:3])
    for place in (place for place, id in enumerate(encoded.input_ids) if id == stop_token_ids(tokenizer)[0]):
        if encoded.bears_loss[place]:
            marks = [mark and index != place for index, mark in enumerate(encoded.bears_loss)]
            with pytest.raises(UserError, match=r"In conversation 1 an answer's end token <\|\w+\|> is missing"):
                check_conversations([EncodedConversation(encoded.input_ids, marks)], tokenizer)
    none = EncodedConversation(encoded.input_ids, [False] * len(encoded.input_ids))
    with pytest.raises(UserError, match="In conversation 1 no token bears loss"):
        check_conversations([none], tokenizer)


def test_lone_surrogates_are_replaced_and_counted(tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encoded = encode_conversations(tokenizer, [as_messages([("a\ud800", "\udfff", "b\ud83d\udc4d")])])
    assert "2 lone surrogates in conversations were replaced" in caplog.text
    assert "👍" in tokenizer.decode(encoded[0].input_ids)


def test_what_cannot_be_written_is_said_with_its_number(tokenizer, plain) -> None:
    good = CONVERSATIONS[0]
    for bad in (
        [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}],
        [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
        [{"role": "user", "content": None}, {"role": "assistant", "content": "b"}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}],
    ):
        with pytest.raises(UserError, match="cannot write conversation 2: .*message"):
            encode_conversations(tokenizer, [good, bad])
    with pytest.raises(UserError, match="no message in conversation 2"):
        encode_conversations(tokenizer, [good, []])
    for use in (encode_chat_prompt, lambda tokenizer, _: stop_token_ids(tokenizer)):
        with pytest.raises(UserError, match="has no chat template"):
            use(plain, good)


def test_a_token_across_the_edge_of_an_answer_is_refused(plain: PreTrainedTokenizerFast) -> None:
    tokenizer, _ = extend_tokenizer(plain, ["\nHello"], [])
    set_chat_template(tokenizer, "alpaca")
    conversations = [as_messages([("a", None, answer)]) for answer in ("Good day", "Hello")]
    encode_conversations(tokenizer, conversations[:1])
    with pytest.raises(UserError, match="In conversation 2 a token reaches across the edge of an answer"):
        encode_conversations(tokenizer, conversations)


def test_more_conversations_than_are_encoded_at_once_keep_order_and_numbers(tokenizer, monkeypatch) -> None:
    from hfgpt.chat_templates import encoding

    whole = encode_conversations(tokenizer, CONVERSATIONS)
    monkeypatch.setattr(encoding, "CONVERSATIONS_AT_ONCE", 3)
    assert encode_conversations(tokenizer, CONVERSATIONS) == whole
    assert encode_conversations(tokenizer, []) == []
    with pytest.raises(UserError, match="conversation 5"):
        encode_conversations(tokenizer, [*CONVERSATIONS, [{"role": "tool", "content": "x"}]])
    assert special_tokens_of("alpaca") == ()
