"""A trunk as an ONNX file for any batch and image size, written once: its name is a hash of what it was made from."""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..._version import __version__
from ...data.cache import default_cache
from ...errors import UserError
from ...files import write_atomically, writing
from .trunk import Trunk

OPSET = 18
_FORMAT = 2  # of what this module writes


def folder() -> Path:
    """Where graphs and choices are kept: ``engines`` in the cache's folder."""
    return default_cache() / "engines"


def installed(package: str) -> str | None:
    """A package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def identity(trunk: nn.Module) -> str:
    """A hash of the architecture and every weight (names, types, shapes, values)."""
    digest = hashlib.blake2b(repr(trunk).encode(), digest_size=12)
    for name, value in trunk.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def onnx_file(trunk: Trunk) -> Path:
    """The trunk's ONNX file in the cache, written where it is not there yet.

    Input ``x`` float32 [batch, 3, height, width], normalised, sides multiples of ``trunk.multiple`` and at least twice
    that; the outputs of `Trunk.everything` under the names in ``trunk.features`` and ``trunk.whole``.

    Raises:
        UserError: packages missing; a network that cannot be traced. OutputError: a cache that cannot be written.
    """
    made_by = f"{_FORMAT} {__version__} {OPSET} {torch.__version__} {installed('onnxscript')} {installed('onnx')}"
    name = hashlib.blake2b(f"{made_by} {identity(trunk)}".encode(), digest_size=12).hexdigest()
    path = folder() / f"{name}.onnx"
    if not path.is_file():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda target: _export(trunk, target))
    return path


def _export(trunk: Trunk, path: Path) -> None:
    trunk = copy.deepcopy(trunk).cpu().float().eval().to(memory_format=torch.contiguous_format)
    fix_padding(trunk)
    multiple = trunk.multiple
    height, width = (multiple * torch.export.Dim(name, min=2, max=8192) for name in ("rows", "columns"))
    shapes = {0: torch.export.Dim.DYNAMIC, 2: height, 3: width}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            example = torch.zeros(2, 3, 6 * multiple, 8 * multiple)
            program = torch.export.export(_Everything(trunk), (example,), dynamic_shapes=(shapes,))
    except Exception as error:  # every kind of network has its own way to be untraceable
        raise UserError(f"{trunk.name}: cannot be exported for an engine ({type(error).__name__})") from None
    save_onnx(program, path, ["x"], [*trunk.features, *trunk.whole])


class _Everything(nn.Module):
    """`Trunk.everything` as a module."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.trunk.everything(x)


def save_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    inputs: list[str],
    outputs: list[str],
    about: dict[str, str] | None = None,
) -> None:
    """Write a traced program as ONNX of `OPSET`, with ``about`` as its metadata.

    Raises:
        UserError: packages missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError:
        raise UserError("ONNX needs more packages: pip install 'dkpnet_ext[export]'") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported: Any = torch.onnx.export(
            program, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert exported is not None
    converted = exported.model_proto
    assert [entry.version for entry in converted.opset_import if entry.domain == ""] == [OPSET]
    onnx.helper.set_model_props(converted, about or {})
    onnx.checker.check_model(converted)
    onnx.save(converted, path)


def fix_padding(module: nn.Module) -> None:
    """Replace TensorFlow-like convolutions, which work out their padding from the image's size, by plain ones.

    Sizes are multiples of the backbone's stride here, so the padding is always the same; left symbolic, it makes
    expressions that grow with every layer, and tracing takes minutes.
    """
    from timm.layers import Conv2dSame

    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            total = [
                max((k - 1) * d + 1 - s, 0)
                for k, d, s in zip(child.kernel_size, child.dilation, child.stride, strict=True)
            ]
            pad = (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)
            child.__class__ = nn.Conv2d  # type: ignore[assignment]  # all it is but for the padding in forward
            setattr(module, name, nn.Sequential(nn.ZeroPad2d(pad), child))
        else:
            fix_padding(child)
