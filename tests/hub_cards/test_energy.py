"""Energy is what counters have counted, also where they begin again."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from hfgpt.hub import energy
from hfgpt.hub.energy import EnergyMeter, read_counters

CPU = torch.device("cpu")


def counter(powercap: Path, name: str, joules: float, wraps_at: float = 1000.0) -> None:
    zone = powercap / name
    zone.mkdir(exist_ok=True, parents=True)
    (zone / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    (zone / "max_energy_range_uj").write_text(f"{wraps_at * 1e6:.0f}\n")


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    counters = energy.read_counters
    monkeypatch.setattr(energy, "read_counters", lambda device: counters(device, tmp_path))
    return tmp_path


def test_each_processor_is_counted_once(tmp_path: Path) -> None:
    for name, joules in (("intel-rapl:0", 5), ("intel-rapl:0:0", 3), ("intel-rapl:1", 7), ("other", 1)):
        counter(tmp_path, name, joules)
    assert read_counters(CPU, tmp_path) == {"processor 0": (5.0, 1000.0), "processor 1": (7.0, 1000.0)}


def test_what_was_counted_before_is_not_counted_and_a_counter_may_begin_again(powercap: Path) -> None:
    counter(powercap, "intel-rapl:0", 900)
    meter = EnergyMeter(CPU)
    for joules in (950, 10):
        counter(powercap, "intel-rapl:0", joules)
        meter.look()
    assert meter.joules == {"processor 0": pytest.approx(110)}
    assert meter.kilowatt_hours == {"processor 0": pytest.approx(110 / 3.6e6)}


def test_a_resumed_run_adds_to_what_it_had(powercap: Path) -> None:
    counter(powercap, "intel-rapl:0", 100)
    meter = EnergyMeter(CPU, {"processor 0": 50.0})
    counter(powercap, "intel-rapl:0", 130)
    meter.look()
    assert meter.joules == {"processor 0": pytest.approx(80)}


def test_a_gpu_s_energy_is_nvml_s_and_without_nvml_one_sentence_says_what_is_missing(
    powercap: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(energy, "find_spec", lambda name: None)
    assert EnergyMeter(torch.device("cuda")).kilowatt_hours == {}
    (record,) = caplog.records
    assert "pip install 'hfgpt[energy]'" in record.getMessage()
    caplog.clear()

    nvml = ModuleType("pynvml")
    nvml.NVMLError, nvml.nvmlInit = RuntimeError, lambda: None
    nvml.nvmlDeviceGetHandleByUUID = lambda uuid: {b"GPU-12-34": 7}[uuid]
    millijoules = iter([1000, 3000])
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: next(millijoules)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(energy, "find_spec", lambda name: nvml)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid="12-34"))
    meter = EnergyMeter(torch.device("cuda"))
    meter.look()
    assert meter.joules == {"GPU 0": 2.0}
    assert not caplog.records


def test_where_no_counter_can_be_read_nothing_is_said(powercap: Path) -> None:
    (powercap / "intel-rapl:0").mkdir()  # as for a user who may not read it
    meter = EnergyMeter(CPU)
    meter.look()
    assert meter.kilowatt_hours == {}
