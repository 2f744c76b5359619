"""Depthwise convolution on the CPU, with its activation: oneDNN forward, our loops over channels_last rows backward.

oneDNN's forward pass is good and takes the activation along; its backward pass is not: 5 to 10 times the time that the
arithmetic takes at kernel 5 or stride 2. Our loops also run forward where torch has no oneDNN for the dtype. On a GPU
cuDNN does this well, so there is no GPU form: there, and where the compiled module is missing, plain PyTorch runs.

    forward(x, weight, bias, stride, padding, activation) -> out
    backward(grad, x, out, weight, stride, padding, activation) -> (dx, dweight, dbias)

x [B, C, H, W] float32 or bfloat16, channels_last; weight [C, 1, k, k] and bias [C] float32, which the arithmetic is done in.
The activation's mask is read off the saved output; the gradients of weight and bias are sums over each row, then over the
rows of an image, then over the images: the same bits every run, for any number of threads.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from . import native, reference
from .backend import choose, forbid_double_backward, forced, register_autograd, require_kernel

ACTIVATIONS = ("none", "relu", "relu6")  # the order of dkpnet::Activation
DTYPES = (torch.float32, torch.bfloat16)  # of the features, in the compiled loops

_library = torch.library.Library("dkpnet", "FRAGMENT")
_SIZES = "int stride, SymInt left, SymInt right, SymInt top, SymInt bottom, str activation, str backend"
_library.define(f"depthwise(Tensor x, Tensor weight, Tensor bias, {_SIZES}) -> Tensor")
_library.define(
    "depthwise_backward(Tensor grad, Tensor x, Tensor out, Tensor weight, bool need_input, bool need_parameters, "
    f"{_SIZES}) -> (Tensor, Tensor, Tensor)"
)


def depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | tuple[int, int, int, int] = 0,
    activation: str = "none",
) -> Tensor:
    """act(conv2d(pad(x), weight, bias, stride, groups=C)): every channel is filtered alone.

    Differentiable with respect to x, weight and bias, once; twice under ``use_backend("reference")``. The features' dtype
    decides (under autocast, autocast's); oneDNN takes a float32 weight rounded to it, our loops take it as it is.
    oneDNN's activations make a NaN 0, as under torch.compile.

    Args:
        x: [B, C, H, W]; channels_last runs as it is, another layout is copied to it. The compiled loops take float32 and
            bfloat16.
        weight: [C, 1, k, k]; the compiled loops take k = 3 and 5.
        bias: [C] or None.
        stride: of both sides; the compiled loops take 1 and 2.
        padding: zeros around x, one number for all sides or (left, right, top, bottom), each less than k.
        activation: "none", "relu" or "relu6".

    Returns:
        [B, C, H', W'] in x's dtype, channels_last where the compiled loops ran; H' = (H + top + bottom - k) // stride + 1.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or names that do not fit.
    """
    x = autocast(x)
    sides = (padding,) * 4 if isinstance(padding, int) else padding
    _check(x, weight, stride, sides)
    bias = check_convolution("depthwise", x, weight, bias, activation)
    limit = _limit(x, weight, stride)
    backend = "reference" if runs_plain(x, bias, weight) else choose("depthwise", "cpu", x.dtype, limit)
    if backend == "reference":
        return reference.depthwise(x, weight, bias, stride, sides, activation)
    weight, bias = weight.float(), bias.float()
    return torch.ops.dkpnet.depthwise.default(x, weight, bias, stride, *sides, activation, backend)


def autocast(x: Tensor) -> Tensor:
    """x as autocast wants a convolution's input: PyTorch leaves float64 and integers as they are."""
    device, narrow = x.device.type, x.is_floating_point() and x.dtype != torch.float64
    return x.to(torch.get_autocast_dtype(device)) if narrow and torch.is_autocast_enabled(device) else x


def runs_plain(*tensors: Tensor) -> bool:
    """Whether plain PyTorch is the right choice, without a warning: on every device but the CPU, unless it is forced."""
    return not forced() and any(t.device.type != "cpu" for t in tensors)


def check_convolution(op: str, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """Raises what does not fit a convolution of any kernel; returns the bias."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"{op}: unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"{op}: bias must be [{weight.shape[0]}], got {list(bias.shape)}")
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        if not tensor.is_floating_point():
            raise TypeError(f"{op}: {name} must be floating point, got {tensor.dtype}")
        if tensor.device != x.device:
            raise ValueError(f"{op}: {name} is on {tensor.device}, x on {x.device}")
    return bias


def _check(x: Tensor, weight: Tensor, stride: int, padding: tuple[int, ...]) -> None:
    if x.dim() != 4 or weight.dim() != 4 or weight.shape[:2] != (x.shape[1], 1) or weight.shape[2] != weight.shape[3]:
        raise ValueError(
            f"depthwise: needs x [B, C, H, W] and weight [C, 1, k, k], got {list(x.shape)} and {list(weight.shape)}"
        )
    kernel = weight.shape[2]
    if stride < 1 or len(padding) != 4 or not all(0 <= p < kernel for p in padding):
        raise ValueError(
            f"depthwise: needs a stride of at least 1 and padding (left, right, top, bottom) from 0 to {kernel - 1}, got "
            f"{stride} and {padding}"
        )
    left, right, top, bottom = padding
    if x.shape[2] + top + bottom < kernel or x.shape[3] + left + right < kernel:
        raise ValueError(f"depthwise: x {list(x.shape)} with padding {padding} is smaller than the kernel, {kernel}")


def _limit(x: Tensor, weight: Tensor, stride: int):
    """Why a backend cannot take these arguments."""
    kernel = weight.shape[2]

    def limit(backend: str) -> str | None:
        if backend != "cpp":
            return "there is no such form of it: cuDNN does this well"
        if x.dtype not in DTYPES:
            return f"its loops take float32 and bfloat16, not {x.dtype}"
        if kernel not in (3, 5) or stride not in (1, 2):
            return f"its loops take kernels of 3 and 5 at strides 1 and 2, not {kernel} at {stride}"
        return None

    return limit


def _out_size(x: Tensor, kernel: int, stride: int, left: int, right: int, top: int, bottom: int) -> tuple[int, int]:
    return (x.shape[2] + top + bottom - kernel) // stride + 1, (x.shape[3] + left + right - kernel) // stride + 1


def _out(x: Tensor, weight: Tensor, stride: int, *padding: int) -> Tensor:
    size = _out_size(x, weight.shape[2], stride, *padding)
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _shape(x: Tensor, out: Tensor, kernel: int, stride: int, left: int, top: int, activation: str) -> dict[str, Any]:
    return {
        "dtype": x.dtype, "batch": x.shape[0], "channels": x.shape[1], "height": x.shape[2], "width": x.shape[3],
        "out_height": out.shape[2], "out_width": out.shape[3], "kernel": kernel, "stride": stride, "top": top,
        "left": left, "activation": ACTIVATIONS.index(activation),
    }  # fmt: skip


def _scratch(x: Tensor, shape: dict[str, Any]) -> Tensor:
    size = torch.empty(1, dtype=torch.int64, device="cpu")
    native.run("depthwise_scratch", x, **shape, size=size)
    return x.new_empty((torch.get_num_threads(), int(size)), dtype=torch.float32)


def _taps(weight: Tensor) -> Tensor:
    """[C, 1, k, k] -> [k * k, C]"""
    return weight.flatten(1).t().contiguous()


_ATTRIBUTES: dict[str, tuple[str, list[float]]] = {
    "none": ("none", []), "relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0]),
}  # fmt: skip


@functools.cache
def fuses(dtype: torch.dtype) -> bool:
    """Whether this machine's torch can be asked for oneDNN's convolution with an activation."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def fused(x: Tensor, weight: Tensor, bias: Tensor, padding: int, stride: int, groups: int, activation: str) -> Tensor:
    """oneDNN's convolution, which applies the activation as it stores; torch.compile calls it so, too. All in one dtype."""
    name, scalars = _ATTRIBUTES[activation]
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias.contiguous(), [padding] * 2, [stride] * 2, [1, 1], groups, name, scalars, ""
    )


def _forward(x, weight, bias, stride, left, right, top, bottom, activation, backend):
    require_kernel(backend, "depthwise", "cpu", x.dtype, _limit(x, weight, stride))
    x = x.contiguous(memory_format=torch.channels_last)
    if x.numel() and fuses(x.dtype) and (left, right) == (top, bottom) and right - left in (0, 1):
        # oneDNN pads both ends alike. TensorFlow's padding has one more at the far ends: so a kernel with a row and a
        # column of zeros before its own.
        more = right - left
        weight = torch.nn.functional.pad(weight, (more, 0, more, 0)).to(x.dtype)
        out = fused(x, weight, bias.to(x.dtype), right, stride, x.shape[1], activation)
        return out.contiguous(memory_format=torch.channels_last)
    out = _out(x, weight, stride, left, right, top, bottom)
    shape = _shape(x, out, weight.shape[2], stride, left, top, activation)
    native.run(
        "depthwise_forward", x, **shape, input=x, weight=_taps(weight), bias=bias.contiguous(), out=out,
        scratch=_scratch(x, shape),
    )  # fmt: skip
    return out


def _backward(
    grad, x, out, weight, need_input, need_parameters, stride, left, right, top, bottom, activation, backend
):  # fmt: skip
    require_kernel(backend, "depthwise", "cpu", x.dtype, _limit(x, weight, stride))
    grad, x, out = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x, out))
    kernel, channels = weight.shape[2], x.shape[1]
    shape = _shape(x, out, kernel, stride, left, top, activation)
    dx = torch.empty_like(x) if need_input else x.new_empty(0)
    partials = weight.new_empty((x.shape[0], kernel * kernel + 1, channels) if need_parameters else 0)
    native.run(
        "depthwise_backward", x, **shape, input=x, out=out, grad_out=grad, weight=_taps(weight),
        grad_in=dx if need_input else None, partials=partials if need_parameters else None, scratch=_scratch(x, shape),
    )  # fmt: skip
    if not need_parameters:
        return dx, weight.new_empty(0), weight.new_empty(0)
    sums = partials.sum(0)
    return dx, torch.empty_like(weight).copy_(sums[:-1].t().view_as(weight)), sums[-1].clone()


_library.impl("depthwise", _forward, "CPU")
_library.impl("depthwise_backward", _backward, "CPU")


@torch.library.register_fake("dkpnet::depthwise", lib=_library)
def _(x, weight, bias, stride, left, right, top, bottom, activation, backend):
    return _out(x, weight, stride, left, right, top, bottom)


@torch.library.register_fake("dkpnet::depthwise_backward", lib=_library)
def _(grad, x, out, weight, need_input, need_parameters, *_rest):
    dx = torch.empty_like(x, memory_format=torch.channels_last) if need_input else x.new_empty(0)
    if not need_parameters:
        return dx, weight.new_empty(0), weight.new_empty(0)
    return dx, torch.empty_like(weight), weight.new_empty(weight.shape[0])


def _setup(ctx, inputs, output) -> None:
    x, weight, _, *sizes = inputs
    # Without an activation the output is not needed, and what follows may change it in place.
    ctx.save_for_backward(x, None if sizes[-2] == "none" else output, weight)
    ctx.sizes = sizes


def _grad(ctx, grad: Tensor):
    need_input, need_parameters = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:3])
    x, out, weight = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.dkpnet.depthwise_backward.default(
        grad, x, grad if out is None else out, weight, need_input, need_parameters, *ctx.sizes
    )
    parameters = (dweight, dbias) if need_parameters else (None, None)
    return dx if need_input else None, *parameters, *(None,) * 7


register_autograd(_library, "depthwise", _grad, _setup)
forbid_double_backward(_library, "depthwise_backward")
