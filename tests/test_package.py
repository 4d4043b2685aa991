"""The package as a user gets it: built, installed into an empty environment outside the repository, and run there."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hfgpt

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; its whole output is the message if it fails."""
    completed = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert completed.returncode == 0, f"{command} exited with {completed.returncode}:\n{completed.stdout}"
    return completed.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution: so that one, too, holds all it must."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


class InstalledPackage:
    """An environment that holds the wheel and nothing else of ours; the dependencies are those of the running one."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.environment = folder / "environment"
        self.workplace = folder / "workplace"  # where commands run: empty, and outside the repository
        self.workplace.mkdir()
        venv.create(self.environment, symlinks=os.name != "nt")
        self.scripts = self.environment / ("Scripts" if os.name == "nt" else "bin")
        paths = {"base": str(self.environment), "platbase": str(self.environment)}
        site_packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=paths))
        # A folder named in a .pth file is searched, but the .pth files within it are not read: so the dependencies are
        # found there, and the repository, where hfgpt is installed in editable mode, is not.
        dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        (site_packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)), encoding="utf-8")
        python = self.scripts / "python"
        run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)

    def run(self, command: str, *arguments: str) -> str:
        """Run one of the environment's commands in the workplace, with no way to the repository or to the Hub."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment |= {"HF_HOME": str(self.workplace / "huggingface"), "HF_HUB_OFFLINE": "1"}
        return run(self.scripts / command, *arguments, cwd=self.workplace, environment=environment)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> InstalledPackage:
    """The wheel in an empty environment."""
    return InstalledPackage(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_holds_the_package_and_the_recipes_and_nothing_else(wheel: Path) -> None:
    package = {path for path in (REPOSITORY / "hfgpt").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(REPOSITORY).as_posix() for path in package}
    configs = REPOSITORY / "recipes" / "configs"
    recipes = {f"hfgpt/recipes/configs/{path.relative_to(configs).as_posix()}" for path in configs.rglob("*.yaml")}
    assert "hfgpt/py.typed" in expected
    assert "hfgpt/recipes/configs/pretrain/demo.yaml" in recipes
    with zipfile.ZipFile(wheel) as archive:
        contents = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert contents == expected | recipes


def test_the_installed_package_is_the_wheel_and_not_the_repository(installed: InstalledPackage) -> None:
    location = Path(installed.run("python", "-c", "import hfgpt; print(hfgpt.__file__)").splitlines()[-1])
    assert location.is_relative_to(installed.environment)


def test_the_command_shows_its_help(installed: InstalledPackage) -> None:
    assert "pretrain" in installed.run("hfgpt", "--help")


def test_a_recipe_trains_from_the_wheel_and_its_model_loads_by_the_auto_class(installed: InstalledPackage) -> None:
    installed.run(
        *("hfgpt", "pretrain", "--config", "demo", "--output_dir", "run"),
        *("--max_steps", "5", "--max_eval_batches", "1"),
    )
    program = (
        "import hfgpt, transformers as t; print(type(t.AutoModelForCausalLM.from_pretrained('run/final')).__name__)"
    )
    assert installed.run("python", "-c", program).splitlines()[-1] == "HfGptForCausalLM"


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    newest_change = re.search(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest_change is not None
    versions = {PROJECT["version"], hfgpt.__version__, citation["version"], newest_change[1], wheel.name.split("-")[1]}
    assert len(versions) == 1, versions


def test_the_constraints_pin_every_dependency_within_its_bounds() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    requirements = [r for r in map(Requirement, lines) if r.name != PROJECT["name"]]
    unpinned = [r.name for r in requirements if canonicalize_name(r.name) not in pins]
    assert unpinned == []
    assert [str(r) for r in requirements if pins[canonicalize_name(r.name)] not in r.specifier] == []


def test_the_constraints_name_no_build_variant_that_other_machines_lack() -> None:
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if not line.startswith("#") and ("+" in line or "@" in line)] == []
