"""The examples of the READMEs that speak to the Hub are run as they stand there, against look-alikes of what they name.

A namespace in capitals (`YOUR_NAME/hfgpt-demo`) is the user's, and every model of a run (`runs/demo/final`) is trained
before, shortened. An example that nobody has thought of fails here until it can be run.
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
MINE = re.compile(r"\b(YOUR_NAME|YOUR_ORG|ORG|NAME|USER)/")
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
    """The file that the book's chapter 5 saves, of a tiny model of random weights."""
    width, names = 64, {}
    names |= {
        "tok_emb.weight": (vocab_size, width),
        "pos_emb.weight": (1024, width),
        "out_head.weight": (vocab_size, width),
    }
    for name in ("W_query.weight", "W_key.weight", "W_value.weight", "out_proj.weight"):
        names[f"trf_blocks.0.att.{name}"] = (width, width)
    names |= {"trf_blocks.0.att.out_proj.bias": (width,), "trf_blocks.0.att.mask": (1024, 1024)}
    names |= {"trf_blocks.0.ff.layers.0.weight": (4 * width, width), "trf_blocks.0.ff.layers.0.bias": (4 * width,)}
    names |= {"trf_blocks.0.ff.layers.2.weight": (width, 4 * width), "trf_blocks.0.ff.layers.2.bias": (width,)}
    for norm in ("trf_blocks.0.norm1", "trf_blocks.0.norm2", "final_norm"):
        names |= {f"{norm}.scale": (width,), f"{norm}.shift": (width,)}
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in names.items()}
    weights["trf_blocks.0.att.mask"] = torch.ones(1024, 1024).triu(1)
    torch.save({"model_state_dict": weights, "optimizer_state_dict": {}}, path)


@pytest.fixture(scope="module")
def prepared(runs: Runs) -> Runs:
    """What the examples take to be there: a folder of texts, and a checkpoint of the book's."""
    (runs.folder / "my-texts").mkdir(exist_ok=True)
    (runs.folder / "my-texts" / "story.txt").write_text(story_text(30_000), encoding="utf-8")
    vocabulary = json.loads(runs.hub.repo("openai-community/gpt2")["vocab.json"])
    write_book_checkpoint(runs.folder / "model_and_optimizer.pth", len(vocabulary))
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("language", "text"), ON_THE_HUB, ids=[text.strip().splitlines()[-1][:60] for _, text in ON_THE_HUB]
)
def test_an_example_that_names_the_hub_runs(prepared: Runs, language: str, text: str) -> None:
    text = MINE.sub("tester/", text)
    for model in re.findall(r"runs/[\w-]+/final", text):
        prepared.make(model)
    prepared.hub.requests.clear()
    if language == "python":
        outcome = prepared.commands.run("python", text)
    else:
        words = shlex.split(text, comments=True)
        assert words[0] == "hfgpt", f"how is this run? {text}"
        outcome = prepared.commands.run(*words, *shortened(words))
    assert outcome.status == 0, f"{text}\nended with status {outcome.status}:\n{outcome.output}"
    assert prepared.hub.requests


def shortened(words: list[str]) -> list[str]:
    """The options that shorten a training, if this is one."""
    if "--config" not in words:
        return []
    recipe = "_".join(words[1 : words.index("--config")])
    return [*shorter(f"{recipe}/{words[words.index('--config') + 1]}"), "--overwrite_output_dir", "true"]


def test_whatever_an_example_names_on_the_hub_has_a_look_alike() -> None:
    for page, _, text in EXAMPLES:
        for name in PLACES.findall(text + "\n"):
            is_local = name.startswith(("runs/", "my-", "out/"))
            assert is_local or NAMED.match(name), f"{page}: tests/hub/look_alikes.py has nothing for {name}"


def test_every_configuration_that_an_example_names_is_shipped() -> None:
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"--config ([a-z][\w-]*)(?![\w.-]*\.yaml)\b", text))
    assert named <= {name.split("/")[1] for name in CONTENTS}
