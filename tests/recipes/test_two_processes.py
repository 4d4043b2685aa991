"""The recipe on two real processes: the same training, written once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

# Run by each process: the recipe, and how many processes took part.
PROGRAM = """
import sys
from pathlib import Path
from accelerate import PartialState
from hfgpt.recipes.pretrain import main
main(sys.argv[1:])
state = PartialState()
witness = Path(__file__).with_name(f"process-{state.process_index}.txt")  # prints of two processes may interleave
witness.write_text(f"one of {state.num_processes} on {state.device.type}", encoding="utf-8")
"""


def launch(program: Path, arguments: list[str], *, num_processes: int, huggingface_home: Path) -> str:
    """Start the program on so many processes of this machine; what they printed."""
    with socket.socket() as free:  # a port that nobody uses now
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_processes), "--master-port", str(port)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(huggingface_home)
    completed = subprocess.run(
        [sys.executable, *launcher, str(program), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def test_two_processes_train_as_one_does(recipe, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    dropouts = dict.fromkeys(("embedding_dropout", "attention_dropout", "residual_dropout"), 0.0)
    # See tests/training/conftest.py on the epsilon: without it, rounding decides the step of the keys' bias.
    fields = {"model": {**recipe.fields["model"], **dropouts}, "adam_epsilon": 1e-3, "learning_rate": 0.01}
    fields |= {"max_eval_batches": None, "micro_batch_size": 1}
    recipe.run(**fields)
    alone, alone_final = recipe.metrics(), load_file(recipe.final / "model.safetensors")

    together = tmp_path / "together"
    arguments = [*recipe.arguments(**fields), "--output_dir", str(together)]
    printed = launch(program, arguments, num_processes=2, huggingface_home=tmp_path / "huggingface")
    witnesses = sorted(tmp_path.glob("process-*.txt"))
    assert [path.name for path in witnesses] == ["process-0.txt", "process-1.txt"]
    assert {path.read_text(encoding="utf-8") for path in witnesses} == {"one of 2 on cpu"}
    assert printed.count("step      4: validation loss") == 1
    assert {path.name for path in together.iterdir()} == {path.name for path in recipe.output_dir.iterdir()}

    lines = recipe.metrics(together)
    assert [line["step"] for line in lines] == [line["step"] for line in alone]
    for line, expected in zip(lines, alone, strict=True):
        assert line.keys() == expected.keys()
        for name in expected.keys() - {"tokens_per_second", "evaluation_seconds"}:
            assert line[name] == pytest.approx(expected[name], rel=1e-5), name
    final = load_file(together / "final" / "model.safetensors")
    for name, weight in alone_final.items():
        assert_close(final[name], weight, rtol=1e-4, atol=1e-6, msg=name)


def test_a_mistake_on_two_processes_ends_them_all_with_its_sentence(recipe, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    with pytest.raises(AssertionError) as stopped:
        launch(program, recipe.arguments(source="/no/such.txt"), num_processes=2, huggingface_home=tmp_path / "hf")
    assert "hfgpt: error: there is no file or folder /no/such.txt" in str(stopped.value)
