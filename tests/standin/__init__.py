"""Stand-ins for the Python modules of TensorRT, from the lists of what each version has.

``api/`` lists every class, enumeration and function of five real wheels with their public
members. :func:`tensorrt` makes a module of one list: what stands in it is there, anything else
raises ``AttributeError`` with the version and the name, on classes, on instances, on members
of enumerations, and when it is assigned. What is there and does something is written once for
all versions in ``building.py`` and ``running.py``; a version gets of it what its list has.
The rest can be named, and raises ``NotImplementedError`` when called.

Device memory is host memory, and an engine runs in ONNX Runtime::

    trt = standin.tensorrt("8.6.1")
    trt.BuilderFlag.FP16                             # is there
    trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED # AttributeError: TensorRT 8.6.1 has no …
    ...
    assert standin.called(trt, "IBuilderConfig.set_flag") == [(trt.BuilderFlag.FP16,)]
"""

from standin.building import DLA_LAYERS
from standin.machine import Machine
from standin.surface import VERSIONS, Call, called, calls, tensorrt

__all__ = ["DLA_LAYERS", "VERSIONS", "Call", "Machine", "called", "calls", "tensorrt"]
