"""Channel re-weighting, out = x * y: one pass forward, one pass backward for both gradients.

Every backend module (this file's native functions, `ops/triton/reweight.py`) has

    forward(x, attention) -> out
    backward(grad, x, attention) -> (dx, dattention)

with x, grad, out, dx [B, K, H, W] of one dtype and one dense layout: all contiguous or all channels_last (these
functions see to that before they call), attention, dattention [B, K] contiguous and of x's dtype. dattention is
accumulated in float32 (float64 for float64). B, K, H or W may be 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import native, reference
from .backend import choose, forbid_double_backward, forced, register_autograd

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define("reweight(Tensor x, Tensor attention, str backend) -> Tensor")
_library.define("reweight_backward(Tensor grad, Tensor x, Tensor attention, str backend) -> (Tensor, Tensor)")


def reweight(x: Tensor, attention: Tensor) -> Tensor:
    """Multiply every channel of every image by its weight.

    Args:
        x: [B, K, H, W], float32, bfloat16, float16 or float64; contiguous and channels_last run as they are, another
            layout is copied first.
        attention: [B, K], converted to x's dtype.

    Returns:
        [B, K, H, W], dtype and memory format of x.

    Raises:
        ValueError, TypeError: shapes, devices or dtypes that do not fit.
    """
    _check(x, attention)
    attention = attention.to(x.dtype)
    if choose("reweight", x.device.type, x.dtype) == "reference":
        return reference.reweight(x, attention)
    return torch.ops.dkpnet.reweight.default(x, attention, forced())


def _check(x: Tensor, attention: Tensor) -> None:
    if x.dim() != 4 or attention.shape != x.shape[:2]:
        raise ValueError(
            f"reweight: needs x [B, K, H, W] and attention [B, K], got {list(x.shape)} and {list(attention.shape)}"
        )
    if x.device != attention.device:
        raise ValueError(f"reweight: x is on {x.device}, attention on {attention.device}")
    if not (x.is_floating_point() and attention.is_floating_point()):
        raise TypeError(f"reweight: needs floating point tensors, got {x.dtype} and {attention.dtype}")


def _layout(x: Tensor) -> torch.memory_format:
    """The dense layout that x has, or is copied to."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _sizes(x: Tensor, layout: torch.memory_format) -> tuple[int, int, int, bool]:
    return x.shape[0], x.shape[1], x.shape[2] * x.shape[3], layout is torch.channels_last


def _where(x: Tensor) -> tuple[int, ...]:
    """The last arguments of a native call: threads on the CPU, device and stream on CUDA."""
    return native.cuda_stream(x) if x.is_cuda else (torch.get_num_threads(),)


def _forward(x: Tensor, attention: Tensor, backend: str) -> Tensor:
    layout = _layout(x)
    x, attention = x.contiguous(memory_format=layout), attention.contiguous()
    name = choose("reweight", x.device.type, x.dtype, force=backend)
    if name == "triton":
        from .triton import reweight as kernels

        return kernels.forward(x, attention)
    out = torch.empty_like(x)
    run = native.module.reweight_forward_cuda if x.is_cuda else native.module.reweight_forward_cpu
    run(native.DTYPES[x.dtype], x.data_ptr(), attention.data_ptr(), out.data_ptr(), *_sizes(x, layout), *_where(x))
    return out


def _backward(grad: Tensor, x: Tensor, attention: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    layout = _layout(x)
    x, attention = x.contiguous(memory_format=layout), attention.contiguous()
    grad = grad.contiguous(memory_format=layout)
    name = choose("reweight", x.device.type, x.dtype, force=backend)
    if name == "triton":
        from .triton import reweight as kernels

        return kernels.backward(grad, x, attention)
    dx, dattention = torch.empty_like(x), torch.empty_like(attention)
    arrays = [t.data_ptr() for t in (grad, x, attention, dx, dattention)]
    sizes = _sizes(x, layout)
    number = native.DTYPES[x.dtype]
    if x.is_cuda:
        batch, channels, pixels, channels_last = sizes
        partial = batch * channels * native.module.reweight_splits(pixels) if channels_last else 0
        workspace = x.new_empty(partial, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        native.module.reweight_backward_cuda(number, *arrays, workspace.data_ptr(), *sizes, *_where(x))
    else:
        native.module.reweight_backward_cpu(number, *arrays, *sizes, *_where(x))
    return dx, dattention


for _key in ("CPU", "CUDA"):
    _library.impl("reweight", _forward, _key)
    _library.impl("reweight_backward", _backward, _key)


@torch.library.register_fake("dkpnet::reweight", lib=_library)
def _(x: Tensor, attention: Tensor, backend: str) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x))


@torch.library.register_fake("dkpnet::reweight_backward", lib=_library)
def _(grad: Tensor, x: Tensor, attention: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=_layout(x)), attention.new_empty(attention.shape)


def _setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.backend = inputs[2]


def _grad(ctx, grad: Tensor):
    return *torch.ops.dkpnet.reweight_backward.default(grad, *ctx.saved_tensors, ctx.backend), None


register_autograd(_library, "reweight", _grad, _setup)
forbid_double_backward(_library, "reweight_backward")
