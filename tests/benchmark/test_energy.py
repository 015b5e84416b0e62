"""Energy sensors on trees as the kernel's documentation describes them."""

from pathlib import Path

import numpy as np
import pytest

from edgeseg.benchmark.cases import Case
from edgeseg.benchmark.energy import PowerSampler, Rail, Sensors
from edgeseg.benchmark.measure import bench
from edgeseg.benchmark.rows import Measured, row
from edgeseg.benchmark.timing import Block, Timing
from edgeseg.options.benchmark import BenchConfig

POWERCAP = "sys/class/powercap"
# Documentation/power/powercap/powercap.rst: two packages with cores below them, memory, the
# whole platform, and the first package again through MMIO.
SERVER = {
    "intel-rapl/enabled": "1",
    "intel-rapl:0/name": "package-0",
    "intel-rapl:0/energy_uj": "1000000",
    "intel-rapl:0/max_energy_range_uj": "262143328850",
    "intel-rapl:0:0/name": "core",
    "intel-rapl:0:0/energy_uj": "400000",
    "intel-rapl:0:1/name": "dram",
    "intel-rapl:0:1/energy_uj": "300000",
    "intel-rapl:0:1/max_energy_range_uj": "65712999613",
    "intel-rapl:1/name": "package-1",
    "intel-rapl:1/energy_uj": "500000",
    "intel-rapl:1/max_energy_range_uj": "262143328850",
    "intel-rapl:2/name": "psys",
    "intel-rapl:2/energy_uj": "9000000",
    "intel-rapl-mmio:0/name": "package-0",
    "intel-rapl-mmio:0/energy_uj": "1000000",
}
# Documentation/hwmon/ina3221.rst, with the labels of an Orin NX.
INA = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
ORIN_NX = {
    "name": "ina3221",
    "in1_label": "VDD_IN",
    "in1_input": "5000",
    "curr1_input": "1200",
    "in2_label": "VDD_CPU_GPU_CV",
    "in2_input": "5000",
    "curr2_input": "400",
    "in3_label": "VDD_SOC",
    "in3_input": "5000",
    "curr3_input": "300",
    "in7_label": "sum of shunt voltages",
}


def plant(root: Path, folder: str, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.benchmark.energy.nvml_devices", lambda: ((), ""))


def test_packages_and_memory_are_counted_once_each(tmp_path: Path) -> None:
    plant(tmp_path, POWERCAP, SERVER)
    with Sensors(tmp_path) as sensors:
        names = [sensor.name for sensor in sensors.meter().sensors]
        assert names == ["rapl package-0", "rapl dram of package-0", "rapl package-1"]
        assert sensors.joules() == (0, 0, 0)
        plant(tmp_path, POWERCAP, {"intel-rapl:0/energy_uj": "3500000"})
        plant(tmp_path, POWERCAP, {"intel-rapl:1/energy_uj": "500001"})
        assert sensors.joules() == (2.5, 0, 1e-6)


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    plant(tmp_path, POWERCAP, SERVER | {"intel-rapl:0/energy_uj": "262143000000"})
    with Sensors(tmp_path) as sensors:
        plant(tmp_path, POWERCAP, {"intel-rapl:0/energy_uj": "671150"})
        assert sensors.joules()[0] == pytest.approx(1.0)
        plant(tmp_path, POWERCAP, {"intel-rapl:0/energy_uj": "1671150"})
        assert sensors.joules()[0] == pytest.approx(2.0)


def test_a_counter_for_root_alone_is_said(tmp_path: Path) -> None:
    plant(tmp_path, POWERCAP, {"intel-rapl:0/name": "package-0"})
    # A folder in the file's place fails to be read for root too, who runs tests in containers.
    (tmp_path / POWERCAP / "intel-rapl:0/energy_uj").mkdir()
    with Sensors(tmp_path) as sensors:
        assert sensors.joules() == ()
        reason = sensors.meter().reason
        assert reason is not None
        assert reason.startswith("no sensor: ")
        assert "energy_uj needs root" in reason


def test_a_jetson_is_measured_at_its_input(tmp_path: Path) -> None:
    plant(tmp_path, INA, ORIN_NX)
    with Sensors(tmp_path) as sensors:
        (sensor,) = sensors.meter().sensors
        assert sensor.name == "ina3221 VDD_IN"
        sensors.watch_idle(0.05)
        assert sensors.idle_w == pytest.approx(6.0, rel=0.05)  # 5 V × 1.2 A


def test_a_board_without_an_input_rail_is_the_sum_of_its_rails(tmp_path: Path) -> None:
    channels = {1: "VDD_GPU_SOC", 2: "VDD_CPU_CV", 3: "VIN_SYS_5V0"}
    for place, label in channels.items():
        files = {f"in{place}_label": label, f"in{place}_input": "1000", f"curr{place}_input": "500"}
        plant(tmp_path, INA, files)
    # It is fed by VIN_SYS_5V0: adding it would count it twice.
    fed = {"in2_label": "VDDQ_VDD2_1V8AO", "in2_input": "1000", "curr2_input": "500"}
    plant(tmp_path, INA.replace("0040", "0041"), fed)
    with Sensors(tmp_path) as sensors:
        (sensor,) = sensors.meter().sensors
        assert sensor.name == "ina3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
        sensors.watch_idle(0.05)
        assert sensors.idle_w == pytest.approx(1.5, rel=0.05)


def test_power_is_summed_up_by_trapezoids(tmp_path: Path) -> None:
    plant(tmp_path, INA, ORIN_NX)
    now = [100.0]
    folder = tmp_path / INA
    rail = Rail("VDD_IN", folder / "in1_input", folder / "curr1_input")
    sampler = PowerSampler([rail], clock=lambda: now[0])
    sampler.close()
    assert sampler.joules() == 0
    now[0] += 2  # 6 W then, 10 W now
    plant(tmp_path, INA, {"curr1_input": "2000"})
    assert sampler.joules() == pytest.approx(16)
    now[0] += 1  # A reading that fails leaves the power as it was.
    (folder / "curr1_input").unlink()
    assert sampler.joules() == pytest.approx(26)


def test_millijoules_a_picture_are_those_of_the_blocks_that_count(counting: Case) -> None:
    def block(joules: float, others: float = 0.0) -> Block:
        return Block(np.full((10, 3), 5.0), others, (joules, 1.0), seconds=2.0)

    # 4 pictures per call: two quiet blocks of 40 pictures; the loud one is left out.
    blocks = [block(7.0), block(9.0), block(1000.0, others=2.0)]
    timing = Timing(Case(counting.engine, batch=4), stable=True, blocks=blocks)
    run = row(Measured(timing, idle_w=2.5), BenchConfig())
    assert run.energy_mj_per_frame == pytest.approx(1000 * 18 / 80)
    assert run.energy_above_idle_mj_per_frame == pytest.approx(1000 * (18 - 2.5 * 4) / 80)
    assert run.power_w == pytest.approx(18 / 4)
    silent = Timing(counting, stable=True, blocks=[Block(np.ones((3, 3)), 0.0)])
    assert row(Measured(silent), BenchConfig()).energy_mj_per_frame is None


def test_a_benchmark_reads_the_sensors_around_its_blocks(
    tmp_path: Path, counting: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, INA, ORIN_NX)
    monkeypatch.setattr("edgeseg.benchmark.measure.Sensors", lambda: Sensors(tmp_path))
    config = BenchConfig(
        seconds=0.3, rounds=3, min_block_seconds=0.1, cold_starts=0, idle_seconds=0.05
    )
    report = bench([counting], images=[np.zeros((48, 64, 3), np.uint8)], config=config)
    (run,) = report.runs
    assert report.energy is not None
    assert [sensor.name for sensor in report.energy.sensors] == ["ina3221 VDD_IN"]
    # 6 W at rest and at work: all of it is the board's, nothing above idle is the engine's.
    assert run.power_w == pytest.approx(6.0, rel=0.05)
    assert run.energy_mj_per_frame is not None
    assert run.energy_above_idle_mj_per_frame == pytest.approx(0, abs=0.1 * run.energy_mj_per_frame)
