"""The doctor: decisions on recorded machines, and probes of libraries that are really broken."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg import doctor
from edgeseg.cameras import Camera
from edgeseg.doctor import probe
from edgeseg.doctor.probe import Probed, SystemFacts
from edgeseg.machine import Gpu

PIP_OPENCV = """
  GUI:                           QT5
    QT:                          YES (ver 5.15.19 )
    GTK+:                        NO
  Video I/O:
    FFMPEG:                      YES
      avcodec:                   YES (59.37.100)
    GStreamer:                   NO
    v4l/v4l2:                    YES (linux/videodev2.h)
"""
JETPACK_OPENCV = """
  GUI:                           GTK3
    GTK+:                        YES (ver 3.24.33)
  Video I/O:
    FFMPEG:                      YES
    GStreamer:                   YES (1.19.90)
"""
HEADLESS_OPENCV = """
  GUI:                           NONE
  Video I/O:
    FFMPEG:                      YES
    GStreamer:                   NO
"""
NO_DRIVER = Probed(
    error="OSError: libcuda.so.1: cannot open shared object file: No such file or directory"
)
EXTRAS = {
    "torch": "2.13.0+cpu",
    "kornia": "0.9.0",
    "safetensors": "0.8.0",
    "onnx": "1.23.2",
    "onnxscript": "0.7.2",
    "matplotlib": "3.11.2",
    "jinja2": "3.1.6",
}
DESKTOP = SystemFacts(
    python="3.11.7",
    distributions={
        "numpy": "2.4.6",
        "onnxruntime": "1.32.0",
        "opencv-python": "5.0.0.93",
        "openvino": "2026.4.1",
        **EXTRAS,
    },
    libraries={
        "numpy": Probed({"version": "2.4.6"}),
        "opencv": Probed({"version": "5.0.0", "file": "/v/cv2.py", "build": PIP_OPENCV}),
        "onnxruntime": Probed({"version": "1.32.0", "providers": ["CPUExecutionProvider"]}),
        "native": Probed({"available": True, "level": "avx2"}),
        "cuda": NO_DRIVER,
    },
    display=True,
    edgeseg_version="0.1.0",
)
DESKTOP_GPU = replace(
    DESKTOP,
    distributions=DESKTOP.distributions | {"tensorrt-rtx": "1.7.1.116"},
    libraries=DESKTOP.libraries
    | {"cuda": Probed({"status": 0, "version": 13000, "devices": ["NVIDIA GeForce RTX 4070"]})},
    gpus=(Gpu("NVIDIA GeForce RTX 4070", "580.65.06", 12282, "8.9"),),
    cameras=(Camera("/dev/video0", "HD Pro Webcam C920", readable=True),),
)
JETSON = replace(
    DESKTOP,
    python="3.10.12",
    architecture="aarch64",
    distributions={"numpy": "1.26.4", "onnxruntime": "1.32.0", "opencv-python": "4.13.0.90"},
    libraries=DESKTOP.libraries
    | {
        "opencv": Probed({"version": "4.13.0", "file": "/v/cv2.py", "build": PIP_OPENCV}),
        "cuda": Probed({"status": 0, "version": 12060, "devices": ["Orin"]}),
    },
    board="NVIDIA Jetson Orin Nano Developer Kit",
    tegra_release="# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
    system_opencv="/usr/lib/python3.10/dist-packages/cv2",
    gst_inspect=True,
)


def check(findings: doctor.Findings, name: str) -> doctor.Check:
    found = [check for check in findings.checks if check.name == name]
    assert len(found) == 1, f"{name}: {len(found)} checks"
    return found[0]


def names(findings: doctor.Findings) -> set[str]:
    return {check.name for check in findings.checks}


def usable(findings: doctor.Findings) -> dict[str, bool]:
    return {command.name: command.usable for command in findings.commands}


def with_opencv(facts: SystemFacts, probed: Probed, **distributions: str) -> SystemFacts:
    others = {k: v for k, v in facts.distributions.items() if not k.startswith("opencv")}
    named = {name.replace("_", "-"): version for name, version in distributions.items()}
    return replace(
        facts, distributions=others | named, libraries=facts.libraries | {"opencv": probed}
    )


def test_desktop_without_gpu_can_do_all_but_build_for_one() -> None:
    findings = doctor.examine(DESKTOP)
    assert findings.healthy
    assert usable(findings).pop("build --runtime tensorrt-rtx") is False
    assert sum(usable(findings).values()) == len(doctor.NEEDS) - 1
    assert check(findings, "NVIDIA GPU").state == "note"
    assert check(findings, "TensorRT-RTX").mend == "pip install 'edgeseg[tensorrt-rtx]'"
    opencv = check(findings, "OpenCV")
    assert opencv.found == ("5.0.0 from opencv-python; GStreamer no, FFmpeg yes, window QT5")
    assert not {"Jetson", "GStreamer", "Window", "TensorRT"} & names(findings)


def test_desktop_with_gpu_names_it_with_its_driver() -> None:
    findings = doctor.examine(DESKTOP_GPU)
    gpu = check(findings, "NVIDIA GPU")
    assert gpu.state == "ok"
    assert gpu.found == "NVIDIA GeForce RTX 4070 (driver 580.65.06, CUDA 13.0)"
    assert check(findings, "Camera").found == "/dev/video0 HD Pro Webcam C920"
    assert all(usable(findings).values())


def test_gpu_that_cuda_cannot_start_is_no_gpu() -> None:
    broken = Probed({"status": 999, "version": 13000, "devices": []})
    facts = replace(DESKTOP_GPU, libraries=DESKTOP_GPU.libraries | {"cuda": broken})
    gpu = check(doctor.examine(facts), "NVIDIA GPU")
    assert gpu.state == "note"
    assert "cuInit gave 999" in gpu.found
    assert gpu.mend


def test_jetson_whose_opencv_is_hidden_by_pips() -> None:
    findings = doctor.examine(JETSON)
    assert check(findings, "Jetson").found == (
        "JetPack 6 (L4T 36.4.3), NVIDIA Jetson Orin Nano Developer Kit"
    )
    shadow = check(findings, "GStreamer")
    assert shadow.state == "note"
    assert "opencv-python hides JetPack's OpenCV" in shadow.found
    assert shadow.mend == (
        "pip uninstall -y opencv-python, then a new environment: "
        "python3 -m venv --system-site-packages VENV"
    )
    assert "--system-site-packages" in (check(findings, "TensorRT").mend or "")
    assert usable(findings)["stream"]
    assert not usable(findings)["train"]


def test_jetson_set_up_as_advised_has_nothing_to_mend_for_its_cameras() -> None:
    probed = Probed(
        {"version": "4.8.0", "file": "/usr/lib/python3.10/cv2.so", "build": JETPACK_OPENCV}
    )
    facts = replace(
        with_opencv(JETSON, probed),
        system_site_packages=True,
        distributions={"numpy": "1.26.4", "onnxruntime": "1.32.0", "tensorrt": "10.3.0"},
    )
    findings = doctor.examine(facts)
    assert "GStreamer" not in names(findings)
    opencv = check(findings, "OpenCV")
    assert opencv.found.startswith("4.8.0 from the system (/usr/lib/python3.10/cv2.so); GStreamer")
    assert "GStreamer 1.19.90" in opencv.found
    assert check(findings, "TensorRT").state == "ok"


def test_missing_libgl_is_mended_with_apt() -> None:
    error = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    facts = with_opencv(DESKTOP, Probed(error=error), opencv_python="4.13.0.90")
    findings = doctor.examine(facts)
    opencv = check(findings, "OpenCV")
    assert opencv.state == "missing"
    assert opencv.found == "opencv-python is installed but libGL.so.1 is not"
    assert opencv.mend == "apt-get install libgl1 libglib2.0-0"
    assert not findings.healthy
    assert not any(usable(findings).values())
    stream = next(command for command in findings.commands if command.name == "stream")
    assert stream.lacks == ("opencv",)


def test_absent_and_broken_opencv_have_different_mends() -> None:
    absent = with_opencv(DESKTOP, Probed(error="ModuleNotFoundError: No module named 'cv2'"))
    assert check(doctor.examine(absent), "OpenCV").mend == "pip install 'edgeseg[cpu]'"
    error = "ImportError: numpy.core.multiarray failed to import"
    broken = with_opencv(DESKTOP, Probed(error=error), opencv_python="4.5")
    mend = check(doctor.examine(broken), "OpenCV").mend
    assert mend == "pip install --force-reinstall opencv-python"


def test_two_opencv_packages_are_one_too_many() -> None:
    facts = with_opencv(
        DESKTOP,
        DESKTOP.libraries["opencv"],
        opencv_python="5.0.0.93",
        opencv_python_headless="5.0.0.93",
    )
    opencv = check(doctor.examine(facts), "OpenCV")
    assert opencv.state == "note"
    assert "pip uninstall -y opencv-python opencv-python-headless" in (opencv.mend or "")


def test_opencv_without_window_and_session_without_display() -> None:
    headless = Probed({"version": "5.0.0", "build": HEADLESS_OPENCV})
    facts = with_opencv(DESKTOP, headless, opencv_python_headless="5.0.0.93")
    assert check(doctor.examine(facts), "Window").mend == "pip install opencv-python"
    remote = check(doctor.examine(replace(DESKTOP, display=False)), "Window")
    assert (remote.state, remote.mend) == ("note", None)


def test_bare_installation_says_what_each_command_lacks() -> None:
    bare = replace(
        DESKTOP,
        distributions={"numpy": "2.4.6", "onnxruntime": "1.32.0", "opencv-python": "5.0.0.93"},
    )
    findings = doctor.examine(bare)
    assert findings.healthy
    lacks = {command.name: command.lacks for command in findings.commands}
    assert lacks["stream"] == lacks["bench"] == ()
    assert lacks["train"] == ("torch", "kornia", "safetensors", "matplotlib")
    assert check(findings, "PyTorch").mend == "pip install 'edgeseg[train]'"


def test_old_python_and_unreadable_camera() -> None:
    facts = replace(
        DESKTOP, python="3.9.2", cameras=(Camera("/dev/video0", "Webcam", readable=False),)
    )
    findings = doctor.examine(facts)
    assert check(findings, "Python").state == "missing"
    assert not findings.healthy
    assert "usermod -aG video" in (check(findings, "Camera").mend or "")


@pytest.mark.parametrize("facts", [DESKTOP, DESKTOP_GPU, JETSON, SystemFacts(python="3.12.0")])
def test_findings_render_and_go_through_json(facts: SystemFacts) -> None:
    findings = doctor.examine(facts)
    text = doctor.render(findings)
    for found in findings.checks:
        assert found.found in text
        assert found.mend is None or found.mend in text
    assert json.loads(json.dumps(findings.to_dict()))["healthy"] is findings.healthy


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
    assert answers["whole"] == Probed({"version": "1"})
    assert answers["raises"].error.startswith("ImportError: libGL.so.1")
    assert answers["killed"].error == "ended the process with signal 4"
    assert hung["hangs"].error == "did not answer in time"
    assert answers["mute"].error == "gave no readable answer"
    assert answers["exits"].error == "ended with status 3"
    assert answers["babbles"].error == "gave no readable answer"


def test_broken_libraries_on_the_path_do_not_stop_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    (tmp_path / "onnxruntime.py").write_text("import os\nos.abort()\n")
    source = str(Path(doctor.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{source}")
    findings = doctor.examine(probe.probe())
    assert check(findings, "OpenCV").state == "missing"
    assert "signal 6" in check(findings, "ONNX Runtime").found
    assert check(findings, "Native kernels").state == "note"
    assert not usable(findings)["stream"]


def test_this_machine_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(doctor.__file__).parents[1]))
    facts = probe.probe()
    assert facts.libraries["opencv"].version
    assert facts.libraries["onnxruntime"].version == facts.distributions["onnxruntime"]
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert doctor.examine(facts).healthy


def test_cameras_are_named_by_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("video0", "video1", "video-notes"):
        (tmp_path / "dev" / name).touch()
    folder = tmp_path / "sys/class/video4linux/video0"
    folder.mkdir(parents=True)
    (folder / "name").write_text("HD Pro Webcam C920\n")
    assert probe.cameras(tmp_path) == (
        Camera("/dev/video0", "HD Pro Webcam C920", readable=True),
        Camera("/dev/video1", "", readable=True),
    )
