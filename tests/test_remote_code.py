"""A saved folder is whole: it opens with `trust_remote_code=True` where hfgpt cannot be imported."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

import hfgpt
from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel

MakeConfig = Callable[..., HfGptConfig]

TRAVELLING = ("configuration", "conversion", "modeling", "pooling")

# What a stranger's process does with the folders made here.
STRANGER = """
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, pipeline

folder = Path(sys.argv[1])
token_ids = load_file(folder / "token_ids.safetensors")["token_ids"]
results = {}
trusted = {"trust_remote_code": True}
for name, auto_class in {
    "base": AutoModel,
    "causal_lm": AutoModelForCausalLM,
    "rotary": AutoModelForCausalLM,
    "classifier": AutoModelForSequenceClassification,
    "mean_classifier": AutoModelForSequenceClassification,
}.items():
    model, report = auto_class.from_pretrained(folder / name, output_loading_info=True, **trusted)
    assert not any(report.values()), report
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    with torch.no_grad():
        results[name] = model.eval()(token_ids)[0]
    if name == "causal_lm":
        causal_lm = model
    model.save_pretrained(folder / "again" / name)

# The base model and a classifier out of a causal LM's folder; a model from nothing but its configuration.
base = AutoModel.from_pretrained(folder / "causal_lm", **trusted)
with torch.no_grad():
    results["base_of_lm"] = causal_lm.lm_head(base.eval()(token_ids)[0])
AutoModelForSequenceClassification.from_pretrained(folder / "causal_lm", num_labels=5, **trusted)
config = AutoConfig.from_pretrained(folder / "causal_lm", **trusted)
AutoModelForCausalLM.from_config(config, **trusted)
results["text"] = causal_lm.generate(token_ids[:, :4], max_new_tokens=8, do_sample=False, pad_token_id=0)

# GPT-2's layout through the class that came with the folder.
gpt2 = type(causal_lm).from_pretrained(folder / "gpt2").eval()
with torch.no_grad():
    results["gpt2"] = gpt2(token_ids).logits
gpt2.save_pretrained(folder / "again" / "gpt2")

# What cannot be computed is refused here as it is at home.
for arguments in ({"input_ids": token_ids + 1000}, {"input_ids": token_ids.repeat(1, 9)}):
    try:
        causal_lm(**arguments)
    except ValueError:
        continue
    raise AssertionError(arguments)
assert not [name for name in sys.modules if name.split(".")[0] == "hfgpt"]
save_file(results, folder / "results.safetensors")
"""


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_config: MakeConfig,
    random_gpt2: Callable[..., PreTrainedModel],
    run_without_hfgpt: Callable[..., None],
) -> Path:
    """Saved models of every kind, and what a stranger's process made of them (one process: it takes seconds)."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    HfGptModel(tiny_config()).save_pretrained(folder / "base")
    HfGptForCausalLM(tiny_config()).save_pretrained(folder / "causal_lm")
    rotary = tiny_config(position_embedding_type="rotary", qkv_bias=False, tie_word_embeddings=False)
    HfGptForCausalLM(rotary).save_pretrained(folder / "rotary")
    HfGptForSequenceClassification(tiny_config(num_labels=3)).save_pretrained(folder / "classifier")
    mean = tiny_config(num_labels=3, classifier_pooling="mean")
    HfGptForSequenceClassification(mean).save_pretrained(folder / "mean_classifier")
    random_gpt2().save_pretrained(folder / "gpt2")
    save_file({"token_ids": torch.randint(97, (2, 9))}, folder / "token_ids.safetensors")
    run_without_hfgpt(STRANGER, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "results.safetensors")


@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("base", HfGptModel),
        ("causal_lm", HfGptForCausalLM),
        ("rotary", HfGptForCausalLM),
        ("classifier", HfGptForSequenceClassification),
        ("mean_classifier", HfGptForSequenceClassification),
        ("gpt2", HfGptForCausalLM),
    ],
)
@torch.no_grad()
def test_a_stranger_s_process_computes_what_hfgpt_computes_bit_for_bit(
    folder: Path, results: dict[str, torch.Tensor], name: str, model_class: type[PreTrainedModel]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in that process: how sums are cut decides their last bits
    token_ids = load_file(folder / "token_ids.safetensors")["token_ids"]
    expected = model_class.from_pretrained(folder / name).eval()(token_ids)[0]
    torch.set_num_threads(threads)
    assert torch.equal(results[name], expected)


@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("base", HfGptModel),
        ("causal_lm", HfGptForCausalLM),
        ("classifier", HfGptForSequenceClassification),
        ("mean_classifier", HfGptForSequenceClassification),
        ("gpt2", HfGptForCausalLM),
    ],
)
def test_what_a_stranger_saves_again_hfgpt_loads_whole(
    folder: Path, results: dict[str, torch.Tensor], name: str, model_class: type[PreTrainedModel]
) -> None:
    again, report = model_class.from_pretrained(folder / "again" / name, output_loading_info=True)
    assert not any(report.values()), report
    for key, weight in model_class.from_pretrained(folder / name).state_dict().items():
        assert torch.equal(again.state_dict()[key], weight), key
    code = {path.name for path in (folder / "again" / name).glob("*.py")}
    assert code == {f"{name}_hfgpt.py" for name in TRAVELLING}
    assert again.config.auto_map == model_class.from_pretrained(folder / "causal_lm").config.auto_map


@torch.no_grad()
def test_a_stranger_s_text_and_base_model_are_those_of_hfgpt(folder: Path, results: dict[str, torch.Tensor]) -> None:
    token_ids = load_file(folder / "token_ids.safetensors")["token_ids"]
    model = AutoModelForCausalLM.from_pretrained(folder / "causal_lm").eval()
    text = model.generate(token_ids[:, :4], max_new_tokens=8, do_sample=False, pad_token_id=0)
    assert torch.equal(results["text"], text)
    assert torch.equal(results["base_of_lm"], results["causal_lm"])


def test_the_code_that_travels_is_the_code_that_ran(folder: Path) -> None:
    package = Path(hfgpt.__file__).parent
    for name in (f"{name}_hfgpt.py" for name in TRAVELLING):
        assert (folder / "causal_lm" / name).read_bytes() == (package / name).read_bytes()
