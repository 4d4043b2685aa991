"""GPT-2's checkpoints in, our own layout to disk, and GPT-2's out again: nothing lost, bit for bit."""

import json
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedModel,
    QuantoConfig,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.distributed import DistributedConfig

from hfgpt import HfGptConfig, HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel
from hfgpt.conversion_hfgpt import gpt2_config_dict, gpt2_state_dict

MakeConfig = Callable[..., HfGptConfig]
MakeGpt2 = Callable[..., PreTrainedModel]


@pytest.fixture
def token_ids() -> Tensor:
    return torch.randint(97, (2, 15), generator=torch.Generator().manual_seed(1))


def saved_names(folder: Path) -> set[str]:
    return {name for path in folder.glob("*.safetensors") for name in safe_open(path, "pt").keys()}  # noqa: SIM118


def load_whole(model_class: Any, folder: Path, **arguments: Any) -> PreTrainedModel:
    """Load, and insist that nothing was missing, left over or of another shape."""
    model, report = model_class.from_pretrained(folder, output_loading_info=True, **arguments)
    assert not any(report.values()), report
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    return model.eval()


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    expected, actual = one.state_dict(), other.state_dict()
    assert expected.keys() == actual.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, actual[name]), name
        assert weight.dtype == actual[name].dtype, name


@torch.no_grad()
def assert_same_logits(one: Any, other: Any, token_ids: Tensor) -> None:
    torch.testing.assert_close(one(token_ids).logits, other(token_ids).logits, rtol=0, atol=2e-5)


# --- GPT-2's layouts in -----------------------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Write the folder's weights anew after `change`, as one safetensors file."""
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file({name: weight.contiguous() for name, weight in weights.items()}, path, metadata={"format": "pt"})


def without_prefix(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("transformer."): weight for name, weight in weights.items()}


def with_old_buffers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    buffers = {}
    for number in range(2):
        buffers[f"transformer.h.{number}.attn.bias"] = torch.ones(32, 32).tril().view(1, 1, 32, 32)
        buffers[f"transformer.h.{number}.attn.masked_bias"] = torch.tensor(-1e4)
    return weights | buffers


def as_first_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return without_prefix(with_old_buffers(weights))


def as_pickle(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


LAYOUTS: dict[str, Callable[[PreTrainedModel, Path], object]] = {
    "as saved today": lambda gpt2, folder: gpt2.save_pretrained(folder),
    "without prefix": lambda gpt2, folder: (gpt2.save_pretrained(folder), rewrite(folder, without_prefix)),
    "with old buffers": lambda gpt2, folder: (gpt2.save_pretrained(folder), rewrite(folder, with_old_buffers)),
    "as first published": lambda gpt2, folder: (gpt2.save_pretrained(folder), rewrite(folder, as_first_published)),
    "sharded": lambda gpt2, folder: gpt2.save_pretrained(folder, max_shard_size="20KB"),
    "pickle": lambda gpt2, folder: (gpt2.save_pretrained(folder), as_pickle(folder)),
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_gpt2_loads_whole_and_computes_the_same(
    random_gpt2: MakeGpt2, tmp_path: Path, token_ids: Tensor, layout: str, tied: bool
) -> None:
    gpt2 = random_gpt2(tie_word_embeddings=tied)
    LAYOUTS[layout](gpt2, tmp_path)
    if layout == "sharded":
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model = load_whole(HfGptForCausalLM, tmp_path)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert_same_logits(model, gpt2, token_ids)


@pytest.mark.parametrize(
    "changes",
    [{"n_inner": 80}, {"activation_function": "gelu"}, {"layer_norm_epsilon": 0.01}, {"n_head": 1}, {"n_layer": 11}],
    ids=str,
)
def test_other_shapes_of_gpt2_compute_the_same(
    random_gpt2: MakeGpt2, tmp_path: Path, token_ids: Tensor, changes: dict[str, Any]
) -> None:
    gpt2 = random_gpt2(**changes)
    gpt2.save_pretrained(tmp_path)
    assert_same_logits(load_whole(HfGptForCausalLM, tmp_path), gpt2, token_ids)


def test_gpt2_loads_through_the_auto_class_with_our_configuration(
    random_gpt2: MakeGpt2, tmp_path: Path, token_ids: Tensor
) -> None:
    gpt2 = random_gpt2()
    gpt2.save_pretrained(tmp_path)
    model = load_whole(AutoModelForCausalLM, tmp_path, config=HfGptConfig.from_pretrained(tmp_path))
    assert type(model) is HfGptForCausalLM
    assert_same_logits(model, gpt2, token_ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gpt2_in_half_precision_keeps_its_bits(random_gpt2: MakeGpt2, tmp_path: Path, dtype: torch.dtype) -> None:
    gpt2 = random_gpt2().to(dtype)
    gpt2.save_pretrained(tmp_path)
    model = load_whole(HfGptForCausalLM, tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for name, weight in gpt2_state_dict(model).items():
        assert torch.equal(weight, gpt2.state_dict()[name]), name


@pytest.mark.parametrize("source", ["GPT2LMHeadModel", "GPT2Model"])
@torch.no_grad()
def test_the_base_model_loads_from_gpt2_with_or_without_its_head(
    random_gpt2: MakeGpt2, tmp_path: Path, token_ids: Tensor, source: str
) -> None:
    gpt2 = random_gpt2(source)
    gpt2.save_pretrained(tmp_path)
    model = load_whole(HfGptModel, tmp_path)
    expected = getattr(gpt2, "transformer", gpt2)(token_ids).last_hidden_state
    torch.testing.assert_close(model(token_ids).last_hidden_state, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("source", ["GPT2LMHeadModel", "GPT2Model"])
def test_into_a_classifier_only_the_score_is_new_and_it_is_said(
    random_gpt2: MakeGpt2, tmp_path: Path, source: str
) -> None:
    gpt2 = random_gpt2(source)
    gpt2.save_pretrained(tmp_path)
    model, report = HfGptForSequenceClassification.from_pretrained(tmp_path, num_labels=3, output_loading_info=True)
    assert set(report.pop("missing_keys")) == {"score.weight"}
    assert not any(report.values()), report
    assert model.score.weight.shape == (3, 32)
    assert_same_weights(model.model, HfGptModel.from_pretrained(tmp_path))


@pytest.mark.parametrize("padding_side", ["left", "right"])
@torch.no_grad()
def test_gpt2_s_classifier_loads_with_its_score(random_gpt2: MakeGpt2, tmp_path: Path, padding_side: str) -> None:
    gpt2 = random_gpt2("GPT2ForSequenceClassification", num_labels=3, pad_token_id=96)
    gpt2.save_pretrained(tmp_path)
    model = load_whole(HfGptForSequenceClassification, tmp_path)
    assert model.config.num_labels == 3
    text = torch.tensor([5, 6, 7])
    padding = torch.full((4,), 96)
    row = torch.cat([text, padding] if padding_side == "right" else [padding, text])
    batch = torch.stack([row, torch.arange(7)])
    mask = (batch != 96).long()
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)  # GPT-2 counts padding where it is not told
    expected = gpt2(batch, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(model(batch, attention_mask=mask).logits, expected, rtol=0, atol=2e-5)


def test_a_missing_weight_of_gpt2_is_reported(random_gpt2: MakeGpt2, tmp_path: Path) -> None:
    random_gpt2().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda weights: {name: w for name, w in weights.items() if "h.1.attn.c_attn.bias" not in name})
    _, report = HfGptForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {f"model.layers.1.self_attn.{letter}_proj.bias" for letter in "qkv"}


class Payload:
    """Writes a file when it is unpickled by a careless reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "the payload ran"))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(random_gpt2: MakeGpt2, tmp_path: Path) -> None:
    folder, trace = tmp_path / "model", tmp_path / "trace"
    gpt2 = random_gpt2()
    gpt2.config.save_pretrained(folder)
    torch.save(gpt2.state_dict() | {"payload": Payload(trace)}, folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights.only|unsupported"):
        HfGptForCausalLM.from_pretrained(folder)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))  # so would a careless reader have run it
    assert trace.exists()


# --- Our own layout ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
@pytest.mark.parametrize("model_class", [HfGptModel, HfGptForCausalLM, HfGptForSequenceClassification])
def test_what_is_saved_is_loaded_bit_for_bit(
    tiny_config: MakeConfig, tmp_path: Path, token_ids: Tensor, model_class: Any, shard_size: str
) -> None:
    torch.manual_seed(0)
    for tied in (True, False):
        folder = tmp_path / str(tied)
        model = model_class(tiny_config(tie_word_embeddings=tied, num_labels=3)).eval()
        model.save_pretrained(folder, max_shard_size=shard_size)
        assert (len(list(folder.glob("*.safetensors"))) > 2) == (shard_size == "20KB")
        loaded = load_whole(model_class, folder)
        assert_same_weights(model, loaded)
        with torch.no_grad():
            assert torch.equal(model(token_ids)[0], loaded(token_ids)[0])


@pytest.mark.parametrize("tied", [True, False])
def test_the_file_holds_tied_weights_once(tiny_config: MakeConfig, tmp_path: Path, tied: bool) -> None:
    model = HfGptForCausalLM(tiny_config(tie_word_embeddings=tied))
    model.save_pretrained(tmp_path)
    names = saved_names(tmp_path)
    assert "model.embed_tokens.weight" in names
    assert ("lm_head.weight" in names) == (not tied)


def test_a_model_that_came_from_gpt2_is_saved_in_our_layout(
    random_gpt2: MakeGpt2, tmp_path: Path, token_ids: Tensor
) -> None:
    gpt2 = random_gpt2()
    gpt2.save_pretrained(tmp_path / "gpt2")
    model = load_whole(HfGptForCausalLM, tmp_path / "gpt2")
    model.save_pretrained(tmp_path / "ours")
    names = saved_names(tmp_path / "ours")
    assert names == {name for name in model.state_dict() if name != "lm_head.weight"}
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["model_type"] == "hfgpt"
    loaded = load_whole(AutoModelForCausalLM, tmp_path / "ours")
    assert type(loaded) is HfGptForCausalLM
    assert_same_weights(model, loaded)
    assert_same_logits(loaded, gpt2, token_ids)


def test_saving_one_model_leaves_what_another_saves_alone(tiny_config: MakeConfig, tmp_path: Path) -> None:
    class Derived(HfGptForCausalLM):
        """A user's own model, in the user's own module (that of any importable file does here)."""

    Derived.__module__ = "json.decoder"
    Derived(tiny_config()).save_pretrained(tmp_path / "derived")
    HfGptForCausalLM(tiny_config()).save_pretrained(tmp_path / "ours")
    auto_map = json.loads((tmp_path / "ours" / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModelForCausalLM"] == "modeling_hfgpt.HfGptForCausalLM"


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A process group of one, which is enough for torch to shard a model."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_sharded_model_is_saved_with_our_code(tiny_config: MakeConfig, tmp_path: Path) -> None:
    # fully_shard gives the model a class made on the fly, in a module of torch.
    model = HfGptForCausalLM(tiny_config())
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    assert type(model) is not HfGptForCausalLM
    model.save_pretrained(tmp_path / "saved", state_dict=weights)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["auto_map"]["AutoModelForCausalLM"] == "modeling_hfgpt.HfGptForCausalLM"
    assert config["architectures"] == ["HfGptForCausalLM"]
    code = {path.name for path in (tmp_path / "saved").glob("*.py")}
    assert code == {f"{name}_hfgpt.py" for name in ("configuration", "conversion", "modeling", "pooling")}


# --- GPT-2's layout out -----------------------------------------------------------------------------------------------


def export(model: PreTrainedModel, gpt2_class: Any, folder: Path) -> Any:
    """Through transformers' own classes: load strictly, save, and load again."""
    gpt2 = gpt2_class(GPT2Config(**gpt2_config_dict(model.config)))
    weights = gpt2_state_dict(model)
    prefix = "" if gpt2_class is not GPT2Model else "transformer."
    gpt2.load_state_dict({name.removeprefix(prefix): weight for name, weight in weights.items()}, strict=True)
    gpt2.save_pretrained(folder)
    return gpt2_class.from_pretrained(folder).eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize(
    ("model_class", "gpt2_class"),
    [
        (HfGptModel, GPT2Model),
        (HfGptForCausalLM, GPT2LMHeadModel),
        (HfGptForSequenceClassification, GPT2ForSequenceClassification),
    ],
)
def test_to_gpt2_and_back_keeps_every_bit(
    tiny_config: MakeConfig, tmp_path: Path, token_ids: Tensor, model_class: Any, gpt2_class: Any, qkv_bias: bool,
    tied: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    changes = {"num_labels": 3, "pad_token_id": 0, "intermediate_size": 80, "hidden_act": "gelu"}
    model = model_class(tiny_config(tie_word_embeddings=tied, qkv_bias=qkv_bias, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # biases and LayerNorms too
    gpt2 = export(model, gpt2_class, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(token_ids)[0], gpt2(token_ids)[0], rtol=0, atol=2e-5)
    back = load_whole(model_class, tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, back.state_dict()[name]), name
    added = back.state_dict().keys() - model.state_dict().keys()
    assert len(added) == (0 if qkv_bias else 2 * 3)
    for name in added:
        assert name.endswith("_proj.bias")
        assert not back.state_dict()[name].any()


def test_gpt2_to_us_and_out_again_keeps_every_bit(random_gpt2: MakeGpt2, tmp_path: Path) -> None:
    gpt2 = random_gpt2(n_layer=11)  # from ten layers on, the order of names is not the order of numbers
    gpt2.save_pretrained(tmp_path / "gpt2")
    model = HfGptForCausalLM.from_pretrained(tmp_path / "gpt2")
    assert_same_weights(gpt2, export(model, GPT2LMHeadModel, tmp_path / "again"))
    model.save_pretrained(tmp_path / "ours")  # the export has not changed how the model is saved
    assert "model.layers.0.self_attn.q_proj.weight" in saved_names(tmp_path / "ours")


def test_the_exported_weights_can_be_written_as_they_are(tiny_config: MakeConfig, tmp_path: Path) -> None:
    model = HfGptForCausalLM(tiny_config(tie_word_embeddings=False, qkv_bias=False))
    weights = gpt2_state_dict(model)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    save_file({name: weight.contiguous() for name, weight in weights.items()}, tmp_path / "model.safetensors")
    assert set(load_file(tmp_path / "model.safetensors")) == set(weights)


def test_the_export_stays_on_the_weights_device(tiny_config: MakeConfig) -> None:
    with torch.device("meta"):  # stands for an accelerator: a device that is not the CPU
        model = HfGptForCausalLM(tiny_config(qkv_bias=False))
    assert {weight.device.type for weight in gpt2_state_dict(model).values()} == {"meta"}


def test_the_exported_configuration_says_what_gpt2_reads(tiny_config: MakeConfig) -> None:
    fields = gpt2_config_dict(tiny_config(layer_norm_eps=1e-6, residual_dropout=0.3, num_labels=4, eos_token_id=3))
    config = GPT2Config(**fields)
    assert (config.n_positions, config.layer_norm_epsilon, config.resid_pdrop) == (32, 1e-6, 0.3)
    assert (config.num_labels, config.eos_token_id, config.activation_function) == (4, 3, "gelu_new")
    assert fields["n_inner"] is None
    assert fields["n_ctx"] == 32  # for llama.cpp's converter


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position_embedding_type", "rotary"),
        ("position_embedding_type", "none"),
        ("norm_type", "rms_norm"),
        ("hidden_act", "swiglu"),
        ("num_key_value_heads", 2),
        ("sliding_window", 7),
        ("is_causal", False),
        ("classifier_pooling", "first_token"),
        ("classifier_pooling", "mean"),
    ],
)
def test_what_gpt2_does_not_compute_is_refused(tiny_config: MakeConfig, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field}.*{value}") as error:
        gpt2_config_dict(tiny_config(**{field: value}))
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        gpt2_state_dict(HfGptForCausalLM(tiny_config(**{field: value})))


@torch.no_grad()
def test_a_model_without_biases_is_gpt2_with_zero_biases(
    tiny_config: MakeConfig, tmp_path: Path, token_ids: Tensor
) -> None:
    model = HfGptForCausalLM(tiny_config(use_bias=False, qkv_bias=False)).eval()
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())
    gpt2 = export(model, GPT2LMHeadModel, tmp_path)
    assert_same_logits(model, gpt2, token_ids)
    biases = [weight for name, weight in gpt2.state_dict().items() if name.endswith("bias")]
    assert len(biases) == 2 * 6 + 1
    assert not any(bias.any() for bias in biases)


# --- The mapping and transformers' registry ---------------------------------------------------------------------------


def test_the_mapping_is_registered_while_a_checkpoint_is_read_and_never_applied_backwards(
    tiny_config: MakeConfig, random_gpt2: MakeGpt2, tmp_path: Path
) -> None:
    random_gpt2().save_pretrained(tmp_path / "gpt2")
    from_gpt2 = HfGptForCausalLM.from_pretrained(tmp_path / "gpt2")
    fresh = HfGptForCausalLM(tiny_config())
    fresh.save_pretrained(tmp_path / "ours")
    again = HfGptForCausalLM.from_pretrained(tmp_path / "ours")
    for number, model in enumerate((from_gpt2, fresh, again)):
        assert get_model_conversion_mapping(model, add_legacy=False) == []
        for asked in (True, False):
            folder = tmp_path / f"{number}-{asked}"
            model.save_pretrained(folder, save_original_format=asked)
            assert_same_weights(model, load_whole(HfGptForCausalLM, folder))
            assert "model.layers.0.mlp.fc1.weight" in saved_names(folder)
    with pytest.raises(OSError, match="no file named"):
        HfGptForCausalLM.from_pretrained(tmp_path)
    assert get_model_conversion_mapping(fresh, add_legacy=False) == []


def test_threads_read_gpt2_s_layout_and_write_ours_at_the_same_time(random_gpt2: MakeGpt2, tmp_path: Path) -> None:
    folders = [tmp_path / str(seed) for seed in range(4)]
    models = [random_gpt2(seed=seed) for seed in range(4)]
    for model, folder in zip(models, folders, strict=True):
        model.save_pretrained(folder)

    def load_and_save(folder: Path) -> PreTrainedModel:
        loaded = load_whole(HfGptForCausalLM, folder)
        for number in range(3):  # while others read
            loaded.save_pretrained(folder / str(number))
        return loaded

    with ThreadPoolExecutor(max_workers=4) as threads:
        loaded = list(threads.map(load_and_save, folders))
    for folder in folders:
        for number in range(3):
            assert "model.layers.0.mlp.fc1.weight" in saved_names(folder / str(number))
    for model, ours in zip(models, loaded, strict=True):
        assert torch.equal(ours.model.embed_positions.weight, model.transformer.wpe.weight)
        assert torch.equal(ours.model.layers[1].mlp.fc2.weight, model.transformer.h[1].mlp.c_proj.weight.T)


@pytest.mark.parametrize(
    "changes", [{"quantization_config": QuantoConfig()}, {"distributed_config": DistributedConfig(tp_size=2)}], ids=str
)
def test_gpt2_s_layout_is_not_sharded_or_quantised_while_it_is_read(
    random_gpt2: MakeGpt2, tmp_path: Path, changes: dict[str, Any]
) -> None:
    random_gpt2().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"cannot be loaded with {next(iter(changes))}.*hfgpt convert") as error:
        HfGptForCausalLM.from_pretrained(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_a_classifier_is_opened_by_the_auto_class_with_its_labels(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(id2label={0: "ham", 1: "spam"}, label2id={"ham": 0, "spam": 1})
    HfGptForSequenceClassification(config).save_pretrained(tmp_path)
    loaded = load_whole(AutoModelForSequenceClassification, tmp_path)
    assert loaded.config.id2label == {0: "ham", 1: "spam"}
