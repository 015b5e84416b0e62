"""Turn operating-system errors, such as a full disk, into one-sentence messages."""

from __future__ import annotations

import errno
import os
import re

from edgeseg.artifacts.files import FULL
from edgeseg.console import visible
from edgeseg.errors import EdgesegError, OutputError, UsageError

_MENDS = {
    errno.ENOSPC: "make room on that disk, or write to another",
    errno.EDQUOT: "make room in your quota, or write to another disk",
    errno.EROFS: "choose an output path on a disk that can be written",
    errno.EACCES: "give yourself the right to it: `ls -ld` shows who has it",
    errno.EPERM: "give yourself the right to it: `ls -ld` shows who has it",
    errno.EMFILE: "allow more open files: `ulimit -n 4096`",
    errno.ENFILE: "allow more open files on this machine: `sysctl fs.file-max`",
    errno.EIO: "look at the disk and its cable: `dmesg` says what failed",
}

# Messages of libraries that have no exception class for running out of memory.
_SIGNS_OF_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "insufficient memory",
    "failed to allocate",
    "bad_alloc",
    "bad allocation",
)


def of_system(error: Exception) -> EdgesegError | None:
    """Return the error to show if the system caused ``error``; None if it is a bug in edgeseg."""
    if _is_out_of_memory(error):
        return EdgesegError(
            f"the memory of this machine is used up ({_one_line(error)})",
            hint="close other programs, or ask for less at once: smaller pictures, batches, "
            "--threads or --workers",
        )
    if isinstance(error, UnicodeEncodeError) and re.search("[\udc80-\udcff]", error.object):
        return UsageError(
            f"{error.object[:200]!r}: this name is not valid UTF-8, but has to be passed "
            "on as text",
            hint="rename the file or folder",
        )
    # Raised by pydantic, which is not imported for this, for a name in a document.
    if "surrogates not allowed" in str(error) or "type=string_unicode" in str(error):
        return UsageError(
            "a file or folder among the inputs has a name that is not valid UTF-8, and "
            "the result cannot "
            "hold it",
            hint="rename it: `find . -print0 | grep -zaxv '.*' | tr '\\0' '\\n'` lists such names",
        )
    if isinstance(error, OSError) and error.errno is not None:
        names = [
            os.fsdecode(name)
            for name in (error.filename, error.filename2)
            if isinstance(name, str | bytes)
        ]
        full = error.errno in FULL
        where = " and ".join(names) or ("the result cannot be written" if full else "the system")
        kind = OutputError if full else UsageError
        message = f"{where}: {error.strerror or os.strerror(error.errno)}"
        return kind(message, hint=_MENDS.get(error.errno))
    return None


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    # OpenCV, PyTorch and ONNX Runtime have their own classes, which are not imported for this.
    return any(sign in str(error).lower() for sign in _SIGNS_OF_NO_MEMORY)


def _one_line(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return visible(first[:200]) or type(error).__name__
