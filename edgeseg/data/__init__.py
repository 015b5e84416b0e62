"""Data sets: strict reading of labelled pictures (NumPy, OpenCV) and batches for training."""

from edgeseg.data.instances import border_weights

__all__ = ["border_weights"]
