"""The `hfgpt` command in processes that see a Hub on loopback, and start quickly because one of them started before.

The first process imports everything once, with the Hub's address in its environment; each command then runs in a fork
of it, which begins where the imports ended.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Commands", "Outcome"]

SERVE = """
import json, os, sys
import torch
import hfgpt.cli.main
import hfgpt.recipes.ablation, hfgpt.recipes.pretrain
import hfgpt.recipes.finetune_classification, hfgpt.recipes.finetune_instruction

torch.set_num_threads(1)
for line in sys.stdin:
    command = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.dup2(os.open(command["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(1, 2)
            sys.argv = command["arguments"]
            if sys.argv[0] == "hfgpt":
                hfgpt.cli.main.main()
            else:
                exec(compile(sys.argv[1], "example", "exec"), {"__name__": "__main__"})
            status = 0
        except SystemExit as exit:
            status = exit.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Outcome:
    """How a command ended, and all that it said."""

    status: int
    output: str


class Commands:
    """Runs commands in `folder`, one after the other, with the environment that is given; ends with its block."""

    def __init__(self, folder: Path, environment: dict[str, str | None]) -> None:
        wanted = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "COLUMNS": "100"} | environment
        self.output = folder / "output.txt"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE], cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={name: value for name, value in wanted.items() if value is not None},
        )  # fmt: skip

    def run(self, *arguments: str) -> Outcome:
        """`hfgpt ...`, or `python` and the text of a script."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, "output": str(self.output)}) + "\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline()
        if not status:
            raise RuntimeError("the process that runs the commands is gone")
        return Outcome(int(status), self.output.read_text(encoding="utf-8", errors="replace"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
