"""``python -m edgeseg.doctor``, for an installation whose command line does not start."""

import sys

from edgeseg.doctor import examine, render

sys.stdout.write(render(examine()))
