"""The examples of the READMEs that speak to the Hub are run as they stand there, against look-alikes of what they name.

The namespace of `YOUR_NAME/hfgpt-demo` is the user's. A model of a run (`runs/demo/final`) is trained before, in few
steps, and pushed where the example only reads it. An example of a new kind fails here until it can be run.
"""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from .look_alikes import DATA_SETS, MODELS, story_text
from .runs import CONTENTS, Runs, shorter

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "recipes/README.md")
MINE = re.compile(r"\b(?:YOUR_NAME|YOUR_ORG|ORG|NAME|USER|your-name|your-org)/")
NAMED = re.compile("|".join([re.escape(name) for name in (*MODELS, *DATA_SETS)] + [MINE.pattern]))
# Where an example names something on the Hub.
CALLS = r"(?:from_pretrained|load_dataset|push_to_hub)\("
OPTIONS = r"--(?:init_from|tokenizer|repo)[ =]"
PLACES = re.compile(rf"""(?:{CALLS}|{OPTIONS}|model=)["']?([\w.-]+/[\w.-]+)["')\s]""")


def examples() -> list[tuple[str, str, str]]:
    """The page, the language and the text of each example: a whole block of Python, a line of a shell."""
    found = []
    for page in PAGES:
        for language, block in re.findall(
            r"```(python|bash)\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S
        ):
            lines = [block] if language == "python" else block.replace("\\\n", " ").splitlines()
            found += [(page, language, line) for line in lines]
    return found


EXAMPLES = examples()
ON_THE_HUB = [(language, text) for _, language, text in EXAMPLES if NAMED.search(text)]


def write_book_checkpoint(path: Path, vocab_size: int) -> None:
    """The file that the book's chapter 5 saves, with random weights: one block of GPT-2 small's width."""
    width = 768
    block = {
        **{f"att.{name}.weight": (width, width) for name in ("W_query", "W_key", "W_value", "out_proj")},
        "att.out_proj.bias": (width,),
        "ff.layers.0.weight": (4 * width, width),
        "ff.layers.0.bias": (4 * width,),
        "ff.layers.2.weight": (width, 4 * width),
        "ff.layers.2.bias": (width,),
    }
    shapes = {"tok_emb.weight": (vocab_size, width), "pos_emb.weight": (1024, width)}
    shapes |= {f"trf_blocks.0.{name}": shape for name, shape in block.items()}
    for norm in ("trf_blocks.0.norm1", "trf_blocks.0.norm2", "final_norm"):
        shapes |= {f"{norm}.scale": (width,), f"{norm}.shift": (width,)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in shapes.items()}
    weights |= {"trf_blocks.0.att.mask": torch.ones(1024, 1024).triu(1), "out_head.weight": weights["tok_emb.weight"]}
    torch.save({"model_state_dict": weights, "optimizer_state_dict": {}}, path)


@pytest.fixture(scope="module")
def prepared(runs: Runs) -> Runs:
    """What the examples take to be there: a folder of texts, and a checkpoint of the book's."""
    (runs.folder / "my-texts").mkdir(exist_ok=True)
    (runs.folder / "my-texts" / "story.txt").write_text(story_text(200_000), encoding="utf-8")
    vocabulary = json.loads(runs.hub.repo("openai-community/gpt2")["vocab.json"])
    write_book_checkpoint(runs.folder / "model_and_optimizer.pth", len(vocabulary))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "text"), ON_THE_HUB, ids=[text.strip().splitlines()[-1][:60] for _, text in ON_THE_HUB]
)
def test_an_example_that_names_the_hub_runs(prepared: Runs, language: str, text: str) -> None:
    text = MINE.sub("tester/", text)
    for model in re.findall(r"runs/[\w-]+(?=/final)|(?<=hfgpt push )runs/[\w-]+", text):
        prepared.make(f"{model}/final")
    for name in re.findall(r"(?<!--repo )\btester/hfgpt-([\w-]+)", text):
        prepared.make(f"runs/{name}/final")
        pushed = prepared.commands.run("hfgpt", "push", f"runs/{name}/final", "--repo", f"tester/hfgpt-{name}")
        assert pushed.status == 0, pushed.output
    prepared.hub.requests.clear()
    if language == "python":
        outcome = prepared.commands.run("python", text)
    else:
        words = shlex.split(text, comments=True)
        assert words[0] == "hfgpt", f"how is this run? {text}"
        outcome = prepared.commands.run(*words, *shortened(words))
    assert outcome.status == 0, f"{text}\nended with status {outcome.status}:\n{outcome.output}"
    assert bool(prepared.hub.requests) == ("--dry-run" not in text)


def shortened(words: list[str]) -> list[str]:
    """The options that shorten a training, if this is one; its folder is not that of a shipped configuration."""
    if "--config" not in words:
        return []
    recipe = "_".join(words[1 : words.index("--config")])
    options = shorter(f"{recipe}/{words[words.index('--config') + 1]}")
    return [*options, "--output_dir", "runs/of-an-example", "--overwrite_output_dir", "true"]


def test_whatever_an_example_names_on_the_hub_has_a_look_alike() -> None:
    for page, _, text in EXAMPLES:
        for name in PLACES.findall(text + "\n"):
            is_local = name.startswith(("runs/", "my-", "out/"))
            assert is_local or NAMED.match(name), f"{page}: tests/hub/look_alikes.py has nothing for {name}"


def test_every_configuration_that_an_example_names_is_shipped() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"--config ([a-z][\w-]*)(?![\w.-]*\.yaml)\b", text))
    assert named <= {name.split("/")[1] for name in CONTENTS}
