"""The three models that `make demo` makes are pushed, and load in fresh processes with hfgpt and without."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .fixtures import environment_of
from .runs import CONTENTS, Runs

Run = Callable[..., "subprocess.CompletedProcess[str]"]

DEMO = ("pretrain/demo", "classify_train/demo", "instruct/demo")

# Given where the three are to be found, prints what they say. {trusted} is what a process without hfgpt has to grant.
SAY = """
import json
{imports}
from transformers import pipeline

base, classifier, assistant = {models}
greedy = {{"do_sample": False, "max_new_tokens": 8}}
story = pipeline("text-generation", model=base{trusted})
judge = pipeline("text-classification", model=classifier, truncation=True{trusted})
chat = pipeline("text-generation", model=assistant{trusted})
question = [{{"role": "user", "content": "Reverse the word: stone"}}]
print(json.dumps({{
    "module": type(story.model).__module__.split(".")[0],
    "text": story("One day", **greedy)[0]["generated_text"],
    "judged": judge(["You have won a prize", "See you at six"]),
    "answer": chat(question, **greedy)[0]["generated_text"][-1]["content"],
}}))
"""


@pytest.mark.slow
def test_the_demos_models_are_the_same_on_the_hub_with_hfgpt_and_without(
    runs: Runs, run_python: Run, tmp_path: Path
) -> None:
    folders = []
    for name in DEMO:
        runs.run(name)
        folders.append(runs.folder / CONTENTS[name]["output_dir"] / "final")
    ids = [f"tester/hfgpt-{folder.parent.name}" for folder in folders]
    for folder, repo_id in zip(folders, ids, strict=True):
        outcome = runs.commands.run("hfgpt", "push", str(folder.parent), "--repo", repo_id)
        assert outcome.status == 0, outcome.output
        pushed = runs.hub.repo(repo_id)
        assert {"README.md", "config.json", "model.safetensors", "modeling_hfgpt.py", "tokenizer.json"} <= set(pushed)

    def say(models: list[str], *, without_hfgpt: bool) -> dict[str, object]:
        trusted = ", trust_remote_code=True" if without_hfgpt else ""
        script = SAY.format(models=models, trusted=trusted, imports="" if without_hfgpt else "import hfgpt")
        environment = environment_of(runs.hub, tmp_path / "hf_home")
        completed = run_python(script, without_hfgpt=without_hfgpt, cwd=tmp_path, **environment)
        said: dict[str, object] = json.loads(completed.stdout.splitlines()[-1])
        return said

    at_home = say([str(folder) for folder in folders], without_hfgpt=False)
    assert at_home.pop("module") == "hfgpt"
    for without_hfgpt, module in ((False, "hfgpt"), (True, "transformers_modules")):
        assert say(ids, without_hfgpt=without_hfgpt) == {"module": module, **at_home}
