"""A conversation without a terminal: each answer is that to the whole prompt; what falls out, ends and is kept."""

import copy
import json
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from hfgpt import HfGptConfig, HfGptForCausalLM
from hfgpt.chat_templates import encode_chat_prompt, set_chat_template
from hfgpt.errors import UserError
from hfgpt.serving.chat import ChatSession, ChatSettings
from hfgpt.tokenization import extend_tokenizer

CONTEXT = 192


@pytest.fixture(scope="module")
def chat_tokenizer(tokenizer):
    copied, _ = extend_tokenizer(tokenizer, [], [])
    set_chat_template(copied, "phi3")
    return copied


def make_model(**fields: Any) -> HfGptForCausalLM:
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": CONTEXT}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 269)
    return HfGptForCausalLM(HfGptConfig(**{"vocab_size": 270, **sizes, **special, "initializer_range": 0.5, **fields}))


@pytest.fixture(scope="module")
def chat_model() -> HfGptForCausalLM:
    return make_model()


def ask(session: ChatSession, text: str) -> str:
    return "".join(session.reply(text))


def independent_answer(model, tokenizer, messages: list[dict[str, str]], max_new_tokens: int) -> str:
    """transformers' `generate` from the whole prompt, without a cache."""
    prompt = torch.tensor([encode_chat_prompt(tokenizer, messages)])
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=max_new_tokens, do_sample=False, use_cache=False
    )
    return tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("fields", [{}, {"sliding_window": 8}], ids=["full", "window"])
def test_each_turn_is_answered_as_if_the_whole_prompt_were_read_anew(chat_tokenizer, fields) -> None:
    model = make_model(**fields)
    session = ChatSession(model, chat_tokenizer, system="cat", settings=ChatSettings(max_new_tokens=6))
    messages = [{"role": "system", "content": "cat"}]
    for question in ("the cat", " sat ", "mat"):
        messages.append({"role": "user", "content": question})
        answer = ask(session, question)
        assert answer == independent_answer(model, chat_tokenizer, messages, 6)
        messages.append({"role": "assistant", "content": answer})
    assert session.messages == messages
    assert session.num_fallen_out == 0


def test_what_was_read_is_not_read_again(chat_model, chat_tokenizer) -> None:
    session = ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(max_new_tokens=4))
    num_read: list[int] = []
    hook = chat_model.register_forward_pre_hook(
        lambda module, args, kwargs: num_read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    ask(session, "the cat sat on the mat")
    num_read.clear()
    ask(session, "on")
    hook.remove()
    first, second = (encode_chat_prompt(chat_tokenizer, session.messages[:length]) for length in (1, 3))
    assert num_read[0] <= len(second) - len(first)
    assert num_read[1:] == [1] * 3


def test_the_oldest_turns_fall_out_and_the_system_stays(chat_model, chat_tokenizer) -> None:
    session = ChatSession(chat_model, chat_tokenizer, system="house", settings=ChatSettings(max_new_tokens=5))
    fallen_out = []
    for _ in range(10):
        answer = ask(session, "the cat sat on a")
        turns = session.messages[1:]
        seen = [*session.messages[:1], *turns[2 * session.num_fallen_out : -1]]
        assert answer == independent_answer(chat_model, chat_tokenizer, seen, 5)
        assert len(encode_chat_prompt(chat_tokenizer, seen)) + 5 <= CONTEXT
        fallen_out.append(session.num_fallen_out)
    assert fallen_out == sorted(fallen_out)
    assert fallen_out[0] == 0
    assert 0 < fallen_out[-1] < 10
    assert len(session.messages) == 21  # nothing is lost for saving
    session.reset()
    assert session.messages == [{"role": "system", "content": "house"}]
    assert session.num_fallen_out == 0


def test_an_answer_ends_by_the_model_the_length_the_context_or_an_interruption(chat_model, chat_tokenizer) -> None:
    def session(**settings: Any) -> ChatSession:
        return ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(**settings))

    short = session(max_new_tokens=3)
    ask(short, "the")
    assert short.ended_by == "length"
    long = session(max_new_tokens=1000)
    ask(long, "the")
    assert long.ended_by == "context"
    token = long._read[-1]
    stopping = copy.deepcopy(chat_model)
    stopping.generation_config.eos_token_id = [token, 269]
    stopped = ChatSession(stopping, chat_tokenizer, settings=ChatSettings(max_new_tokens=1000))
    ask(stopped, "the")
    assert stopped.ended_by == "stop"
    interrupted = session(max_new_tokens=50)
    pieces = interrupted.reply("the")
    first = next(pieces)
    interrupted.interrupt()
    rest = "".join(pieces)
    assert interrupted.ended_by == "interruption"
    assert interrupted.messages[-1] == {"role": "assistant", "content": first + rest}
    interrupted.max_new_tokens = 5  # it goes on as if the cut answer had been the whole
    assert ask(interrupted, "cat") == independent_answer(chat_model, chat_tokenizer, interrupted.messages[:-1], 5)


def test_a_reader_who_leaves_has_heard_the_answer_so_far(chat_model, chat_tokenizer) -> None:
    session = ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(max_new_tokens=20))
    pieces = session.reply("the cat")
    heard = next(pieces) + next(pieces) + next(pieces)
    pieces.close()
    assert session.messages[1:] == [{"role": "assistant", "content": heard}]


def test_an_error_in_the_midst_of_a_step_leaves_no_half_read_cache(chat_model, chat_tokenizer) -> None:
    session = ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(max_new_tokens=4))
    ask(session, "the cat")

    def interrupt(module, args) -> None:
        raise KeyboardInterrupt

    hook = chat_model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask(session, "sat")
    hook.remove()
    assert len(session.messages) == 2
    expected = independent_answer(
        chat_model, chat_tokenizer, [*session.messages, {"role": "user", "content": "sat"}], 4
    )
    assert ask(session, "sat") == expected


def test_settings_come_from_the_model_where_none_are_given(chat_model, chat_tokenizer) -> None:
    model = copy.deepcopy(chat_model)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=11, top_p=0.9, max_new_tokens=7, eos_token_id=269
    )
    session = ChatSession(model, chat_tokenizer)
    assert session.max_new_tokens == 7
    assert session._drawing == {"temperature": 0.7, "top_k": 11, "top_p": 0.9}
    given = ChatSession(model, chat_tokenizer, settings=ChatSettings(temperature=0.0, max_new_tokens=3))
    assert (given._drawing["temperature"], given.max_new_tokens) == (0, 3)
    model.generation_config = GenerationConfig(eos_token_id=269)
    plain = ChatSession(model, chat_tokenizer)
    assert (plain._drawing["temperature"], plain.max_new_tokens) == (0, 200)
    with pytest.raises(UserError, match="give a temperature above 0"):
        ChatSession(model, chat_tokenizer, settings=ChatSettings(top_k=3))
    with pytest.raises(UserError, match="temperature must be a finite number"):
        ChatSession(model, chat_tokenizer, settings=ChatSettings(temperature=-1))


def test_a_seed_repeats_a_session(chat_model, chat_tokenizer) -> None:
    def answers(seed: int) -> list[str]:
        settings = ChatSettings(max_new_tokens=12, temperature=1.5, seed=seed)
        session = ChatSession(chat_model, chat_tokenizer, settings=settings)
        return [ask(session, "the"), ask(session, "cat")]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


def test_pieces_are_whole_characters(chat_model, chat_tokenizer, monkeypatch) -> None:
    session = ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(max_new_tokens=50))
    said = chat_tokenizer("é 中 👍 ok")["input_ids"]
    tokens = iter([*said, 269])
    monkeypatch.setattr(session, "_choose", lambda logits: next(tokens))
    pieces = list(session.reply("the"))
    assert "".join(pieces) == "é 中 👍 ok"
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_answer_without_a_character_is_not_remembered(chat_model, chat_tokenizer, monkeypatch) -> None:
    session = ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(max_new_tokens=5))
    monkeypatch.setattr(session, "_choose", lambda logits: 269)
    assert ask(session, "the") == ""
    assert (session.messages, session.ended_by) == ([], "stop")


def test_a_question_without_room_is_refused_and_leaves_no_trace(chat_model, chat_tokenizer) -> None:
    session = ChatSession(chat_model, chat_tokenizer, settings=ChatSettings(max_new_tokens=4))
    ask(session, "the")
    before = list(session.messages)
    with pytest.raises(UserError, match=r"the message leaves no room for an answer in the model's context of 192"):
        ask(session, "house " * 200)
    assert session.messages == before
    assert session.num_fallen_out == 0
    assert ask(session, "the")


def test_a_saved_conversation_is_read_by_training(chat_model, chat_tokenizer, tmp_path) -> None:
    data = pytest.importorskip("hfgpt.data.conversations", reason="needs datasets", exc_type=ImportError)
    session = ChatSession(chat_model, chat_tokenizer, system="é", settings=ChatSettings(max_new_tokens=4))
    path = tmp_path / "said.jsonl"
    with pytest.raises(UserError, match="nothing was said"):
        session.save(path)
    ask(session, "the \ud800")
    session.save(path)
    assert json.loads(path.read_text(encoding="utf-8"))["messages"][1]["content"] == "the \ufffd"
    rows = data.load_conversations(str(path), cache_dir=tmp_path / "cache").dataset["messages"]
    assert [(message["role"], message["content"]) for message in rows[0]] == [
        (message["role"], message["content"]) for message in session.messages
    ]
    with pytest.raises(UserError, match="is there: name a new file"):
        session.save(path)
    with pytest.raises(UserError, match="cannot be written"):
        session.save(tmp_path / "none" / "said.jsonl")


def test_models_that_cannot_chat_are_refused(chat_model, chat_tokenizer, tokenizer) -> None:
    with pytest.raises(UserError, match="has no chat template"):
        ChatSession(chat_model, tokenizer)
    small = make_model(vocab_size=100, bos_token_id=1, eos_token_id=1, pad_token_id=1)
    with pytest.raises(UserError, match="but the model knows 100 ids"):
        ask(ChatSession(small, chat_tokenizer), "the cat")
    with pytest.raises(UserError, match="not causal"):
        ChatSession(make_model(is_causal=False), chat_tokenizer)
    broken = make_model()
    torch.nn.init.constant_(broken.lm_head.weight, torch.nan)
    with pytest.raises(UserError, match="no finite numbers"):
        ask(ChatSession(broken, chat_tokenizer), "the cat")
