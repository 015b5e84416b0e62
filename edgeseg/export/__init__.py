"""From a checkpoint to ONNX, and from an artefact to a Triton model repository."""
