"""From labelled texts to tokens and classes, and that the saved tokenizer makes the same tokens of a text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from transformers import AutoTokenizer

from hfgpt.data.labelled_split import LabelledSplits
from hfgpt.errors import UserError
from hfgpt.recipes.classification_config import ClassificationConfig
from hfgpt.recipes.labelled_corpus import LabelledCorpus, collate_texts, load_splits, prepare_labelled_corpus
from hfgpt.tokenization import load_tokenizer

END, CONTEXT = 279, 16  # of tokenizer_folder
LONG = "the cat sat on the mat and the dog ran under the red house and it flew"
TEXTS = ["the cat", LONG, "a <|endoftext|> of text, é 漢字", "dog", " two\nlines ", "it", "bird", "red house"]
Prepare = Callable[..., LabelledCorpus]


def config_of(**fields: Any) -> ClassificationConfig:
    return ClassificationConfig(**{"output_dir": "x", "source": "rows", "init_from": "y", "max_steps": 1, **fields})


@pytest.fixture
def prepare(tokenizer_folder: Path) -> Prepare:
    """The corpus of some texts (and the second ones of pairs), all of them in each part."""

    def make(texts: list[str], pairs: list[str] | None = None, **fields: Any) -> LabelledCorpus:
        columns = {"text": texts} if pairs is None else {"text": texts, "text_pair": pairs}
        features = dict.fromkeys(columns, datasets.Value("large_string")) | {
            "label": datasets.ClassLabel(names=["ham", "spam"])
        }
        labels = [number % 2 for number in range(len(texts))]
        rows = datasets.Dataset.from_dict({**columns, "label": labels}, features=datasets.Features(features))
        splits = LabelledSplits(rows, rows, rows, rows, class_weights=None, counts={}, description=["as given"])
        config = config_of(text_pair_column=None if pairs is None else "text_pair", **fields)
        return prepare_labelled_corpus(config, splits, load_tokenizer(tokenizer_folder), CONTEXT)

    return make


def ids_of(corpus: LabelledCorpus) -> list[list[int]]:
    return [corpus.train[index]["input_ids"].tolist() for index in range(len(corpus.train))]


def saved(corpus: LabelledCorpus, folder: Path) -> Any:
    corpus.tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("side", ["right", "left"])
def test_texts_become_the_tokens_that_the_saved_tokenizer_makes_of_them(prepare, tmp_path, side) -> None:
    corpus = prepare(TEXTS, truncation_side=side)
    tokenizer = saved(corpus, tmp_path / "saved")
    assert ids_of(corpus) == tokenizer(TEXTS, truncation=True)["input_ids"]
    assert END not in [token for ids in ids_of(corpus) for token in ids], "text never becomes a special token"
    assert [corpus.train[index]["label"] for index in range(4)] == [0, 1, 0, 1]
    assert (tokenizer.model_max_length, tokenizer.truncation_side, tokenizer.padding_side) == (CONTEXT, side, "right")


@pytest.mark.parametrize("side", ["right", "left"])
def test_long_texts_are_cut_on_the_side_that_was_asked_for_and_counted(prepare, tokenizer_folder, side) -> None:
    whole = load_tokenizer(tokenizer_folder)(TEXTS)["input_ids"]
    corpus = prepare(TEXTS, truncation_side=side, max_length=5)
    assert ids_of(corpus) == [ids[:5] if side == "right" else ids[-5:] for ids in whole]
    num_cut = sum(len(ids) > 5 for ids in whole)
    assert corpus.train.num_truncated == num_cut > 1
    for part in ("train", "validation", "test"):
        assert f"{num_cut} of them truncated on the {side} to 5 tokens" in next(
            line for line in corpus.description if line.startswith(f"{part}: ")
        )


def test_nothing_is_said_of_what_did_not_happen(prepare, tokenizer_folder) -> None:
    texts = ["the cat", "the cat and the dog"]
    mean = sum(len(load_tokenizer(tokenizer_folder)(text)["input_ids"]) for text in texts) / 2
    parts = [f"{part}: 2 texts of {mean:.1f} tokens on average" for part in ("train", "validation", "test")]
    assert prepare(texts).description == ["source: rows", "as given", *parts]


def test_an_empty_text_is_the_end_of_text_token_and_counted(prepare) -> None:
    corpus = prepare(["the cat", "", "dog", ""])
    assert ids_of(corpus)[1] == ids_of(corpus)[3] == [END]
    assert corpus.train.num_empty == 2
    assert any(line.startswith("train: ") and line.endswith("2 of them empty") for line in corpus.description)
    assert corpus.train.texts() == ["the cat", "", "dog", ""]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [None, 6])
def test_the_texts_of_a_pair_are_separated_by_the_end_of_text_token(
    prepare, tokenizer_folder, tmp_path, side, max_length
) -> None:
    texts, pairs = ["the cat", LONG, "", "it", ""], ["a dog", "it ran", "bird", "", ""]
    corpus = prepare(texts, pairs, truncation_side=side, max_length=max_length)
    plain = load_tokenizer(tokenizer_folder)
    first, second = (plain(column)["input_ids"] for column in (texts, pairs))
    for ids, one, other in zip(ids_of(corpus), first, second, strict=True):
        assert ids.count(END) == 1
        place = ids.index(END)
        kept = (ids[:place], ids[place + 1 :])
        length = max_length or CONTEXT
        if len(one) + len(other) < length:
            assert kept == (one, other)
        else:
            assert len(ids) == length
            for part, text in zip(kept, (one, other), strict=True):
                assert part == (text[: len(part)] if side == "right" else text[len(text) - len(part) :])
    tokenizer = saved(corpus, tmp_path / "saved")
    assert ids_of(corpus) == tokenizer(texts, pairs, truncation=True)["input_ids"]
    assert tokenizer("the cat")["input_ids"] == first[0], "a text alone has no separator"
    assert corpus.train.texts()[0] == "the cat\na dog"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("where", "before", "after"), [("before", 1, 0), ("after", 0, 1), ("both", 1, 1)])
def test_the_end_of_text_token_stands_where_it_was_asked_for_also_in_use(
    prepare, tokenizer_folder, tmp_path, where, before, after, side
) -> None:
    texts = [*TEXTS, ""]
    corpus = prepare(texts, end_of_text=where, truncation_side=side)
    room = CONTEXT - before - after
    for ids, text in zip(ids_of(corpus), load_tokenizer(tokenizer_folder)(texts)["input_ids"], strict=True):
        cut = text if len(text) <= room else text[:room] if side == "right" else text[-room:]
        assert ids == [END] * before + cut + [END] * after
    assert corpus.train.num_empty == 1
    assert ids_of(corpus) == saved(corpus, tmp_path / "saved")(texts, truncation=True)["input_ids"]
    pairs = prepare(texts[:3], texts[3:6], end_of_text=where, max_length=12, truncation_side=side)
    for ids in ids_of(pairs):
        assert ids.count(END) == 1 + before + after
        assert (ids[0] == END, ids[-1] == END) == (bool(before), bool(after))


def test_padding_that_is_seen_is_part_of_every_text(prepare) -> None:
    for fields, length in (({"pad_to_length": 12}, 12), ({"max_length": 7}, 7), ({}, CONTEXT)):
        corpus, plain = prepare(TEXTS, ignore_padding=False, **fields), prepare(TEXTS, **fields)
        assert corpus.train.lengths.tolist() == [length] * len(TEXTS)
        for ids, text in zip(ids_of(corpus), ids_of(plain), strict=True):
            assert ids == text + [END] * (length - len(text))
        batch = collate_texts([corpus.train[0], corpus.train[1]], pad_token_id=END)
        assert batch["attention_mask"].all()


def test_padding_to_a_length_is_not_seen_by_itself(prepare) -> None:
    corpus = prepare(TEXTS, pad_to_length=12)
    assert max(corpus.train.lengths) == 12, "a text is no longer than what it is padded to"
    batch = collate_texts([corpus.train[index] for index in range(len(TEXTS))], pad_token_id=END, pad_to_length=12)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(TEXTS), 12)
    assert batch["attention_mask"].sum(dim=1).tolist() == corpus.train.lengths.tolist()


def test_a_batch_is_padded_on_the_right_to_its_longest_text() -> None:
    examples = [{"input_ids": torch.tensor(ids), "label": label} for ids, label in (([5], 1), ([6, 7, 8], 0))]
    batch = collate_texts(examples, pad_token_id=9)
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[5, 9, 9], [6, 7, 8]],
        "attention_mask": [[1, 0, 0], [1, 1, 1]],
        "labels": [1, 0],
    }


@pytest.mark.parametrize("field", ["max_length", "pad_to_length"])
def test_more_tokens_than_the_context_are_refused(prepare, field) -> None:
    with pytest.raises(UserError, match=rf"{field} \(17\) is greater than the model's context \(16\)"):
        prepare(TEXTS, **{field: 17})


@pytest.mark.parametrize(
    ("end_of_text", "pairs", "framing"), [("both", None, 2), ("after", TEXTS, 2), ("none", TEXTS, 1)]
)
def test_a_length_without_room_for_text_is_refused(prepare, end_of_text, pairs, framing) -> None:
    words = rf"max_length \({framing}\) leaves no room for text beside {framing} end-of-text tokens"
    with pytest.raises(UserError, match=words):
        prepare(TEXTS, pairs, end_of_text=end_of_text, max_length=framing)
    assert prepare(TEXTS, pairs, end_of_text=end_of_text, max_length=framing + 1).train.lengths.max() == framing + 1


def test_the_fingerprint_is_of_the_tokens_the_classes_and_the_tokenizer(prepare, tmp_path) -> None:
    same = prepare(TEXTS).fingerprint
    assert prepare(TEXTS).fingerprint == same
    others = [
        prepare(TEXTS[::-1]),
        prepare(TEXTS[:-1]),
        prepare(TEXTS, max_length=5),
        prepare(TEXTS, truncation_side="left"),
    ]
    assert len({other.fingerprint["data set"] for other in others} | {same["data set"]}) == 5
    # Where one text ends and the next begins is part of it, too.
    assert prepare(["it", "dog it"]).fingerprint != prepare(["it dog", "it"]).fingerprint


def test_class_weights_make_up_for_the_sizes_of_the_classes(tmp_path, prepare, tokenizer_folder) -> None:
    path = tmp_path / "uneven.csv"
    rows = [("ham", f"the cat {number}") for number in range(90)] + [
        ("spam", f"a dog {number}") for number in range(30)
    ]
    path.write_text("label,text\n" + "".join(f"{label},{text}\n" for label, text in rows), encoding="utf-8")
    config = config_of(source=str(path), balance="class_weights")
    splits = load_splits(config, Accelerator(cpu=True))
    corpus = prepare_labelled_corpus(config, splits, load_tokenizer(tokenizer_folder), CONTEXT)
    sizes = torch.bincount(torch.from_numpy(corpus.train.labels))
    assert sizes.tolist() == [63, 21]
    torch.testing.assert_close(corpus.class_weights, len(corpus.train) / (2 * sizes.float()))
    assert corpus.names == ["ham", "spam"]
    assert any("weights of the classes in the loss" in line for line in corpus.description)
    assert prepare(TEXTS).class_weights is None
