"""Machine descriptions: real files of other machines, and this one."""

import json
import os
import pwd
import tempfile
from pathlib import Path

import pytest

from edgeseg import machine
from edgeseg.engines import kept

ZEN4 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC  9R14
flags\t\t: fpu sse2 avx avx2 avx512f avx512_bf16 avx512_vnni
"""
ORIN = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes asimdhp asimddp
CPU implementer\t: 0x41
"""


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_x86_processor_is_named_with_the_flags_that_matter() -> None:
    assert machine.cpu_model(ZEN4) == "AMD EPYC 9R14"
    assert machine.cpu_flags(ZEN4) == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")


def test_arm_kernel_names_no_model_but_features() -> None:
    assert machine.cpu_model(ORIN) is None
    assert machine.cpu_flags(ORIN) == ("asimd", "asimddp")


def test_a_jetson_is_named_by_its_board(tmp_path: Path) -> None:
    root = plant(
        tmp_path,
        {
            "proc/cpuinfo": ORIN,
            "proc/meminfo": "MemTotal:        7802672 kB\nMemFree: 1 kB\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: g\n",
            "sys/class/thermal/thermal_zone0/temp": "48125\n",
            "sys/class/thermal/thermal_zone1/temp": "51500\n",
            "sys/class/thermal/thermal_zone2/temp": "not available\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        },
    )
    found = machine.describe(root)
    assert found.cpu == found.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.memory_mib == 7619
    assert found.os == "Ubuntu 22.04.5 LTS"
    assert found.temperature_c == 51.5
    assert found.governor == "schedutil"
    assert found.versions["l4t"] == "36.4.3"


def test_a_machine_that_tells_nothing_is_described_all_the_same(tmp_path: Path) -> None:
    found = machine.describe(tmp_path)
    assert found.cpu
    assert (found.memory_mib, found.governor, found.temperature_c) == (None, None, None)
    assert found.cpu_flags == ()
    assert "l4t" not in found.versions


def test_a_container_quota_limits_the_cores(tmp_path: Path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert machine.usable_cores(tmp_path) == allowed
    plant(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert machine.usable_cores(tmp_path) == 0.5
    assert machine.physical_cores(tmp_path) == 1
    plant(tmp_path, {"sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert machine.usable_cores(tmp_path) == allowed
    assert machine.physical_cores(tmp_path) == allowed


def test_hardware_threads_of_a_core_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    path = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    plant(tmp_path, {path.format(cpu): f"{cpu % 2},{cpu % 2 + 2}\n" for cpu in range(4)})
    assert machine.physical_cores(tmp_path) == 2


def test_a_container_limits_the_memory_that_is_spare(tmp_path: Path) -> None:
    assert machine.spare_memory_mib(tmp_path) == 0
    plant(tmp_path, {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    2097152 kB\n"})
    assert machine.spare_memory_mib(tmp_path) == 2048
    plant(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"})
    assert machine.spare_memory_mib(tmp_path) == 2048
    usage = {"memory.max": "1073741824\n", "memory.current": "536870912\n"}
    plant(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in usage.items()})
    assert machine.spare_memory_mib(tmp_path) == 512


def test_this_machine_goes_through_json_and_names_no_host() -> None:
    found = machine.describe()
    described = found.to_dict()
    text = json.dumps(described)
    assert json.loads(text) == described
    assert found.cores >= 1
    assert "numpy" in found.versions
    assert os.uname().nodename not in text


def test_names_that_look_like_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    cases = ("~/a", "~$draft.mp4", "~nobody-of-this-name/a", "a")
    homes = [str(machine.expanded(name)) for name in cases]
    assert homes == ["/home/me/a", "~$draft.mp4", "~nobody-of-this-name/a", "a"]


def test_a_user_without_a_home_has_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is a number alone."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert kept.folder() == Path("/home/me/.cache/edgeseg")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert kept.folder() == Path(tempfile.gettempdir(), "edgeseg")
