"""Options of a calibration."""

from __future__ import annotations

from typing import Literal

Select = Literal["k-centre", "random", "first", "spread"]
"""How the pictures of a calibration set are selected, see :mod:`edgeseg.data.selection`."""

Method = Literal["minmax", "percentile", "entropy", "mse"]
"""How ranges are estimated, see :mod:`edgeseg.precision.thresholds`."""
