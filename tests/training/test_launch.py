"""What the environment says of a launch, and what is refused. Real launches: tests/recipes/test_launchers.py."""

from datetime import timedelta

import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from hfgpt.errors import UserError
from hfgpt.training.engine import start_accelerator
from hfgpt.training.launch import NUM_PROCESSES, SHARDED, STARTED_ALONE, check_num_processes, number_format


@pytest.fixture(autouse=True)
def no_launch(monkeypatch) -> None:
    for name in (*NUM_PROCESSES, *STARTED_ALONE, *SHARDED, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", NUM_PROCESSES)
def test_fewer_processes_than_the_launcher_speaks_of_are_refused(monkeypatch, name) -> None:
    monkeypatch.setenv(name, "4")
    check_num_processes(4)
    with pytest.raises(UserError, match=rf"one of 4 processes \({name}\), but only 1 would train together"):
        check_num_processes(1)


@pytest.mark.parametrize(("num_processes", "num_machines", "alone"), [(1, 1, False), (2, 1, True), (2, 2, True)])
def test_a_single_process_of_accelerate_launch_knows_whether_several_were_asked_for(
    monkeypatch, num_processes, num_machines, alone
) -> None:
    """The environment is made by accelerate's own launcher."""
    options = ["--num_processes", num_processes, "--num_machines", num_machines, "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", 1]
    options += ["--main_process_ip", "127.0.0.1", "--main_process_port", 1] if num_machines > 1 else []
    arguments = launch_command_parser().parse_args([*map(str, options), "program.py"])
    arguments.use_cpu = True
    _, environment = prepare_simple_launcher_cmd_env(arguments)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if alone:
        with pytest.raises(UserError, match="asked for several processes and has started only one"):
            check_num_processes(1)
    else:
        check_num_processes(1)


@pytest.mark.parametrize(
    ("launched", "asked", "taken", "said"),
    [
        (None, "auto", "no", False),
        ("no", "auto", "no", False),
        ("bf16", "auto", "bf16", False),
        ("bf16", "bf16", "bf16", False),
        ("no", "bf16", "bf16", False),  # "no" is what the launcher says also where nobody asked it
        ("bf16", "no", "no", True),
    ],
)
def test_the_number_format_is_the_configuration_s_or_the_launcher_s(
    monkeypatch, laboratory, caplog, launched, asked, taken, said
) -> None:
    if launched is not None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    assert start_accelerator(laboratory.config(mixed_precision=asked)).mixed_precision == taken
    assert ("The launch asks for mixed precision bf16; the configuration's no is taken." in caplog.text) == said


def test_what_trains_on_the_cpu_is_not_given_the_format_of_a_gpu_beside_it(monkeypatch, laboratory) -> None:
    for name in ("is_available", "is_bf16_supported"):
        monkeypatch.setattr(torch.cuda, name, lambda **options: True)
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    assert number_format("auto") == "bf16"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert number_format("auto") == "no"
    assert start_accelerator(laboratory.config()).device.type == "cpu"


def test_an_address_that_the_user_has_exported_asks_for_nothing(monkeypatch, laboratory) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert start_accelerator(laboratory.config()).num_processes == 1


@pytest.mark.parametrize(("name", "what"), SHARDED.items())
def test_sharding_is_refused(monkeypatch, laboratory, name, what) -> None:
    monkeypatch.setenv(name, "false")
    start_accelerator(laboratory.config())
    monkeypatch.setenv(name, "true")
    with pytest.raises(UserError, match=f"The launch asks for {what}, but the training engine keeps the whole model"):
        start_accelerator(laboratory.config())


def test_processes_wait_for_the_first_one_as_long_as_it_prepares_text(monkeypatch, laboratory) -> None:
    """By default torch ends those that wait, after 30 minutes on CPUs, and on GPUs after 10."""
    launched = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0, "WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}
    launched |= {"LOCAL_WORLD_SIZE": 1, "OMP_NUM_THREADS": 1}  # which accelerate would set, and leave set
    for name, value in launched.items():
        monkeypatch.setenv(name, str(value))
    start_accelerator(laboratory.config())
    try:
        group = torch.distributed.distributed_c10d._get_default_group()
        assert group._get_backend(torch.device("cpu")).options._timeout > timedelta(hours=1)
    finally:
        torch.distributed.destroy_process_group()
