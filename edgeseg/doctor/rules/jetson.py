"""Rules for Jetsons, based on the sources named; none was tested on a Jetson."""

from __future__ import annotations

from edgeseg.doctor.check import Trouble
from edgeseg.doctor.facts import PowerMode, SystemFacts, dla_in, jetpack, numbers, python_of
from edgeseg.doctor.rules.gpu import cause
from edgeseg.doctor.rules.video import SYSTEM_VENV, feature

INSTALL_JETPACK = "sudo apt-get install nvidia-jetpack"
_SMALL_MIB = 8 * 1024
"""Memory of Orin Nano and the smaller Orin NX; enough for streams, not for all builds."""


def user_not_in_video_group(facts: SystemFacts) -> Trouble | None:
    """Without the group, ``cuInit`` cannot open ``/dev/nvmap`` (100, 999): NVIDIA/NemoClaw#4231."""
    if cause(facts) != "group":
        return None
    return Trouble(
        "this user is not in the group video, to which the GPU's device files belong",
        "sudo usermod -aG video $USER   # then log out and in again",
        blocks=True,
    )


def python_is_not_jetpacks(facts: SystemFacts) -> Trouble | None:
    """TensorRT and OpenCV of JetPack only work with the Python of its Ubuntu."""
    built_for, running = python_of(facts), numbers(facts.python)
    if built_for is None or running == built_for or running < (3, 10):
        return None
    wanted = ".".join(map(str, built_for))
    if built_for < (3, 10):
        return Trouble(
            f"TensorRT and OpenCV of this JetPack are for Python {wanted} only, edgeseg needs "
            "3.10 or newer",
            "# Orin: flash JetPack 6 or 7; Xavier: engines run on the processor",
            blocks=True,
        )
    return Trouble(
        f"this is Python {facts.python}, and JetPack's TensorRT and OpenCV are for {wanted}",
        SYSTEM_VENV,
        blocks=True,
    )


def _tensorrt_visible(facts: SystemFacts) -> bool:
    """Whether TensorRT is visible, or hidden for a reason that another rule reports."""
    other_python = python_of(facts) != numbers(facts.python)
    return facts.jetson is None or bool(facts.tensorrt) or other_python


def venv_hides_tensorrt(facts: SystemFacts) -> Trouble | None:
    """The virtual environment does not see the TensorRT of JetPack."""
    if _tensorrt_visible(facts) or not facts.system_tensorrt:
        return None
    return Trouble(
        f"JetPack's TensorRT ({facts.system_tensorrt}) is not visible to this virtual environment",
        SYSTEM_VENV,
        blocks=True,
    )


def jetpack_tensorrt_absent(facts: SystemFacts) -> Trouble | None:
    """The Jetson was flashed without the libraries of JetPack."""
    if _tensorrt_visible(facts) or facts.system_tensorrt:
        return None
    return Trouble(
        "JetPack's TensorRT is not installed", f"{INSTALL_JETPACK}\n{SYSTEM_VENV}", blocks=True
    )


def tensorrt_is_not_jetpacks(facts: SystemFacts) -> Trouble | None:
    """TensorRT wheels are for servers (SBSA): "Migrating from 10.x to 11.x on Jetson/JetPack"."""
    known = jetpack(facts.jetson) if facts.jetson else None
    version = facts.tensorrt
    if known is None or known.tensorrt is None or not version:
        return None
    if numbers(version) == known.tensorrt:
        return None
    wanted = ".".join(map(str, known.tensorrt))
    return Trouble(
        f"TensorRT {version} hides the {wanted} of JetPack {known.name}, which alone fits it",
        "pip uninstall -y tensorrt tensorrt-cu12 tensorrt-cu13",
        blocks=True,
    )


def no_dla(facts: SystemFacts) -> Trouble | None:
    """The Jetson has no DLA, e.g. Thor and Orin Nano."""
    if facts.jetson is None or facts.jetson.dla_cores:
        return None
    return Trouble("this module has no deep-learning accelerator", blocks=True)


def tensorrt_without_dla(facts: SystemFacts) -> Trouble | None:
    """TensorRT 10.8 to 11.4.0 does not support the DLA: TensorRT 11.4.1, "Working with DLA"."""
    version = facts.tensorrt
    if facts.jetson is None or not facts.jetson.dla_cores or not version or dla_in(version):
        return None
    return Trouble(
        f"TensorRT {version} does not drive the DLA; 10.7 and older do, and 11.4.1 and newer on "
        "JetPack 7.2.2",
        "edgeseg build --fp16 --runtime tensorrt   # on the GPU",
        blocks=True,
    )


def pip_opencv_hides_jetpacks(facts: SystemFacts) -> Trouble | None:
    """OpenCV from pip lacks GStreamer, which CSI cameras need."""
    wheels = facts.opencv_wheels
    if not wheels or not facts.system_opencv or not _lacks_gstreamer(facts):
        return None
    venv = "" if facts.system_site_packages else f"\n{SYSTEM_VENV}"
    return Trouble(
        f"{' and '.join(wheels)} hides JetPack's OpenCV ({facts.system_opencv}) and has no "
        "GStreamer",
        f"pip uninstall -y {' '.join(wheels)}{venv}",
        blocks=True,
    )


def opencv_without_gstreamer(facts: SystemFacts) -> Trouble | None:
    """OpenCV lacks GStreamer: JetPack's is missing or was replaced."""
    if not _lacks_gstreamer(facts) or (facts.opencv_wheels and facts.system_opencv):
        return None
    return Trouble(
        "this OpenCV was built without GStreamer and JetPack's is not in sight",
        f"{INSTALL_JETPACK}\n{SYSTEM_VENV}",
        blocks=True,
    )


def _lacks_gstreamer(facts: SystemFacts) -> bool:
    """Whether OpenCV lacks GStreamer although JetPack's for this Python has it."""
    opencv = facts.library("opencv")
    broken = bool(opencv.error) or python_of(facts) not in {None, numbers(facts.python)}
    return facts.jetson is not None and not broken and not feature(facts, "gstreamer")


def csi_needs_jetpacks_python(facts: SystemFacts) -> Trouble | None:
    """CSI cameras need the Python of JetPack, whose OpenCV has GStreamer."""
    return None if feature(facts, "gstreamer") else python_is_not_jetpacks(facts)


def camera_plugin_absent(facts: SystemFacts) -> Trouble | None:
    """No ``nvarguscamerasrc`` or ``nvvidconv``: "Accelerated GStreamer", Jetson Linux guide."""
    names = ("nvarguscamerasrc", "nvvidconv")
    missing = [name for name in names if facts.gstreamer.get(name) is False]
    if facts.jetson is None or not missing:
        return None
    return Trouble(
        f"GStreamer has no {' and no '.join(missing)}",
        "sudo apt-get install --reinstall nvidia-l4t-gstreamer nvidia-l4t-camera\n"
        "rm -rf ~/.cache/gstreamer-1.0",
        blocks=True,
    )


def gstreamer_tools_absent(facts: SystemFacts) -> Trouble | None:
    """``gst-inspect-1.0`` is missing, so plugins cannot be checked before a pipeline hangs."""
    if facts.jetson is None or facts.gstreamer:
        return None
    return Trouble(
        "gst-inspect-1.0 is not installed: a missing element is found late",
        "sudo apt-get install gstreamer1.0-tools",
    )


def little_memory(facts: SystemFacts) -> Trouble | None:
    """Memory, shared with the GPU, is small; for swap see docs/setup.md of jetson-containers."""
    if facts.jetson is None or not facts.memory_mib or facts.memory_mib > _SMALL_MIB:
        return None
    if (facts.swap_mib or 0) >= _SMALL_MIB:
        return None
    memory, swap = facts.memory_mib / 1024, (facts.swap_mib or 0) / 1024
    return Trouble(
        f"{memory:.1f} GiB of memory and {swap:.1f} GiB of swap: building FCNs may be killed",
        "sudo systemctl disable nvzramconfig\n"
        "sudo fallocate -l 8G /var/swapfile && sudo chmod 600 /var/swapfile\n"
        "sudo mkswap /var/swapfile && sudo swapon /var/swapfile",
    )


def low_power_mode(facts: SystemFacts) -> Trouble | None:
    """A mode below MAXN is active: "Supported Modes and Power Efficiency"."""
    jetson = facts.jetson
    if jetson is None or jetson.power_mode is None:
        return None
    now = next((mode for mode in jetson.power_modes if mode.id == jetson.power_mode), None)
    best = _best(jetson.power_modes)
    if now is None or best is None or now.id == best.id:
        return None
    return Trouble(
        f"power mode {now.name} limits the clocks; {best.name} has the highest",
        f"sudo nvpmodel -m {best.id}",
    )


def _best(modes: tuple[PowerMode, ...]) -> PowerMode | None:
    """Return the fastest mode: MAXN_SUPER (JetPack 6.2), then MAXN."""
    named = {mode.name: mode for mode in modes}
    return named.get("MAXN_SUPER") or named.get("MAXN")


def clocks_not_locked(facts: SystemFacts) -> Trouble | None:
    """Clocks are not locked; the governor lowers them between frames, so latency varies."""
    if facts.jetson is None or facts.jetson.clocks_locked is not False:
        return None
    return Trouble(
        "the clocks follow the load: latencies vary; lock them before measuring",
        "sudo jetson_clocks",
    )
