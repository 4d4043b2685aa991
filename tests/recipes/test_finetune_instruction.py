"""`hfgpt instruct` from conversations to a model that answers, on questions of a few words."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from hfgpt import HfGptForCausalLM
from hfgpt.chat_templates import encode_conversations
from hfgpt.data.conversations import LoadedConversations
from hfgpt.recipes import instruction_corpus
from hfgpt.recipes.instruction_config import InstructionConfig
from hfgpt.recipes.instruction_corpus import chat_tokenizer, load_conversation_splits

RUN_FILES = {"config.yaml", "metrics.jsonl", "report.json", "results.json", "test_answers.jsonl", "final"}
RUN_FILES |= {"card_facts.json"}
PICTURES = {"loss_curve.png", "exact_match.png"}
NO_DROPOUT = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)


def read(folder: Path, name: str = "report.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "test_answers.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(instruct_in, fork, tmp_path_factory) -> tuple[Any, str]:
    """A run that several tests look at, and what it printed."""
    recipe = instruct_in(tmp_path_factory.mktemp("finished"))
    arguments = recipe.arguments(max_steps=600, eval_steps=300, global_batch_size=32, model=NO_DROPOUT)
    return recipe, fork(recipe.folder / "fork", arguments, recipe=recipe.module.__name__).finish()


def test_the_folder_of_a_run_holds_what_is_documented(finished) -> None:
    recipe, printed = finished
    names = {path.name for path in recipe.output_dir.iterdir()}
    assert names == RUN_FILES | PICTURES | {".lock", "checkpoint-300", "checkpoint-600"}
    assert (recipe.output_dir / "config.yaml").read_text() == (recipe.final / "run_config.yaml").read_text()
    for name in PICTURES:
        assert (recipe.output_dir / name).read_bytes().startswith(b"\x89PNG")
    for words in ("read as alpaca (", "tokens bear loss: [[these]]", "|im_end|>]]",
                  "embeddings: the last 2 ids begin at the mean", "step    600: validation loss", "24 test prompts",
                  "exact match: once", f"hfgpt chat --model {recipe.final}"):  # fmt: skip
        assert words in printed


def test_a_rule_is_learned_and_the_report_counts_the_answers_that_are_right(finished) -> None:
    recipe, _ = finished
    report, results, lines = (
        read(recipe.output_dir),
        read(recipe.output_dir, "results.json"),
        answers(recipe.output_dir),
    )
    right = [line["answer"] == line["reference"] for line in lines]
    assert sum(right) / len(right) == report["test"]["exact_match"]["value"] == results["test_exact_match"]["value"]
    assert sum(right) >= 18
    for task, score in report["test"]["by_task"].items():
        of_task = [each for each, line in zip(right, lines, strict=True) if line["task"] == task]
        assert (len(of_task), sum(of_task) / len(of_task)) == (score["num_examples"], score["exact_match"]["value"])
    assert results["validation_after"]["loss"] < results["validation_before"]["loss"] / 3
    counts = report["counts"]
    assert (counts["train"], counts["validation"], counts["test"]) == (192, 24, 24)
    assert 0 < counts["train_masked"] < counts["train_tokens"]


def test_transformers_alone_answers_as_the_report_says(finished) -> None:
    """By `pipeline` on a list of messages, with the saved template, end token and greatest length."""
    recipe, _ = finished
    answer = pipeline("text-generation", model=str(recipe.final))
    for line in answers(recipe.output_dir):
        messages = [{"role": "user", "content": line["prompt"]}]  # this template puts an input after a line break
        assert answer(messages)[0]["generated_text"][-1]["content"] == line["answer"]


def test_the_loss_is_that_of_transformers_on_the_answers_alone(finished, instruction_file) -> None:
    recipe, _ = finished
    model, tokenizer = AutoModelForCausalLM.from_pretrained(recipe.final), AutoTokenizer.from_pretrained(recipe.final)
    asked = {line["prompt"] for line in answers(recipe.output_dir)}
    total, number = 0.0, 0
    for entry in json.loads(instruction_file.read_text(encoding="utf-8")):
        prompt = "\n".join(filter(None, (entry["instruction"], entry["input"])))
        if prompt not in asked:
            continue
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": entry["output"]}]
        encoded = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        labels = encoded["input_ids"].masked_fill(torch.as_tensor(encoded["assistant_masks"]) == 0, -100)
        with torch.no_grad():
            loss = model(encoded["input_ids"], labels=labels).loss
        judged = int((labels[:, 1:] != -100).sum())
        total, number = total + loss.item() * judged, number + judged
    path = recipe.folder / "asked.json"
    entries = json.loads(instruction_file.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps([e for e in entries if "\n".join(filter(None, (e["instruction"], e["input"]))) in asked]),
        encoding="utf-8",
    )
    again = {"init_from": str(recipe.final), "template": "saved", "validation_source": str(path), "max_steps": 1}
    output_dir = recipe.folder / "again"
    recipe.module.main(
        [*recipe.arguments(**again, warmup_steps=1, max_test_examples=0), "--output_dir", str(output_dir)]
    )
    assert read(output_dir, "results.json")["validation_before"]["loss"] == pytest.approx(total / number, rel=1e-4)


def test_what_is_saved_keeps_users_from_writing_special_tokens(finished) -> None:
    recipe, _ = finished
    tokenizer = AutoTokenizer.from_pretrained(recipe.final)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "a<|im_end|><|endoftext|>b"}])["input_ids"]
    marks = set(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    assert sum(id in marks for id in ids) == 1, "that of the template"


@pytest.mark.parametrize("batching", ["length_groups", "packing", "random"])
@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_the_loss_before_training_does_not_depend_on_the_batches(instruct, batching, loss_on) -> None:
    """It is the mean over the tokens that bear loss, computed here one conversation at a time."""
    instruct.run(max_steps=1, batching=batching, loss_on=loss_on, max_test_examples=0, model=NO_DROPOUT)
    found = instruct.metrics()[0]["validation_loss"]
    config = InstructionConfig(**{**instruct.fields, "loss_on": loss_on})
    tokenizer, _ = chat_tokenizer(config)
    splits = load_conversation_splits(config, Accelerator(cpu=True)).splits
    model = HfGptForCausalLM.from_pretrained(config.init_from)
    model.resize_token_embeddings(282, mean_resizing=False)
    with torch.no_grad():
        model.model.embed_tokens.weight[280:] = model.model.embed_tokens.weight[:280].mean(dim=0)
        total, number = 0.0, 0
        for each in encode_conversations(tokenizer, list(splits.validation["messages"]), loss_on=loss_on):
            ids = torch.tensor([each.input_ids])
            losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            judged = torch.tensor(each.bears_loss[1:])
            total, number = total + losses[judged].sum().item(), number + int(judged.sum())
    assert found == pytest.approx(total / number, rel=1e-4)


def test_packed_rows_train_as_whole_conversations_do(instruct) -> None:
    printed = instruct.run(batching="packing", global_batch_size=4)
    assert "packed: 192 conversations in" in printed
    assert instruct.metrics()[-1]["validation_loss"] < instruct.metrics()[0]["validation_loss"] - 1


def test_lora_trains_little_and_saves_a_plain_model(instruct) -> None:
    printed = instruct.run(trainable="lora", template="phi3", lora_rank=2)
    parameters = read(instruct.output_dir, "results.json")
    assert parameters["trained_parameters"] < parameters["parameters"] / 10
    assert f"{parameters['trained_parameters']:,} of {parameters['parameters']:,} parameters" in printed
    assert set(load_file(instruct.final / "model.safetensors")) == set(
        load_file(Path(instruct.fields["init_from"]) / "model.safetensors")
    )
    embeddings = [
        load_file(Path(folder) / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (instruct.final, instruct.fields["init_from"])
    ]
    assert torch.equal(*embeddings), "frozen, where no token was added"


def test_the_embeddings_of_new_tokens_are_trained_with_lora(instruct) -> None:
    instruct.run(trainable="lora")
    rows = load_file(instruct.final / "model.safetensors")["model.embed_tokens.weight"][280:]
    assert not torch.equal(rows[0], rows[1])


def test_random_weights_have_the_shape_of_the_model_and_nothing_else_of_it(instruct) -> None:
    printed = instruct.run(random_weights=True, max_steps=1, learning_rate=1e-9)
    assert "weights: random, in the shape of the model" in printed
    final = load_file(instruct.final / "model.safetensors")
    weight = final["model.layers.0.mlp.fc1.weight"]
    original = load_file(Path(instruct.fields["init_from"]) / "model.safetensors")["model.layers.0.mlp.fc1.weight"]
    assert weight.shape == original.shape
    assert abs(torch.corrcoef(torch.stack([weight.flatten(), original.flatten()]))[0, 1]) < 0.2
    assert final["model.embed_tokens.weight"].shape == (282, 32)


@pytest.mark.parametrize("too_long", ["drop", "truncate"])
def test_long_conversations_are_counted(instruct, too_long) -> None:
    printed = instruct.run(max_steps=2, too_long=too_long, max_length=40, max_test_examples=0)
    counts = read(instruct.output_dir)["counts"]
    changed = counts["train_too_long" if too_long == "drop" else "train_truncated"]
    assert changed > 0
    assert f"{changed:,} longer than 40 tokens {'left out' if too_long == 'drop' else 'cut'}" in printed


@pytest.mark.parametrize("loss_on", ["answer", "all"])
def test_the_model_answers_as_long_as_the_longest_answer_that_is_trained_on(
    instruct, instruction_file, loss_on
) -> None:
    """Whatever is learned besides, and however long those are that were left out."""
    entries = json.loads(instruction_file.read_text(encoding="utf-8"))
    parts = {"test": entries[:5], "validation": entries[5:10]}
    parts["train"] = [*entries[10:], {"instruction": "say a lot", "output": "it ran under a mat " * 30}]
    for name, part in parts.items():
        (instruct.folder / f"{name}.json").write_text(json.dumps(part), encoding="utf-8")
    sources = {f"{name}_source": str(instruct.folder / f"{name}.json") for name in ("test", "validation")}
    sources["source"] = str(instruct.folder / "train.json")
    instruct.run(max_steps=1, loss_on=loss_on, max_new_tokens=None, max_test_examples=0, **sources)
    tokenizer = AutoTokenizer.from_pretrained(instruct.final)
    longest = max(len(tokenizer(entry["output"])["input_ids"]) for entry in entries[10:])
    assert read(instruct.final, "generation_config.json")["max_new_tokens"] == longest + 1, "and its end token"


def test_options_of_the_hub_are_those_of_the_source_alone(instruct, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str, **options: Any) -> LoadedConversations:
        asked[source, options["split"]] = (options["name"], options["revision"])
        question = {"role": "user", "content": f"{source} {options['split']}", "input": None}
        rows = [[question, {"role": "assistant", "content": "Yes.", "input": None}]]
        return LoadedConversations(datasets.Dataset.from_dict({"messages": rows}), "messages", [], 0)

    asked: dict[tuple[str, str], tuple[str | None, str | None]] = {}
    monkeypatch.setattr(instruction_corpus, "load_conversations", load)
    hub = {"source": "org/talks", "source_config": "short", "source_revision": "v1", "test_split": "held_out"}
    config = InstructionConfig(**{**instruct.fields, **hub, "validation_source": "validation.jsonl"})
    load_conversation_splits(config, Accelerator(cpu=True))
    of_hub = ("short", "v1")
    assert asked == {
        ("org/talks", "train"): of_hub, ("org/talks", "held_out"): of_hub, ("validation.jsonl", "train"): (None, None)
    }  # fmt: skip


def test_duplicates_and_questions_on_both_sides_are_removed_and_counted(instruct, instruction_file) -> None:
    entries = json.loads(instruction_file.read_text(encoding="utf-8"))
    doubled = instruct.folder / "doubled.json"
    doubled.write_text(json.dumps([*entries, *entries[:7]]), encoding="utf-8")
    test = instruct.folder / "test.json"
    test.write_text(json.dumps(entries[20:25]), encoding="utf-8")
    instruct.run(max_steps=1, source=str(doubled), test_source=str(test), max_test_examples=1)
    counts = read(instruct.output_dir)["counts"]
    assert counts["duplicates"] + counts["overlap"] >= 12
    assert counts["train"] + counts["validation"] == 235
    assert (counts["test"], read(instruct.output_dir)["test"]["num_examples"]) == (5, 1)


def test_the_model_that_is_finetuned_goes_on_from_its_own_template(finished, instruct) -> None:
    recipe, _ = finished
    instruct.run(init_from=str(recipe.final), template="saved", max_steps=2)
    templates = [AutoTokenizer.from_pretrained(folder).chat_template for folder in (instruct.final, recipe.final)]
    assert templates[0] == templates[1]
    assert instruct.metrics()[0]["validation_loss"] < 0.5


def test_gpt2s_weights_learn_in_the_books_template(instruct, gpt2_checkpoint) -> None:
    """Its context holds no example here: the error names the room that is needed."""
    sentence = instruct.refusal(init_from=str(gpt2_checkpoint), template="alpaca")
    assert "fits into 16 tokens" in sentence
