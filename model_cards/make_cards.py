"""Write the cards of the demo's three models from the facts of a demo, which lie beside this file.

make cards                                      from model_cards/facts/: takes a second, and always gives the same
python model_cards/make_cards.py --from runs    after `make demo`: with that demo's facts and pictures
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfgpt.hub.cards import CARD, render_card, write_card
from hfgpt.hub.facts_file import CARD_FACTS, read_facts

HERE = Path(__file__).parent
FACTS = HERE / "facts"
OWNER = "YOUR_NAME"

# The repository of each model, by the folder of its run; and the run that differs from it in random weights alone.
MODELS = {"demo": "hfgpt-demo", "demo-classifier": "hfgpt-demo-classifier", "demo-assistant": "hfgpt-demo-assistant"}
COMPARED = {"demo-classifier": "demo-classifier-random", "demo-assistant": "demo-assistant-random"}


def main() -> None:
    """Write all cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="runs", type=Path, metavar="RUNS", help="The folder with a demo's runs.")
    runs = parser.parse_args().runs
    if runs is not None:
        for run in MODELS:
            take_over(runs, run)
    for repository in MODELS.values():
        write_card(HERE / repository, read_facts(FACTS / f"{repository}.json"), f"{OWNER}/{repository}")


def expected_cards() -> dict[Path, str]:
    """What each card must say, by its path."""
    return {
        HERE / repository / CARD: str(
            render_card(read_facts(FACTS / f"{repository}.json"), repo_id=f"{OWNER}/{repository}")
        )
        for repository in MODELS.values()
    }


def take_over(runs: Path, run: str) -> None:
    """Copy facts and pictures of a finished run, with the numbers of the run to compare with, if that is there."""
    facts = read_facts(runs / run / CARD_FACTS)
    if run in COMPARED and (runs / COMPARED[run] / CARD_FACTS).is_file():
        facts = with_comparison(facts, read_facts(runs / COMPARED[run] / CARD_FACTS))
    folder = HERE / MODELS[run]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    FACTS.mkdir(exist_ok=True)
    (FACTS / f"{MODELS[run]}.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for picture in facts["pictures"]:
        shutil.copyfile(runs / run / picture["file"], folder / picture["file"])


def with_comparison(facts: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with a row for the same training from random weights in each table, above this model's.

    Raises:
        ValueError: If the other run differs in more than its weights.
    """
    mine, its = (found["hyperparameters"]["changed"] for found in (facts, other))
    if {**mine, "random_weights": True} != its:
        raise ValueError(
            f"{other['name']} is not the training of {facts['name']} from random weights: run the demo again."
        )
    for table, same in zip(facts["evaluation"], other["evaluation"], strict=True):
        place = next(index for index, row in enumerate(table["rows"]) if row.get("this_model"))
        row = next(row for row in same["rows"] if row.get("this_model"))
        table["rows"].insert(place, {"name": "the same training from random weights", "values": row["values"]})
    return facts


if __name__ == "__main__":
    main()
