"""Fetch transformers' own common tests, of exactly the version that is installed.

    python tests/ecosystem/fetch.py    # prints the folder; downloads only where it is not there yet

transformers' wheel holds no tests, and its source distribution holds the files directly under `tests/`: the mixins that
each of its models inherits from. They are unpacked as a package `transformers_tests` of its own, so that their relative
imports work and nothing collides with hfgpt's tests. What they import from deeper folders stands in `stand_ins/`.
"""

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "transformers_tests"
VERSION = importlib.metadata.version("transformers")
FOLDER = Path(__file__).resolve().parents[2] / "build" / f"transformers-{VERSION}-tests"

# The mixins that hfgpt's test classes inherit from; a distribution without one of them is not the expected one.
NEEDED = {
    "test_configuration_common.py",
    "test_fsdp_mixin.py",
    "test_modeling_common.py",
    "test_tensor_parallel_mixin.py",
    "test_tokenizers_backend_mixin.py",
    "test_training_mixin.py",
}

# Makes one package of this folder and of `stand_ins/`, which holds one of the same name.
INITIAL = "import pkgutil\n\n__path__ = pkgutil.extend_path(__path__, __name__)\n"


def download(folder: Path) -> Path:
    """Let pip download the source distribution and compare it with the index's checksum."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation", "--no-binary=transformers"]
    completed = subprocess.run(
        [*command, f"--dest={folder}", f"transformers=={VERSION}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if completed.returncode != 0:
        sys.exit(f"{completed.stdout}\ntransformers {VERSION} could not be downloaded as a source distribution.")
    (archive,) = folder.glob("transformers-*.tar.gz")
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Write the test files directly under `tests/`; the archive is read to its end, so a cut one fails."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            parts = Path(member.name).parts
            if len(parts) == 3 and parts[1] == "tests" and parts[2].startswith("test_") and member.isfile():
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                (folder / parts[2]).write_bytes(content.read())
    missing = sorted(NEEDED - {path.name for path in folder.iterdir()})
    if missing:
        sys.exit(f"transformers {VERSION} has no {', '.join(missing)}: adapt tests/ecosystem to this version.")
    (folder / "__init__.py").write_text(INITIAL, encoding="utf-8")


def main() -> None:
    """Fill the folder where it is not there; it is there whole or not at all."""
    if not FOLDER.is_dir():
        FOLDER.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER.parent) as temporary:
            package = Path(temporary) / "whole" / PACKAGE
            package.mkdir(parents=True)
            unpack(download(Path(temporary)), package)
            shutil.move(package.parent, FOLDER)
    print(FOLDER)  # noqa: T201  # a program's answer


if __name__ == "__main__":
    main()
