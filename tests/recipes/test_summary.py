"""`hfgpt summary`: finished runs side by side, from what they left."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hfgpt.cli.main import app, main
from hfgpt.recipes import summary
from hfgpt.recipes.instruction_results import print_samples


@pytest.fixture
def runs(recipe, classify, instruct, tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name for name in ("pretrained", "classifier", "answering")]
    for each, folder in zip((recipe, classify, instruct), folders, strict=True):
        each.run("--output_dir", str(folder), max_steps=2)
    return folders


def test_losses_scores_samples_and_pictures_of_each_run_are_printed(runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["summary", *map(str, runs)])
    assert result.exit_code == 0, result.output
    for folder in runs:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert f"{results['validation_after']['loss']:.3f}" in result.output
        for picture in folder.glob("*.png"):
            assert str(picture) in result.output
    assert "accuracy" in result.output
    assert "exact match: once" in result.output
    answer = json.loads((runs[2] / "test_answers.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert answer["prompt"].splitlines()[0] in result.output


def test_the_command_that_would_push_each_model_is_named_but_for_those_that_are_to_compare_with(
    runs, classify, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = tmp_path / "classifier_random"
    classify.run("--output_dir", str(compared), max_steps=1, random_weights=True)
    summary.summarise([*runs, compared])
    printed = capsys.readouterr().out
    for folder in runs:
        assert f"hfgpt push {folder} --repo YOUR_NAME/hfgpt-{folder.name}\n" in printed
    assert "classifier-random" not in printed


def test_programs_read_the_same_as_json(runs, capsys: pytest.CaptureFixture[str]) -> None:
    summary.summarise(runs, as_json=True)
    found = json.loads(capsys.readouterr().out)
    for folder, run in zip(runs, found, strict=True):
        assert run == {"run": str(folder), **json.loads((folder / "results.json").read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "holds no finished run"), ("{", "is damaged"), ("[]", "is not what a training writes")],
)
def test_a_folder_without_a_finished_run_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["hfgpt", "summary", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_the_samples_are_the_first_answers_of_the_first_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"task": task, "prompt": f"{task} {index}", "answer": "so", "reference": "so"}
        for index, task in enumerate(["copy", "sum", "copy", "sort", "reverse", "copy", "sum"])
    ]
    print_samples(lines)
    assert capsys.readouterr().out.split("\n")[::2][:3] == ["copy 0", "sum 1", "sort 3"]
