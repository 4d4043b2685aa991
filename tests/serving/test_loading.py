"""Loading a model, and the one sentence where there is none."""

import json
import os
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from hfgpt import HfGptForCausalLM, HfGptForSequenceClassification, HfGptModel
from hfgpt.errors import UserError
from hfgpt.serving.loading import load_model, read_state_dict

WEIGHTS = "model.safetensors"


def refusal(*arguments, **kwargs) -> str:
    with pytest.raises(UserError) as error:
        load_model(*arguments, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def change_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_saved_model_comes_back_bit_for_bit_and_ready_for_use(model, model_folder) -> None:
    loaded = load_model(model_folder)
    assert type(loaded) is HfGptForCausalLM
    assert not loaded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_fields_of_the_configuration_and_the_dtype_can_be_given(model_folder) -> None:
    loaded = load_model(model_folder, residual_dropout=0.25, dtype=torch.bfloat16)
    assert loaded.config.residual_dropout == 0.25
    assert loaded.dtype == torch.bfloat16


def test_gpt2s_layout_is_read(tmp_path) -> None:
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, n_positions=8)).eval()
    gpt2.save_pretrained(tmp_path)
    tokens = torch.arange(8)[None]
    torch.testing.assert_close(load_model(tmp_path)(tokens).logits, gpt2(tokens).logits)


def test_the_base_model_and_a_new_classification_head_can_be_asked_for(model_folder) -> None:
    assert type(load_model(model_folder, HfGptModel)) is HfGptModel
    assert load_model(model_folder, HfGptForSequenceClassification, num_labels=3).score.weight.shape == (3, 16)


def test_a_folder_in_the_home_directory_is_found(model_folder, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(model_folder.parent))
    assert load_model("~/model").num_parameters() > 0


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "~/nothing", "a/b/c"])
def test_a_path_that_is_not_there(path: str) -> None:
    assert refusal(path) == f"There is no folder {path}: give the folder of a saved model or a Hub id."


def test_a_folder_without_a_model(tmp_path) -> None:
    assert "has no config.json: give the folder of a saved model" in refusal(tmp_path)


def test_the_folder_of_a_run_in_place_of_its_model(model_folder) -> None:
    assert f"did you mean {model_folder}?" in refusal(model_folder.parent)


@pytest.mark.parametrize("name", ["gpt2-that-is-not-there", "nobody/nothing"])
def test_a_hub_id_without_a_connection(name: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal(name, cache_dir=tmp_path)
    assert message.startswith(f"{name} cannot be loaded as a model: ")


def test_a_name_that_no_hub_id_has() -> None:
    assert "cannot be loaded as a model" in refusal("no such$name")


def test_a_file_in_place_of_a_folder(model_folder) -> None:
    assert "is a file: give the folder of a saved model" in refusal(model_folder / WEIGHTS)


def test_a_model_of_another_type(model_folder) -> None:
    change_config(model_folder, model_type="bert")
    assert "a model of type 'bert'" in refusal(model_folder)


def test_a_configuration_that_is_no_json(model_folder) -> None:
    (model_folder / "config.json").write_text("{")
    assert "not a valid JSON file" in refusal(model_folder)


def test_a_configuration_that_cannot_be(model_folder) -> None:
    change_config(model_folder, num_attention_heads=3)
    assert "multiple of num_attention_heads (3)" in refusal(model_folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_weights_file(model_folder, kept: int) -> None:
    path = model_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    assert str(model_folder) in refusal(model_folder)


def test_a_corrupted_weights_file(model_folder) -> None:
    (model_folder / WEIGHTS).write_bytes(b"\xff" * 200)
    assert str(model_folder) in refusal(model_folder)


def test_no_weights_file(model_folder) -> None:
    (model_folder / WEIGHTS).unlink()
    assert WEIGHTS in refusal(model_folder)


def test_a_shard_that_is_missing(model_folder) -> None:
    names = load_file(model_folder / WEIGHTS)
    (model_folder / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refusal(model_folder)


@pytest.mark.parametrize("name", ["model.layers.1.mlp.fc1.weight", "model.embed_positions.weight", "model.norm.bias"])
def test_weights_that_are_missing_are_not_made_up(model_folder, name: str) -> None:
    weights = load_file(model_folder / WEIGHTS)
    del weights[name]
    save_file(weights, model_folder / WEIGHTS, metadata={"format": "pt"})
    message = refusal(model_folder)
    assert "lacks 1 of the model's weights" in message
    assert name in message


def test_an_untied_head_that_is_missing_is_not_made_up(model_folder) -> None:
    assert "lm_head.weight" in refusal(model_folder, tie_word_embeddings=False)


def test_layers_that_the_checkpoint_lacks_are_not_made_up(model_folder) -> None:
    assert "it is damaged or of another architecture" in refusal(model_folder, num_hidden_layers=3)


def test_layers_of_the_checkpoint_are_not_dropped(model_folder) -> None:
    refusal(model_folder, num_hidden_layers=1)


def test_weights_of_another_shape(model_folder) -> None:
    refusal(model_folder, hidden_size=32)


def test_a_configuration_of_the_wrong_types(model_folder) -> None:
    change_config(model_folder, hidden_size="wide")
    refusal(model_folder)


def test_a_field_of_the_wrong_type(model_folder) -> None:
    refusal(model_folder, attention_dropout="much")


def test_a_corrupted_pickle(model_folder) -> None:
    (model_folder / WEIGHTS).unlink()
    (model_folder / "pytorch_model.bin").write_bytes(b"no pickle")
    refusal(model_folder)


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def test_a_pickle_runs_no_code(model_folder, tmp_path) -> None:
    (model_folder / WEIGHTS).unlink()
    torch.save({"model.norm.weight": Attack(str(tmp_path / "attacked"))}, model_folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="Weights only load failed"):
        load_model(model_folder)
    assert not (tmp_path / "attacked").exists()


def test_a_new_classification_head_is_said(model_folder, caplog) -> None:
    caplog.set_level("WARNING")
    load_model(model_folder, HfGptForSequenceClassification)
    assert "has no classification head: a new one is random" in caplog.text


# ----------------------------------------------------------------------------------------------------------------------
# Files of other code bases
# ----------------------------------------------------------------------------------------------------------------------

WEIGHTS_ALONE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}


def file_refusal(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("key", [None, "model", "model_state_dict", "state_dict"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-2020"])
def test_a_state_dict_is_read_wherever_code_bases_keep_it(tmp_path, key: str | None, zipped: bool) -> None:
    content = WEIGHTS_ALONE if key is None else {key: WEIGHTS_ALONE, "model_args": {"n_head": 2}, "step": 3}
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    state_dict, model_args = read_state_dict(tmp_path / "file.pt")
    assert state_dict.keys() == WEIGHTS_ALONE.keys()
    assert all(torch.equal(state_dict[name], weight) for name, weight in WEIGHTS_ALONE.items())
    assert model_args == (None if key is None else {"n_head": 2})


def test_a_state_dict_of_safetensors_is_read(tmp_path) -> None:
    save_file(WEIGHTS_ALONE, tmp_path / "file.safetensors")
    state_dict, model_args = read_state_dict(tmp_path / "file.safetensors")
    assert torch.equal(state_dict["weight"], WEIGHTS_ALONE["weight"])
    assert model_args is None


class Unpickled:
    """An object that would tell if it had been opened."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ("opened",))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before-2020"])
def test_a_file_that_would_run_code_is_refused_and_nothing_is_run(tmp_path, monkeypatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(WEIGHTS_ALONE | {"extra": Unpickled()}, "file.pt", _use_new_zipfile_serialization=zipped)
    sentence = file_refusal(Path("file.pt"))
    assert "mkdir" in sentence
    assert "torch.save(model.state_dict(), PATH)" in sentence
    assert not Path("opened").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"model": {}}, {"step": 3}, {0: torch.zeros(1)}, torch.zeros(2)])
def test_what_is_no_state_dict_is_refused(tmp_path, content: object) -> None:
    torch.save(content, tmp_path / "file.pt")
    assert "holds no state dict" in file_refusal(tmp_path / "file.pt")


@pytest.mark.parametrize("name", ["file.pt", "file.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_an_empty_or_truncated_file_is_refused(tmp_path, name: str, share: float) -> None:
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else torch.save)(WEIGHTS_ALONE, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert ("is empty" if share == 0 else "is damaged") in file_refusal(path)


@pytest.mark.parametrize("name", ["file.pt", "file.safetensors", "file"])
def test_a_file_of_another_kind_and_one_that_is_not_there_are_refused(tmp_path, name: str) -> None:
    assert "There is no file" in file_refusal(tmp_path / name)
    (tmp_path / name).write_text("Once upon a time there was no checkpoint.\n" * 9, encoding="utf-8")
    assert "no checkpoint of torch's or safetensors'" in file_refusal(tmp_path / name)
