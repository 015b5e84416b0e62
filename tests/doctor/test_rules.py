"""The decision table on recorded machines: which rules fire, the cause they name, the command."""

import functools
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from edgeseg import doctor
from edgeseg.cli import make_app
from edgeseg.doctor.check import CAN, Check
from edgeseg.doctor.diagnosis import best_runtime
from edgeseg.doctor.facts import GpuFacts, Probed, SystemFacts
from edgeseg.doctor.rules import RULES, rule_name
from edgeseg.engines.choice import Here, runtime_choices

MACHINES = Path(__file__).parent / "machines"
ALL_RULES = {rule_name(rule) for rules in RULES.values() for rule in rules}

FIRES: dict[str, str] = {
    "agx-orin-jetpack72-tensorrt10": "tensorrt-without-dla",
    "agx-orin-jetpack72-tensorrt11": "",
    "container-arm-no-opencv": "opencv-absent no-gpu no-camera",
    "container-cpu": "no-gpu no-camera no-display",
    "container-cuda-fails": "cuda-does-not-start no-camera no-display",
    "container-slim": "opencv-lacks-system-library no-gpu no-camera",
    "container-without-gpus": "gpu-not-given-to-container no-camera no-display",
    "debian-no-plugins": "no-gpu gstreamer-plugins-absent",
    "debian-numpy2": (
        "numpy-too-new-for-opencv training-absent onnx-absent openvino-absent no-gpu "
        "av-absent no-camera web-absent metrics-absent report-absent"
    ),
    "debian-other-python": "opencv-absent no-gpu",
    "debian-python3-opencv": (
        "training-absent onnx-absent openvino-absent no-gpu av-absent no-camera "
        "no-display web-absent metrics-absent report-absent"
    ),
    "debian-two-opencvs": (
        "several-opencvs training-absent onnx-absent openvino-absent no-gpu av-absent "
        "no-camera no-display web-absent metrics-absent report-absent"
    ),
    "debian-venv-hides-opencv": (
        "venv-hides-system-opencv training-absent onnx-absent openvino-absent no-gpu "
        "av-absent no-camera web-absent metrics-absent report-absent"
    ),
    "desktop-camera-not-readable": "no-gpu camera-not-readable",
    "desktop-cpu": "no-gpu",
    "desktop-headless-opencv": "no-gpu opencv-without-window",
    "desktop-no-onnxruntime": "onnxruntime-unusable no-gpu",
    "desktop-numpy-broken": "numpy-unusable onnxruntime-unusable no-gpu",
    "desktop-opencv-broken": "opencv-broken no-gpu",
    "desktop-opencv-without-ffmpeg": "no-gpu no-video-decoder av-absent",
    "desktop-python39": "python-too-old no-gpu",
    "desktop-rtx-bare": (
        "training-absent onnx-absent openvino-absent native-kernels-absent "
        "tensorrt-absent av-absent web-absent metrics-absent report-absent"
    ),
    "desktop-rtx-cuda-fails": "cuda-does-not-start",
    "desktop-rtx-cuda12": "cuda-binding-too-new",
    "desktop-rtx-driver-mismatch": "driver-mismatch",
    "desktop-rtx-no-binding": "cuda-binding-absent",
    "desktop-rtx-no-driver": "driver-absent",
    "desktop-rtx-no-kernels": "kernels-absent",
    "desktop-rtx-old-driver": "driver-too-old",
    "desktop-rtx-onnxruntime-gpu": "",
    "desktop-rtx-onnxruntime-over-gpu": "cpu-onnxruntime-hides-gpus",
    "desktop-rtx": "",
    "desktop-two-opencvs": "several-opencvs no-gpu",
    "orin-jetpack5": (
        "python-too-old training-absent onnx-absent onnxruntime-unusable "
        "native-kernels-absent av-absent web-absent metrics-absent report-absent"
    ),
    "orin-jetpack6-binding13": "cuda-binding-too-new",
    "orin-jetpack6-flashed-bare": (
        "opencv-absent onnxruntime-unusable jetpack-tensorrt-absent gstreamer-tools-absent"
    ),
    "orin-jetpack6-low-power": "low-power-mode clocks-not-locked",
    "orin-jetpack6-no-binding": "cuda-binding-absent",
    "orin-jetpack6-no-plugins": "gstreamer-plugins-absent camera-plugin-absent",
    "orin-jetpack6-not-in-video": "user-not-in-video-group camera-not-readable",
    "orin-jetpack6-numpy2": "numpy-too-new-for-opencv",
    "orin-jetpack6-only-pip-opencv": "opencv-without-gstreamer",
    "orin-jetpack6-onnxruntime-over-gpu": "cpu-onnxruntime-hides-gpus",
    "orin-jetpack6-pip-opencv": "pip-opencv-hides-jetpacks",
    "orin-jetpack6-pip-tensorrt": "tensorrt-is-not-jetpacks tensorrt-without-dla",
    "orin-jetpack6-python312": "python-is-not-jetpacks csi-needs-jetpacks-python",
    "orin-jetpack6-venv": "venv-hides-system-opencv venv-hides-tensorrt",
    "orin-jetpack6": "",
    "orin-nano-jetpack6": "little-memory no-dla raw-sensor low-power-mode clocks-not-locked",
    "server-h100-bare": "tensorrt-absent no-camera no-display",
    "server-h100-rtx": "rtx-does-not-know-gpu no-camera no-display",
    "server-h100": "no-camera no-display",
    "thor-jetpack7-low-power": "no-dla low-power-mode clocks-not-locked",
    "thor-jetpack7-no-binding": "cuda-binding-absent no-dla",
    "thor-jetpack7-no-plugins": "no-dla gstreamer-plugins-absent camera-plugin-absent",
    "thor-jetpack7-not-in-video": "user-not-in-video-group no-dla camera-not-readable",
    "thor-jetpack7-numpy2": "numpy-too-new-for-opencv no-dla",
    "thor-jetpack7-onnxruntime-over-gpu": "cpu-onnxruntime-hides-gpus no-dla",
    "thor-jetpack7-pip-opencv": "no-dla pip-opencv-hides-jetpacks",
    "thor-jetpack7-pip-tensorrt": "tensorrt-is-not-jetpacks no-dla",
    "thor-jetpack7-venv": "venv-hides-system-opencv venv-hides-tensorrt no-dla",
    "thor-jetpack7": "no-dla",
    "wsl2-no-driver": "wsl-without-driver no-camera",
    "wsl2": "no-camera",
    "xavier-jetpack5-python312": "python-is-not-jetpacks csi-needs-jetpacks-python",
}
"""Machine → all rules that fire on it; on each it is as important that the others do not."""

MENDS_OF = (
    # Where one rule has several cures, a machine of each: the cure of the other would do harm.
    ("opencv-absent", "container-arm-no-opencv", "edgeseg[cpu]"),
    ("opencv-absent", "orin-jetpack6-flashed-bare", "nvidia-jetpack"),
    ("onnxruntime-unusable", "desktop-no-onnxruntime", "edgeseg[cpu]"),
    # Not edgeseg[cpu]: that brings an OpenCV that hides JetPack's.
    ("onnxruntime-unusable", "orin-jetpack6-flashed-bare", "install onnxruntime 'numpy<2'"),
    ("python-is-not-jetpacks", "orin-jetpack6-python312", "--system-site-packages"),
    ("python-is-not-jetpacks", "xavier-jetpack5-python312", "flash JetPack"),
    ("tensorrt-absent", "desktop-rtx-bare", "edgeseg[tensorrt-rtx]"),
    ("tensorrt-absent", "server-h100-bare", "install tensorrt-cu12"),
    ("cuda-binding-absent", "desktop-rtx-no-binding", "edgeseg[cuda]"),
    ("cuda-binding-absent", "orin-jetpack6-no-binding", "<13"),
    ("cpu-onnxruntime-hides-gpus", "orin-jetpack6-onnxruntime-over-gpu", "--index-url"),
    ("gstreamer-plugins-absent", "debian-no-plugins", "gstreamer1.0-libav"),
    ("gstreamer-plugins-absent", "orin-jetpack6-no-plugins", "nvidia-l4t-gstreamer"),
    ("no-camera", "container-cpu", "docker run --device"),
    ("no-camera", "wsl2", "usbipd attach"),
    ("low-power-mode", "orin-jetpack6-low-power", "nvpmodel -m 0"),
    ("low-power-mode", "orin-nano-jetpack6", "nvpmodel -m 2"),
)

BUILDS = {
    "desktop-cpu": "build --int8 --runtime openvino",
    "desktop-rtx": "build --fp16 --runtime tensorrt-rtx",
    "desktop-rtx-bare": "build --int8 --runtime onnxruntime",
    "desktop-rtx-no-binding": "build --int8 --runtime openvino",
    "desktop-rtx-cuda12": "build --int8 --runtime openvino",
    "server-h100": "build --fp16 --runtime tensorrt",
    "server-h100-rtx": "build --int8 --runtime openvino",
    "wsl2": "build --fp16 --runtime tensorrt-rtx",
    "orin-jetpack6": "build --fp16 --runtime tensorrt",
    "orin-jetpack6-pip-tensorrt": "build --int8 --runtime onnxruntime",
    "orin-jetpack6-venv": None,
    "thor-jetpack7": "build --fp16 --runtime tensorrt",
    "orin-jetpack5": None,
    "xavier-jetpack5-python312": "build --int8 --runtime onnxruntime",
}
"""Rule, machine, what its cure has and that of no other machine of the rule in this table."""


@functools.cache
def judged(machine: str) -> doctor.Examination:
    return doctor.examine(doctor.read(MACHINES / f"{machine}.json"))


def fired(findings: doctor.Examination) -> dict[str, Check]:
    return {check.rule: check for check in findings.checks if check.rule}


def test_each_recorded_machine_is_judged_here() -> None:
    assert {path.stem for path in MACHINES.glob("*.json")} == set(FIRES)


@pytest.mark.parametrize("machine", FIRES)
def test_on_a_machine_its_rules_fire_and_no_others(machine: str) -> None:
    assert set(fired(judged(machine))) == set(FIRES[machine].split())


def test_each_rule_fires_somewhere_and_somewhere_does_not() -> None:
    sets = [set(rules.split()) for rules in FIRES.values()]
    assert set.union(*sets) == ALL_RULES
    assert not set.intersection(*sets)


def test_a_machine_set_up_well_has_nothing_to_mend() -> None:
    for machine in ("desktop-rtx", "orin-jetpack6", "agx-orin-jetpack72-tensorrt11"):
        findings = judged(machine)
        assert findings.healthy
        assert not fired(findings)
    lacking = [command.name for command in judged("desktop-rtx").commands if not command.usable]
    assert lacking == ["build --runtime tensorrt", "infer --cluster", "stream --mqtt"]


def test_each_kind_of_machine_gets_the_cure_of_its_kind() -> None:
    for rule, machine, cure in MENDS_OF:
        for other in (on for each, on, _ in MENDS_OF if each == rule):
            hint = fired(judged(other))[rule].hint or ""
            assert (cure in hint) == (other == machine), (rule, other, hint)
    hidden = "venv-hides-system-opencv"
    assert "edgeseg[cpu]" not in (fired(judged("thor-jetpack7-venv"))[hidden].hint or "")
    assert "edgeseg[cpu]" in (fired(judged("debian-venv-hides-opencv"))[hidden].hint or "")


def test_each_rule_has_a_cure_but_for_what_may_be_as_it_is() -> None:
    checks = [check for machine in FIRES for check in fired(judged(machine)).values()]
    assert {check.rule for check in checks if not check.hint} == {"no-gpu", "no-dla", "no-camera"}
    assert all(check.found for check in checks)


@pytest.mark.parametrize(("machine", "build"), BUILDS.items())
def test_one_build_is_recommended(machine: str, build: str | None) -> None:
    best = judged(machine).recommended
    assert (best.name if best else None) == build


@pytest.mark.parametrize("x86", [True, False])
@pytest.mark.parametrize("gpu", [True, False])
def test_recommended_is_what_auto_takes(x86: bool, gpu: bool) -> None:
    modules = {
        "tensorrt": "tensorrt",
        "tensorrt-rtx": "tensorrt_rtx",
        "cuda-bindings": "cuda.bindings",
        "pycuda": "pycuda",
        "openvino": "openvino",
        "onnxruntime": "onnxruntime",
    }
    for chosen in itertools.product([True, False], repeat=len(modules)):
        there = {name for name, present in zip(modules, chosen, strict=True) if present}
        facts = SystemFacts(
            python="3.12.3",
            architecture="x86_64" if x86 else "aarch64",
            distributions=dict.fromkeys(there, "1"),
            libraries={"onnxruntime": Probed(error="" if "onnxruntime" in there else "none")},
            gpus=(GpuFacts(name="GPU"),) if gpu else (),
        )
        here = Here(frozenset(modules[name] for name in there), gpu, x86)
        expected = next((c.runtime for c in runtime_choices(here) if c.runs), None)
        assert best_runtime(facts, gpu=True) == expected, there


def test_what_blocks_decides_on_the_verdict() -> None:
    hidden = judged("orin-jetpack6-pip-opencv")
    assert [check.rule for check in hidden.obstacles("csi")] == ["pip-opencv-hides-jetpacks"]
    assert not hidden.obstacles("gpu")
    closed = judged("thor-jetpack7-venv")
    assert all(closed.obstacles(purpose) for purpose in CAN)
    assert not closed.healthy
    assert judged("desktop-rtx-no-binding").healthy
    assert not judged("desktop-no-onnxruntime").healthy


# What is offered has to be real: extras, options, packages, and the shell's grammar.

MENDS = sorted(
    {
        line
        for machine in FIRES
        for check in judged(machine).checks
        for line in (check.hint or "").splitlines()
    }
)
PYPROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text()
_LISTED = PYPROJECT.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
EXTRAS = set(re.findall(r"^([\w-]+) = \[", _LISTED, re.MULTILINE))


def accepted(command: str) -> None:
    """Parse an edgeseg command without running it; raises for what the command line refuses."""
    name, *arguments = command.partition("#")[0].split()[1:]
    group = typer.main.get_command(make_app())
    with group.make_context("edgeseg", [name, *arguments], resilient_parsing=False) as context:
        sub = group.commands[name]  # type: ignore[attr-defined]
        sub.make_context(name, arguments, parent=context).close()


@pytest.mark.parametrize("line", [line for line in MENDS if line.startswith("edgeseg ")])
def test_offered_commands_of_edgeseg_parse(line: str) -> None:
    accepted(line)


def test_recommended_builds_parse() -> None:
    for name in {best.name for each in FIRES if (best := judged(each).recommended)}:
        accepted(f"edgeseg {name}")


def test_a_command_with_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(Exception, match="fp15"):
        accepted("edgeseg build --fp15 --runtime tensorrt")


@pytest.mark.parametrize("line", [line for line in MENDS if "pip install" in line])
def test_offered_packages_are_requirements_and_extras_exist(line: str) -> None:
    words = line.partition("   #")[0].partition("pip install")[2].split("&&")[0]
    words = re.sub(r"--(?:index-url|python) \S+|--[\w-]+", "", words)
    for word in words.replace("'", "").split():
        if word != ".":
            wanted = Requirement(word)
            assert wanted.name != "edgeseg" or wanted.extras <= EXTRAS, line


def test_offered_lines_are_shell() -> None:
    wrong = ["echo 'a", "if true", "a | | b"]
    # Each becomes the body of a function, which is read and not run.
    script = """while IFS= read -r -d '' line; do
        eval $'hint() { :\n'"$line"$'\n}' 2>/dev/null || printf '%s\\n' "$line"
    done"""
    done = subprocess.run(
        ["bash", "-c", script],
        input="".join(f"{line}\0" for line in [*MENDS, *wrong]),
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.splitlines() == wrong


def test_offered_debian_packages_exist() -> None:
    offered = {
        name
        for line in MENDS
        if "apt-get install" in line
        for name in line.partition("apt-get install")[2].split()
        if not name.startswith(("-", "nvidia-"))  # NVIDIA's are in its own archives
    }
    assert {"libgl1", "gstreamer1.0-tools"} <= offered
    if shutil.which("apt-cache") is None:
        pytest.skip("no apt-cache")
    known = subprocess.run(["apt-cache", "pkgnames"], capture_output=True, text=True, check=True)
    names = set(known.stdout.split())
    if "gstreamer1.0-libav" not in names:
        pytest.skip("apt-get update was never run here")
    assert offered <= names
