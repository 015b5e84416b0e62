"""Entry point ``python -m edgeseg.doctor``, for installations whose CLI does not start."""

import sys

from edgeseg.doctor import examine, render

sys.stdout.write(render(examine()))
