"""The decision table: purpose → rules, each a function of the facts that finds one problem.

If several causes hide each other, only the first is reported, as the one to fix next.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeseg.doctor.check import Purpose, Trouble
from edgeseg.doctor.facts import SystemFacts
from edgeseg.doctor.rules import base, gpu, jetson, video

__all__ = ["RULES", "Rule", "rule_name"]

Rule = Callable[[SystemFacts], Trouble | None]

RULES: dict[Purpose, tuple[Rule, ...]] = {
    "base": (
        base.python_too_old,
        base.numpy_unusable,
        video.numpy_too_new_for_opencv,
        video.opencv_lacks_system_library,
        video.opencv_absent,
        video.opencv_broken,
        video.several_opencvs,
        video.venv_hides_system_opencv,
    ),
    "train": (base.training_absent,),
    "build": (base.onnx_absent, jetson.little_memory),
    "cpu": (base.onnxruntime_unusable, base.openvino_absent, base.native_kernels_absent),
    "gpu": (
        gpu.driver_mismatch,
        gpu.gpu_not_given_to_container,
        gpu.wsl_without_driver,
        jetson.user_not_in_video_group,
        gpu.driver_absent,
        gpu.cuda_does_not_start,
        gpu.no_gpu,
        gpu.driver_too_old,
        jetson.python_is_not_jetpacks,
        jetson.venv_hides_tensorrt,
        jetson.jetpack_tensorrt_absent,
        jetson.tensorrt_is_not_jetpacks,
        gpu.tensorrt_absent,
        gpu.rtx_does_not_know_gpu,
        gpu.cuda_binding_absent,
        gpu.cuda_binding_too_new,
        gpu.kernels_absent,
        gpu.cpu_onnxruntime_hides_gpus,
    ),
    "dla": (jetson.no_dla, jetson.tensorrt_without_dla),
    "network": (video.no_video_decoder, video.av_absent, video.gstreamer_plugins_absent),
    "usb": (video.no_camera, video.camera_not_readable, video.raw_sensor),
    "csi": (
        jetson.csi_needs_jetpacks_python,
        jetson.pip_opencv_hides_jetpacks,
        jetson.opencv_without_gstreamer,
        jetson.camera_plugin_absent,
        jetson.gstreamer_tools_absent,
    ),
    "show": (video.opencv_without_window, video.no_display),
    "web": (base.web_absent, base.metrics_absent),
    "report": (base.report_absent,),
    "speed": (jetson.low_power_mode, jetson.clocks_not_locked),
}


def rule_name(rule: Rule) -> str:
    """Return the public name of a rule, e.g. ``pip-opencv-hides-jetpacks``."""
    return rule.__name__.replace("_", "-")
