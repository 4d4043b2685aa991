"""Models, tokenizers and cards travel over the Hub on loopback, into processes that have hfgpt and that do not."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification
from hfgpt.tokenization import train_tokenizer

if TYPE_CHECKING:
    from .server import LoopbackHub

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TEXTS = ["the cat sat on the mat", "a dog ran under the red house", "one day a bird flew"] * 5

# A stranger's process: it has a token, a model's id, and no hfgpt.
STRANGER = """
import json
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, pipeline

trusted = {"trust_remote_code": True}
generate = pipeline("text-generation", model="tester/model", **trusted)
assert type(generate.model).__module__.startswith("transformers_modules."), type(generate.model)
[written] = generate("the cat", max_new_tokens=5, do_sample=False, pad_token_id=0)
classify = pipeline("text-classification", model="tester/classifier", **trusted)
[judged] = classify("the cat sat")
revision = AutoConfig.from_pretrained("tester/model", revision="v1", **trusted)
print(json.dumps({"text": written["generated_text"], "score": judged["score"], "layers": revision.num_hidden_layers}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_config: Callable[..., HfGptConfig]) -> dict[str, Path]:
    """A model and a classifier, saved with their tokenizer."""
    tokenizer = train_tokenizer(TEXTS, 280, model_max_length=32)
    torch.manual_seed(0)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    config = {"vocab_size": len(tokenizer), **ids}
    folders = {}
    for name, model in {
        "model": HfGptForCausalLM(tiny_config(**config)),
        "classifier": HfGptForSequenceClassification(tiny_config(**config, num_labels=2)),
    }.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def test_a_process_without_hfgpt_loads_by_pipeline_what_was_pushed(
    hub: "LoopbackHub", run_python: Run, folders: dict[str, Path], tiny_config: Callable[..., HfGptConfig]
) -> None:
    api = HfApi()
    for name, folder in folders.items():
        api.create_repo(f"tester/{name}", private=True)
        api.upload_folder(repo_id=f"tester/{name}", folder_path=folder)
    api.create_tag("tester/model", tag="v1")
    said = json.loads(run_python(STRANGER, without_hfgpt=True).stdout.splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(folders["model"])
    token_ids = tokenizer("the cat", return_tensors="pt")
    model = HfGptForCausalLM.from_pretrained(folders["model"])
    written = model.generate(**token_ids, max_new_tokens=5, do_sample=False, pad_token_id=0)[0]
    classifier = HfGptForSequenceClassification.from_pretrained(folders["classifier"])
    logits = classifier(**tokenizer("the cat sat", return_tensors="pt")).logits[0]
    assert said["text"] == tokenizer.decode(written, skip_special_tokens=True)
    assert said["score"] == pytest.approx(logits.softmax(0).max().item(), rel=1e-5)
    assert said["layers"] == model.config.num_hidden_layers
    assert {path for _, path, _ in hub.requests if path.endswith("modeling_hfgpt.py")}


def test_with_hfgpt_the_auto_classes_need_no_trust(hub: "LoopbackHub", folders: dict[str, Path]) -> None:
    hub.add_repo("team/model", {path.name: path for path in folders["model"].iterdir()})
    model = AutoModelForCausalLM.from_pretrained("team/model")
    assert type(model) is HfGptForCausalLM
    for name, weight in load_file(folders["model"] / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert AutoTokenizer.from_pretrained("team/model")("the cat") == AutoTokenizer.from_pretrained(folders["model"])(
        "the cat"
    )
    assert not [path for _, path, _ in hub.requests if path.endswith(".py") and "resolve" in path]


def test_weights_in_several_files_come_back_whole(hub: "LoopbackHub", folders: dict[str, Path], tmp_path: Path) -> None:
    model = HfGptForCausalLM.from_pretrained(folders["model"])
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    api = HfApi()
    api.create_repo("tester/sharded")
    api.upload_folder(repo_id="tester/sharded", folder_path=tmp_path / "sharded")
    assert sum(path.endswith(".safetensors") for path in hub.repo("tester/sharded")) > 2
    again, report = HfGptForCausalLM.from_pretrained("tester/sharded", output_loading_info=True)
    assert not any(report.values()), report
    assert all(torch.equal(again.state_dict()[name], weight) for name, weight in model.state_dict().items())


def test_gpt2_s_weights_load_from_the_hub(
    hub: "LoopbackHub", random_gpt2: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    gpt2 = random_gpt2()
    gpt2.save_pretrained(tmp_path / "gpt2")
    hub.add_repo("openai-community/gpt2", {path.name: path for path in (tmp_path / "gpt2").iterdir()})
    model, report = HfGptForCausalLM.from_pretrained("openai-community/gpt2", output_loading_info=True)
    assert not any(report.values()), report
    token_ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.allclose(model.eval()(token_ids).logits, gpt2(token_ids).logits, atol=1e-4)


def test_a_card_is_validated_and_pushed(hub: "LoopbackHub") -> None:
    HfApi().create_repo("tester/model")
    result = EvalResult("text-generation", "text", "Stories", "perplexity", 2.2, dataset_args={"split": "test"})
    data = ModelCardData(
        language="en", license="apache-2.0", library_name="transformers", pipeline_tag="text-generation",
        tags=["gpt"], base_model="openai-community/gpt2", model_name="A model", eval_results=[result],
    )  # fmt: skip
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n# A model\n")
    card.validate()
    card.push_to_hub("tester/model")
    assert ModelCard.load("tester/model").data.eval_results == data.eval_results
    info = HfApi().model_info("tester/model")
    assert info.tags is not None
    assert "base_model:openai-community/gpt2" in info.tags


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("license: mine-alone", "license"),
        ("base_model: 'not a/repository/name'", "base_model"),
        ("datasets: {a: b}", "datasets"),
        ("model-index: [{name: x, results: [{task: {}}]}]", "model-index"),
        ("license: [unclosed", "YAML Metadata Error"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused(hub: "LoopbackHub", metadata: str, said: str) -> None:
    HfApi().create_repo("tester/model")
    content = f"---\n{metadata}\n---\n# A model\n"
    with pytest.raises(ValueError, match=said):
        HfApi().upload_file(path_or_fileobj=content.encode(), path_in_repo="README.md", repo_id="tester/model")
    assert "README.md" not in hub.repo("tester/model")
