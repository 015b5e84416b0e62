"""Labelled pictures: reading them strictly (NumPy, OpenCV), and feeding training (torch)."""
