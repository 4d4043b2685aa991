"""The configuration: defaults, GPT-2's names, the file, and every mistake in one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, GPT2Config, PreTrainedModel

from hfgpt import HfGptConfig, HfGptForCausalLM

MakeConfig = Callable[..., HfGptConfig]


def test_defaults_are_those_of_gpt2_small() -> None:
    ours, gpt2 = HfGptConfig(), GPT2Config()
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"):
        assert getattr(ours, name) == getattr(gpt2, name), name
    assert (ours.intermediate_size, ours.hidden_act, ours.layer_norm_eps) == (3072, "gelu_pytorch_tanh", 1e-5)
    assert (ours.embedding_dropout, ours.attention_dropout, ours.residual_dropout) == (0.1, 0.1, 0.1)
    assert (ours.qkv_bias, ours.tie_word_embeddings, ours.use_cache) == (True, True, True)


def test_gpt2_s_names_are_understood_and_standard_names_are_saved(tmp_path: Path) -> None:
    config = HfGptConfig(
        n_embd=96,
        n_layer=3,
        n_head=6,
        n_positions=64,
        n_inner=100,
        layer_norm_epsilon=1e-6,
        embd_pdrop=0.2,
        attn_pdrop=0.3,
        resid_pdrop=0,
        activation_function="gelu",
    )
    expected: dict[str, Any] = {
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 64,
        "intermediate_size": 100,
        "layer_norm_eps": 1e-6,
        "embedding_dropout": 0.2,
        "attention_dropout": 0.3,
        "residual_dropout": 0,
        "hidden_act": "gelu",
    }
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: getattr(config, name) for name in expected} == expected
    assert {name: saved.get(name) for name in expected} == expected
    assert not {"n_embd", "n_layer", "n_head", "n_positions", "n_inner"} & saved.keys()
    assert (config.n_embd, config.n_layer) == (96, 3)  # and can be read under GPT-2's names


@pytest.mark.parametrize("sizes", [{"n_embd": 96}, {"hidden_size": 96}])
def test_intermediate_size_is_four_times_the_width_under_either_name(sizes: dict[str, int]) -> None:
    config = HfGptConfig(**sizes, n_head=6)
    assert config.intermediate_size == 384
    assert config.head_dim == 16


@pytest.mark.parametrize(("hidden_size", "expected"), [(768, 2048), (1024, 2736), (32, 88), (48, 128)])
def test_a_gated_network_has_two_thirds_of_the_width_and_so_about_as_many_parameters(
    hidden_size: int, expected: int
) -> None:
    gated = HfGptConfig(hidden_size=hidden_size, num_attention_heads=4, hidden_act="swiglu")
    assert gated.intermediate_size == expected
    assert expected % 8 == 0
    assert 2 * 4 * hidden_size <= 3 * expected < 2 * 4 * hidden_size + 3 * 8
    assert HfGptConfig(hidden_size=64, n_inner=50, num_attention_heads=4, hidden_act="swiglu").intermediate_size == 50


def test_options_are_off_unless_they_are_asked_for() -> None:
    config = HfGptConfig(n_head=6, n_embd=96)
    assert config.num_key_value_heads == 6
    assert (config.sliding_window, config.is_causal) == (None, True)
    assert (config.norm_type, config.use_bias) == ("layer_norm", True)
    assert config.classifier_pooling == "last_token"


def test_a_file_written_before_there_were_options_opens(tiny_config: MakeConfig, tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    for name in ("num_key_value_heads", "sliding_window", "is_causal", "norm_type", "use_bias", "classifier_pooling"):
        fields.pop(name, None)
    path.write_text(json.dumps(fields))
    assert HfGptConfig.from_pretrained(tmp_path).to_dict() | {"_name_or_path": ""} == tiny_config().to_dict()


def test_every_field_survives_the_file(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(
        position_embedding_type="rotary",
        rope_theta=500,
        hidden_act="gelu",
        norm_type="rms_norm",
        num_key_value_heads=2,
        sliding_window=7,
        is_causal=False,
        classifier_pooling="mean",
        qkv_bias=False,
        use_bias=False,
        tie_word_embeddings=False,
        intermediate_size=50,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=[2, 3],
        pad_token_id=0,
        num_labels=5,
        layer_norm_eps=1e-6,
    )
    config.save_pretrained(tmp_path)
    for loaded in (HfGptConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is HfGptConfig
        assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
        assert loaded.num_labels == 5


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"hidden_size": 30}, ["hidden_size (30)", "num_attention_heads (4)"]),
        ({"position_embedding_type": "rotary", "hidden_size": 36}, ["rotary", "even", "9"]),
        ({"num_key_value_heads": 3}, ["num_attention_heads (4)", "num_key_value_heads (3)"]),
        ({"num_key_value_heads": 8}, ["num_attention_heads (4)", "num_key_value_heads (8)"]),
        ({"num_key_value_heads": 0}, ["num_key_value_heads", "0"]),
        ({"sliding_window": 1}, ["sliding_window", "1", "at least 2"]),
        ({"sliding_window": -4}, ["sliding_window", "-4"]),
        ({"hidden_size": 0}, ["hidden_size", "0"]),
        ({"vocab_size": -1}, ["vocab_size", "-1"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "0"]),
        ({"num_attention_heads": 0}, ["num_attention_heads", "0"]),
        ({"intermediate_size": 0}, ["intermediate_size", "0"]),
        ({"max_position_embeddings": -5}, ["max_position_embeddings", "-5"]),
        ({"layer_norm_eps": 0}, ["layer_norm_eps", "0"]),
        ({"rope_theta": 0}, ["rope_theta", "0"]),
        ({"residual_dropout": 1}, ["residual_dropout", "1"]),
        ({"attention_dropout": -0.1}, ["attention_dropout", "-0.1"]),
        ({"initializer_range": -0.02}, ["initializer_range", "-0.02"]),
    ],
    ids=lambda value: ",".join(map(str, value.items())) if isinstance(value, dict) else "",
)
def test_a_shape_that_does_not_fit_is_one_sentence_that_names_the_numbers(
    tiny_config: MakeConfig, fields: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError, match=".") as error:
        tiny_config(**fields)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message


def test_a_configuration_spoilt_after_its_construction_is_not_saved(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    config.hidden_size = 33
    with pytest.raises(StrictDataclassError, match=r"hidden_size \(33\) must be a multiple"):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields",
    [{"hidden_act": "relu"}, {"norm_type": "batch_norm"}, {"position_embedding_type": "alibi"}, {"hidden_size": "32"}],
)
def test_a_value_of_the_wrong_kind_is_refused(tiny_config: MakeConfig, fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(StrictDataclassError, match=name):
        tiny_config(**fields)


# --- GPT-2's config.json ----------------------------------------------------------------------------------------------


def write_gpt2_config(folder: Path, **changes: Any) -> Path:
    fields = {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    GPT2Config(**fields).save_pretrained(folder)
    path = folder / "config.json"
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | changes))
    return folder


def test_gpt2_s_file_is_read_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_gpt2_config(tmp_path, attn_pdrop=0.25, id2label={"0": "ham", "1": "eggs", "2": "spam"}, n_ctx=64)
    config = HfGptConfig.from_pretrained(folder)
    assert config.model_type == "hfgpt"
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (32, 2, 64)
    assert (config.intermediate_size, config.attention_dropout, config.num_labels) == (128, 0.25, 3)
    assert config.id2label[2] == "spam"
    assert (config.bos_token_id, config.eos_token_id) == (50256, 50256)
    assert (config.hidden_act, config.tie_word_embeddings) == ("gelu_pytorch_tanh", True)
    assert not [record for record in caplog.records if "model of type" in record.getMessage()]


def test_a_file_that_leaves_gpt2_s_defaults_unsaid_gets_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    ours, gpt2 = HfGptConfig.from_pretrained(tmp_path), GPT2Config.from_pretrained(tmp_path)
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"):
        assert getattr(ours, name) == getattr(gpt2, name)
    assert (ours.layer_norm_eps, ours.initializer_range) == (gpt2.layer_norm_epsilon, gpt2.initializer_range)
    assert (ours.embedding_dropout, ours.attention_dropout, ours.residual_dropout) == (0.1, 0.1, 0.1)
    assert (ours.bos_token_id, ours.eos_token_id) == (gpt2.bos_token_id, gpt2.eos_token_id)


def test_the_number_of_positions_is_n_positions_where_an_old_file_s_n_ctx_differs(tmp_path: Path) -> None:
    config = HfGptConfig.from_pretrained(write_gpt2_config(tmp_path, n_ctx=32))
    assert config.max_position_embeddings == 64  # as in transformers' GPT-2: the rows of its position embedding


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"scale_attn_weights": False}, "scale_attn_weights"),
        ({"activation_function": "relu"}, "relu"),
    ],
)
def test_a_gpt2_that_we_do_not_compute_is_refused(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name) as error:
        HfGptConfig.from_pretrained(write_gpt2_config(tmp_path, **changes))
    assert "\n" not in str(error.value)
    assert "GPT2LMHeadModel" in str(error.value)


def test_the_refused_gpt2_is_refused_by_the_model_s_from_pretrained_too(
    random_gpt2: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    random_gpt2(scale_attn_by_inverse_layer_idx=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx"):
        HfGptForCausalLM.from_pretrained(tmp_path)


def test_initial_embeddings_have_a_scale_of_their_own_only_beside_an_untied_head() -> None:
    config = HfGptConfig(
        vocab_size=500,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
        embedding_initializer_range=1.0,
    )
    torch.manual_seed(0)
    model = HfGptForCausalLM(config)
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(1.0, rel=0.02)
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.02)
    with pytest.raises(ValueError, match="embedding_initializer_range needs tie_word_embeddings = False"):
        HfGptConfig(embedding_initializer_range=1.0)
