"""How this processor computes int8 products."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


@functools.cache
def int8_saturates() -> bool:
    """Whether int8 products saturate on this CPU unless weights have 7 bits.

    x86 without VNNI multiplies u8 × s8 in pairs with ``vpmaddubsw``, whose int16 sums stop at
    32767: 255 × 127 twice comes out as half. ONNX Runtime documents it under "When and why do
    I need to try U8U8?"; OpenVINO's kernels do the same. Arm and VNNI add in 32 bits.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True  # Unknown: prefer correct and slow to fast and wrong.
    return not _VNNI_FLAGS & set(text.split())
