"""The `hfgpt` command, ended where its training begins its first step.

    python benchmarks/start_probe.py TIMES.json pretrain --config=demo --output_dir=FOLDER

TIMES.json gets the moment, in seconds since the epoch, at which each part of the way was done: the MARKS, in order.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

MARKS = ["Python", "imports", "options", "data", "model", "evaluation", "first batch"]

moments: dict[str, float] = {}


def mark(name: str) -> None:
    """Something is done."""
    moments[name] = time.time()


def mark_after(module: Any, function: str, name: str) -> None:
    """Have `module.function` set a mark when it returns."""
    original = getattr(module, function)

    def marked(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        mark(name)
        return result

    setattr(module, function, marked)


def main(times: Path, command: list[str]) -> None:
    """Run the command up to its first step."""
    mark("Python")
    command_line = importlib.import_module("hfgpt.cli.main")
    running, pretrain, engine = (
        importlib.import_module(f"hfgpt.{name}") for name in ("recipes.running", "recipes.pretrain", "training.engine")
    )
    mark("imports")
    mark_after(running, "parse_config", "options")
    mark_after(pretrain, "prepare_corpus", "data")
    mark_after(pretrain, "check_fit", "model")
    mark_after(engine, "_evaluate_if_due", "evaluation")

    def first_step(*_: Any) -> NoReturn:  # the learning rate is what a step asks for when it has its batch
        mark("first batch")
        times.write_text(json.dumps(moments), encoding="utf-8")
        os._exit(0)

    getattr(engine, "learning_rate_at")  # noqa: B009 (fails if it is called otherwise)
    engine.learning_rate_at = first_step  # type: ignore[attr-defined]
    sys.argv = ["hfgpt", *command]
    command_line.main()
    raise SystemExit("the command ended without a step")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
