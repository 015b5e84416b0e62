"""Facts of this machine: libraries that are really broken, a driver and a Jetson that are not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg import doctor
from edgeseg.doctor import probe
from edgeseg.doctor.facts import GpuFacts, PowerMode, Probed, dla_in, jetpack, jetson_name
from edgeseg.sources.v4l2 import Camera, cameras

SOURCE = str(Path(doctor.__file__).parents[2])


def test_what_really_breaks_in_a_library_becomes_its_finding() -> None:
    answers = probe.ask(
        {
            "whole": "import json; print('a banner'); print(json.dumps({'version': '1'}))",
            "raises": "raise ImportError('libGL.so.1: cannot open shared object file')",
            "killed": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
            "mute": "",
            "exits": "raise SystemExit(3)",
            "babbles": "print('[1, 2')",
        },
        timeout=30,
    )
    hung = probe.ask({"hangs": "import threading; threading.Event().wait()"}, timeout=0.5)
    assert answers["whole"] == Probed(told={"version": "1"})
    assert answers["raises"].error.startswith("ImportError: libGL.so.1")
    assert answers["killed"].error == "ended the process with signal 4"
    assert hung["hangs"].error == "did not answer in time"
    assert answers["mute"].error == "gave no readable answer"
    assert answers["exits"].error == "ended with status 3"
    assert answers["babbles"].error == "gave no readable answer"


MISMATCH = """
NVML_ERROR_LIBRARY_NOT_FOUND = 12
class NVMLError(Exception):
    value = 18
def nvmlInit():
    raise NVMLError("Driver/library version mismatch")
"""


def test_broken_libraries_on_the_path_do_not_stop_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    (tmp_path / "onnxruntime.py").write_text("import os\nos.abort()\n")
    (tmp_path / "pynvml.py").write_text(MISMATCH)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{SOURCE}")
    facts = probe.probe()
    assert facts.nvidia_smi == "Driver/library version mismatch"
    findings = doctor.examine(facts)
    fired = {check.rule: check.found for check in findings.checks}
    assert "libGL.so.1 is not" in fired["opencv-lacks-system-library"]
    assert "signal 6" in fired["onnxruntime-unusable"]
    assert not findings.healthy


@pytest.mark.parametrize("module", ["edgeseg.doctor", "edgeseg"])
def test_it_speaks_where_nothing_else_imports(module: str, tmp_path: Path) -> None:
    for name in ("numpy", "cv2", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n")
    command = [sys.executable, "-m", module, *(["doctor"] if module == "edgeseg" else [])]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{SOURCE}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "It cannot run edgeseg yet, because:" in done.stdout
    assert "no numpy here" in done.stdout
    assert "no cv2 here" in done.stdout


def test_this_machine_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    facts = probe.probe()
    assert facts.library("opencv").version
    assert facts.library("onnxruntime").version == facts.distributions["onnxruntime"]
    assert "fatbin" in facts.library("kernels").told
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert doctor.examine(facts).healthy


LIBCUDA = """
#include <string.h>
#include <stddef.h>
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int room, int device) { strncpy(name, "Orin", room); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 8ull << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 18 ? 1 : attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
  return 0;
}
"""


@pytest.mark.parametrize("status", [0, 803])
def test_a_driver_is_asked_by_its_own_interface(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "cuda.c").write_text(LIBCUDA)
    command = [compiler, f"-DSTATUS={status}", "-shared", "-fPIC", "cuda.c", "-o", "libcuda.so.1"]
    subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    told = probe.ask({"cuda": probe.CUDA}, timeout=30)["cuda"]
    assert told.told["status"] == status
    assert told.told["version"] == 12060
    orin = GpuFacts(name="Orin", capability="8.7", memory_mib=8192, integrated=True)
    assert probe.gpus_of(told) == ((orin,) if status == 0 else ())


def jetson(root: Path, **files: str) -> None:
    places = {
        "release": "etc/nv_tegra_release",
        "model": "proc/device-tree/model",
        "nvpmodel": "etc/nvpmodel.conf",
        "lowest": "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq",
        "highest": "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
        "dla0": "dev/nvhost-ctrl-nvdla0",
        "dla1": "dev/nvhost-ctrl-nvdla1",
    }
    for name, text in files.items():
        path = root / places[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\nmore\n"
# The form that "Platform Power and Performance" of the Jetson Linux guide describes.
NVPMODEL = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=0 >
"""


def test_a_jetson_is_read_from_its_files_and_nvpmodel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin/nvpmodel"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    files = {"release": RELEASE, "model": "NVIDIA Jetson Orin Nano\0", "nvpmodel": NVPMODEL}
    jetson(tmp_path, **files, lowest="729600\n", highest="1728000\n", dla0="", dla1="")
    found = probe.jetson(tmp_path)
    assert found is not None
    assert found.l4t == (36, 4, 3)
    assert jetson_name(found) == "JetPack 6.2 (L4T 36.4.3), NVIDIA Jetson Orin Nano"
    modes = (PowerMode(id=0, name="15W"), PowerMode(id=2, name="MAXN_SUPER"))
    assert (found.power_modes, found.power_mode) == (modes, 2)
    assert (found.clocks_locked, found.dla_cores) == (False, 2)
    jetson(tmp_path, lowest="1728000\n")
    assert probe.jetson(tmp_path).clocks_locked is True  # type: ignore[union-attr]


def test_what_is_no_jetson_or_tells_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe.jetson(tmp_path) is None
    jetson(tmp_path, release="# R99 (release), REVISION: 0.1\n")
    found = probe.jetson(tmp_path)
    assert found is not None
    assert (found.power_mode, found.clocks_locked, found.dla_cores) == (None, None, 0)
    assert jetpack(found) is None
    assert jetson_name(found) == "an unknown JetPack (L4T 99.0.1)"


@pytest.mark.parametrize(
    ("tensorrt", "drives"),
    [("8.5.2.2", True), ("10.3.0", True), ("10.7.0", True), ("10.8.0", False), ("11.3.1", False),
     ("11.4.0", False), ("11.4.1", True), ("11.5.0", True)],
)  # fmt: skip
def test_which_tensorrt_drives_a_dla(tensorrt: str, drives: bool) -> None:
    assert dla_in(tensorrt) is drives


def test_a_display_controller_is_seen_on_the_bus(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030000\n")
    assert probe.nvidia_on_pci(tmp_path)
    (device / "class").write_text("0x040300\n")  # the card's sound
    assert not probe.nvidia_on_pci(tmp_path)


def test_elements_are_asked_of_gstreamer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probe.gstreamer_elements() == {}
    tool = tmp_path / "gst-inspect-1.0"
    tool.write_text("#!/bin/sh\ncase $2 in nv*) exit 1;; rtspsrc) read _ < /dev/zero;; esac\n")
    tool.chmod(0o755)
    monkeypatch.setattr(probe, "_SECONDS", 1.0)
    found = probe.gstreamer_elements()
    assert found["appsink"] is True
    assert found["nvarguscamerasrc"] is False
    assert "rtspsrc" not in found  # it did not answer


def test_modules_of_the_system_are_found_for_its_python(tmp_path: Path) -> None:
    assert probe.system_module("cv2", tmp_path) == ""
    folder = tmp_path / "python3.10/dist-packages"
    (folder / "cv2").mkdir(parents=True)
    (folder / "tensorrt_lean").mkdir()
    assert probe.system_module("cv2", tmp_path) == str(folder / "cv2")
    assert probe.system_module("tensorrt", tmp_path) == ""


def test_cameras_are_named_by_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("video0", "video1", "video-notes"):
        (tmp_path / "dev" / name).touch()
    folder = tmp_path / "sys/class/video4linux/video0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("HD Pro Webcam C920\n")
    assert cameras(tmp_path) == (
        Camera("/dev/video0", "HD Pro Webcam C920", readable=True),
        Camera("/dev/video1", "", readable=True),
    )
