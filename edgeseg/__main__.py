"""The entry point of ``edgeseg`` and ``python -m edgeseg``."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line and exit; Ctrl-C ends the process at once until commands handle it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # pydantic would search all installed packages for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from edgeseg.cli import main

    main()


if __name__ == "__main__":
    run()
