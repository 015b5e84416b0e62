"""Train networks on labelled pictures. Everything here needs PyTorch.

Import from the modules: ``loop.train``, ``checkpoint``, ``predictor.open_torch``.
"""

# Fails early with an install hint if PyTorch is missing.
import edgeseg.models  # noqa: F401
