"""Serve a Hub on loopback until Ctrl-C: `python -m tests.hub [--port PORT] [--root FOLDER] [--look-alikes]`."""

import argparse
import os
import time
from pathlib import Path

from .server import LoopbackHub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, is a free one")
    parser.add_argument("--root", type=Path, help="serve its folders models/ORG/NAME, and write commits back there")
    parser.add_argument(
        "--look-alikes", action="store_true",
        help="serve tiny look-alikes of what the shipped configurations name; GPT-2's vocabulary from HFGPT_TEST_DATA",
    )  # fmt: skip
    arguments = parser.parse_args()
    with LoopbackHub(arguments.root, arguments.port) as hub:
        if arguments.look_alikes:
            from .look_alikes import serve_look_alikes

            data = os.environ.get("HFGPT_TEST_DATA")
            serve_look_alikes(hub, Path(data) / "gpt2" if data else None)
        print(f"export HF_ENDPOINT={hub.endpoint} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1", flush=True)  # noqa: T201
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
