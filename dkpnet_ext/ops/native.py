"""The compiled module `_dkpnet_ext`: loaded if it is there, with a reason where it is not.

`module` is the module or None; `missing` says why there is no compiled CPU code, `cuda_missing` why there are no
compiled CUDA kernels (None: they are there). The module does not depend on torch: it takes addresses and sizes (`run`).
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._version import __version__

# Numbers of dkpnet::DType (csrc/math/common.h).
DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


def source_fingerprint() -> str | None:
    """Digest of csrc/ and python/ beside the package, as CMakeLists.txt computes it; None where there are no sources."""
    root = Path(__file__).resolve().parents[2]
    suffixes = {".h", ".cpp", ".cu", ".cuh"}
    paths = sorted(
        path.relative_to(root).as_posix()
        for folder in ("csrc", "python")
        for path in (root / folder).rglob("*")
        if path.suffix in suffixes
    )
    if not paths:
        return None
    lines = (f"{path} {hashlib.sha256((root / path).read_bytes()).hexdigest()}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _load() -> tuple[ModuleType | None, str | None, str | None]:
    try:
        import _dkpnet_ext as loaded
    except ImportError as error:
        reason = f"the compiled module cannot be imported ({error}); install dkpnet_ext where a C++17 compiler is found"
        _warn(reason)
        return None, reason, reason
    if loaded.__version__ != __version__:
        reason = (
            f"the compiled module is of version {loaded.__version__}, the package of {__version__}: install it again"
        )
        _warn(reason)
        return None, reason, reason
    if source_fingerprint() not in (None, loaded.build_info["fingerprint"]):
        _warn("csrc/ has changed since the compiled module was built: install it again")
    cuda_missing = loaded.build_info["cuda_missing"] or None
    # Without a GPU the CUDA kernels are not needed; that building them failed is said all the same.
    if cuda_missing and ("failed" in cuda_missing or torch.cuda.is_available()):
        _warn(f"there are no compiled CUDA kernels: {cuda_missing}")
    return loaded, None, cuda_missing


def _warn(reason: str) -> None:
    """pip hides what a build leaves out, so the first import says it; `python -m dkpnet_ext.info` has it as well."""
    warnings.warn(f"dkpnet_ext: {reason}", stacklevel=4)


module: Any  # None where it is missing; every caller has asked `missing` before
module, missing, cuda_missing = _load()


def cuda_refusal(index: int | None) -> str | None:
    """Why the compiled kernels do not run on GPU ``index`` (None: the current one); None if they do."""
    if cuda_missing:
        return cuda_missing
    if not torch.cuda.is_available():
        return "no usable GPU"
    return _probe(torch.cuda.current_device() if index is None else index)


cuda_refusal._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch.compiler.assume_constant_result


@functools.cache
def _probe(index: int) -> str | None:
    """Asked once per device: that there are kernels does not mean that they are for this GPU and driver."""
    with torch.cuda.device(index):
        error = module.cuda_probe()
    if not error:
        return None
    name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    built = module.build_info["cuda_archs"]
    return f"its kernels do not run on cuda:{index}, {name}, sm_{major}{minor} ({error}); they are built for {built}"


def run(function: str, where: Tensor, **arguments: Any) -> None:
    """Run a function of the compiled module on the device of ``where``.

    Args:
        arguments: the members of the function's struct in csrc/math/<stem>.h. Tensors (dense, on that device) are passed
            by address, None as null, a dtype as its number.
    """
    plain = {name: _plain(value) for name, value in arguments.items()}
    if where.is_cuda:
        with torch.cuda.device_of(where):  # PyTorch's guard makes no context on a GPU that is not in use
            getattr(module, function)(**plain, stream=torch.cuda.current_stream().cuda_stream)
    else:
        getattr(module, function)(**plain, threads=torch.get_num_threads())


CALLS = 64  # that an operator keeps ready, for as many shapes


class Call:
    """A function of the compiled module on the CPU, all arguments of which are given but some tensors.

    For operators that run often on the same shapes: to check and pass on thirty arguments takes 0.15 ms, as much as a small
    layer of a network.
    """

    def __init__(self, function: str, **arguments: Any) -> None:
        self.function = getattr(module, function)
        self.plain = {name: _plain(value) for name, value in arguments.items()}
        self.kept = [value for value in arguments.values() if isinstance(value, Tensor)]

    def __call__(self, **tensors: Tensor | None) -> None:
        addresses = {name: 0 if t is None else t.data_ptr() for name, t in tensors.items()}
        self.function(**self.plain, **addresses, threads=torch.get_num_threads())


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data_ptr()
    if isinstance(value, torch.dtype):
        return DTYPES[value]
    return 0 if value is None else value
