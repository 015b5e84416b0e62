"""Labelled pictures: reading them strictly (NumPy, OpenCV), and feeding training (torch)."""

from edgeseg.data.borders import border_weights

__all__ = ["border_weights"]
