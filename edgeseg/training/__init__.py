"""Training: from labelled pictures to a checkpoint. All of it needs PyTorch.

Import from the modules: ``loop.train``, ``checkpoint``, ``predictor.open_torch``.
"""

# Says what to install where PyTorch is missing, before any module here stumbles over it.
import edgeseg.models  # noqa: F401
