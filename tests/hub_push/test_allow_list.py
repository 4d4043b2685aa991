"""What of a folder goes to the Hub, and what stays behind."""

import json
from pathlib import Path

import pytest
import yaml

from hfgpt import HfGptForCausalLM
from hfgpt.errors import UserError
from hfgpt.hub.allow_list import files_to_push

from .conftest import MODEL_FILES


def paths(folder: Path) -> list[str]:
    return [file.path for file in files_to_push(folder).files]


def test_a_saved_model_goes_whole(model_folder: Path) -> None:
    assert paths(model_folder) == MODEL_FILES
    assert files_to_push(model_folder).left_out == []


def test_a_run_adds_its_numbers_and_pictures_to_the_model(run_folder: Path) -> None:
    selection = files_to_push(run_folder)
    added = ["loss_curve.png", "metrics.jsonl", "results.json", "run_config.yaml"]
    assert [file.path for file in selection.files] == sorted([*MODEL_FILES, *added])
    assert {item.path for item in selection.left_out} == {
        ".lock", "checkpoint-1/", "config.yaml", "report.json", "samples.jsonl",
    }  # fmt: skip


def test_what_is_on_no_list_stays_behind_and_is_named(model_folder: Path) -> None:
    for name in (".env", "id_rsa", "train.csv", "notebook.ipynb", "screenshot.png", "optimizer.pt", "other.py"):
        (model_folder / name).write_text("private")
    (model_folder / "wandb").mkdir()
    (model_folder / "model-00001-of-00002.safetensors").write_bytes(b"")  # of a model that was here before
    selection = files_to_push(model_folder)
    assert [file.path for file in selection.files] == MODEL_FILES
    assert {item.path: bool(item.reason) for item in selection.left_out} == dict.fromkeys(
        [
            ".env", "id_rsa", "model-00001-of-00002.safetensors", "notebook.ipynb", "optimizer.pt", "other.py",
            "screenshot.png", "train.csv", "wandb/",
        ],
        True,
    )  # fmt: skip


def test_paths_in_the_run_configuration_are_cut_in_what_is_sent_only(run_folder: Path) -> None:
    before = (run_folder / "final" / "run_config.yaml").read_bytes()
    file = files_to_push(run_folder).find("run_config.yaml")
    assert file is not None
    assert yaml.safe_load(file.read()) == {
        "output_dir": "run", "source": "letters.txt", "tokenizer": "openai-community/gpt2",
    }  # fmt: skip
    assert (run_folder / "final" / "run_config.yaml").read_bytes() == before


def test_shards_go_with_their_index(model_folder: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    HfGptForCausalLM.from_pretrained(model_folder).save_pretrained(sharded, max_shard_size="10KB")
    shards = sorted(set(json.loads((sharded / "model.safetensors.index.json").read_text())["weight_map"].values()))
    assert len(shards) > 1
    assert set(paths(sharded)) >= {"model.safetensors.index.json", *shards}
    (sharded / shards[0]).unlink()
    with pytest.raises(UserError, match=f"names weights in {shards[0]}, which is not there"):
        files_to_push(sharded)


def test_code_that_is_missing_is_said_before_anybody_misses_it(model_folder: Path) -> None:
    (model_folder / "pooling_hfgpt.py").unlink()
    with pytest.raises(UserError, match=r"names code in pooling_hfgpt.py, which is not there"):
        files_to_push(model_folder)


def test_a_link_that_leads_out_of_the_folder_is_left_out_and_named(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.md").write_text("dear diary")
    for link in (run_folder / "final" / "README.md", run_folder / "results.json"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / "diary.md")
    (run_folder / "circle").symlink_to("circle")
    selection = files_to_push(run_folder)
    assert selection.find("README.md") is None
    assert selection.find("results.json") is None
    reasons = {item.path: item.reason for item in selection.left_out}
    assert reasons["final/README.md"] == reasons["results.json"] == "a link that leads out of the folder"
    assert reasons["circle"] == "not one of the files of a run"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "modeling_hfgpt.py"])
def test_a_model_is_not_pushed_without_the_file_that_a_link_outwards_stands_for(
    model_folder: Path, tmp_path: Path, name: str
) -> None:
    (model_folder / name).rename(tmp_path / name)
    (model_folder / name).symlink_to(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is a link to a file outside .*: put the file itself in its place"):
        files_to_push(model_folder)


def test_the_model_of_a_run_that_lies_elsewhere_is_not_pushed(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "final").rename(tmp_path / "elsewhere")
    (run_folder / "final").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link to a file outside"):
        files_to_push(run_folder)


def test_a_link_within_the_folder_is_pushed_as_the_file_that_it_leads_to(run_folder: Path, tmp_path: Path) -> None:
    weights = run_folder / "checkpoint-1" / "model.safetensors"
    (run_folder / "final" / "model.safetensors").rename(weights)
    (run_folder / "final" / "model.safetensors").symlink_to("../checkpoint-1/model.safetensors")
    (tmp_path / "latest").symlink_to(run_folder)  # the folder itself may be reached by a link
    file = files_to_push(tmp_path / "latest").find("model.safetensors")
    assert file is not None
    assert file.source == weights.resolve()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "no config.json: give the folder of a saved model"),
        (["config.yaml"], "its run has not come to its end"),
        (["config.json"], "There is no model.safetensors"),
        (["config.json", "pytorch_model.bin"], "its weights are pickled, .* hfgpt convert"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path: Path, files: list[str], sentence: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=sentence):
        files_to_push(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        files_to_push(tmp_path / "nowhere")
