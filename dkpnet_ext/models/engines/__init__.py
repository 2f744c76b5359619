"""Engines: what computes the convolutions of a model in prediction (PyTorch, ONNX Runtime or OpenVINO).

From below: trunk (the part of a model that an engine replaces, and its PyTorch form) -> graph (that part as an ONNX file,
kept in the cache) -> runtimes (ONNX Runtime, OpenVINO) -> choice (which one, and what was measured). `install` is all that
a model calls.
"""

from .choice import ENGINES, Choice, EngineName, install, remembered

__all__ = ["ENGINES", "Choice", "EngineName", "install", "remembered"]
