"""Pointwise (1x1) convolution for inference on the CPU, with what a neck does around it, in one pass.

    out = act(conv2d(x, weight, bias) [+ coarse, each value for 2 x 2 pixels])

It has no gradient: where one is wanted, on a GPU, and where the compiled module is missing, plain PyTorch runs. `pointwise` is
for training; beside it this one starts no thread of PyTorch's, which would then wait for the next part at a core's full cost
while ours want that core.

    forward(x, weights, coarse) -> out

x [B, C, H, W] float32 or bfloat16, channels_last. Sums are float32. In bfloat16 the weights are rounded and multiplied by the
processor's dot products where it has them (AVX512_BF16), unless the result is float32. The same bits for any number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import native, reference
from .backend import check_tensor, choose, repeatable, require_kernel
from .depthwise import ACTIVATIONS, DTYPES, autocast, check_convolution, runs_plain
from .inverted_residual import filled, in_pairs

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define(
    "projection(Tensor x, Tensor weight, Tensor bias, Tensor? coarse, int out_channels, str activation, "
    "ScalarType out_dtype, str backend) -> Tensor"
)


class Projection:
    """The weights of a 1x1 convolution, which our loops' form of is made once for each dtype.

    Args:
        weight: [D, C, 1, 1]; bias: [D] or None.
        activation: "none", "relu" or "relu6".
        dtype: of the result, by default x's.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or names that do not fit.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, activation: str = "none", dtype: torch.dtype | None = None
    ) -> None:
        if weight.dim() != 4 or weight.shape[2:] != (1, 1):
            raise ValueError(f"projection: needs a weight [D, C, 1, 1], got {list(weight.shape)}")
        self.weight, self.bias = weight, check_convolution("projection", weight, weight, bias, activation)
        self.activation, self.dtype = activation, dtype
        self._packed: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self.calls: dict[tuple, _Call] = {}  # by shapes and dtypes of features that they were checked for

    def __getstate__(self) -> dict[str, Any]:
        """For copies, also in other processes: the calls have addresses of this one's tensors."""
        return self.__dict__ | {"calls": {}}

    def packed(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight and bias for features of a dtype, as csrc/math/projection.h describes them. They are not expected to
        change after the first call."""
        if dtype not in self._packed:
            unit = native.module.PROJECTION_UNIT
            rows = filled(self.weight.detach().float().flatten(1).t(), 1, unit)
            narrow = dtype == torch.bfloat16 and self.dtype in (None, dtype)
            pairs = narrow and rows.shape[0] % 2 == 0 and native.module.BF16_DOT_PRODUCTS
            weight = in_pairs(rows, dtype if narrow else torch.float32, pairs)
            self._packed[dtype] = weight, filled(self.bias.detach().float(), 0, unit)
        return self._packed[dtype]


def projection(x: Tensor, weights: Projection, coarse: Tensor | None = None) -> Tensor:
    """act(conv2d(x, weight, bias) [+ coarse, each value for 2 x 2 pixels])

    Differentiable in plain PyTorch, which runs where a gradient is wanted. The features' dtype decides (under autocast,
    autocast's).

    Args:
        x: [B, C, H, W]; channels_last runs as it is, another layout is copied to it. The compiled loops take float32 and
            bfloat16.
        coarse: [B, D, H / 2, W / 2] of the result's dtype, or None.

    Returns:
        [B, D, H, W] of the weights' ``dtype`` or x's, channels_last where the compiled loops ran.

    Raises:
        ValueError, TypeError: shapes, devices or dtypes that do not fit.
    """
    x = autocast(x)
    setting = (x.shape, x.stride(), x.dtype, x.device, None if coarse is None else (coarse.shape, coarse.dtype))
    call = weights.calls.get(setting) if repeatable(x) else None
    if call is not None:
        return call(x, coarse)
    if x.dim() != 4 or x.shape[1] != weights.weight.shape[1]:
        raise ValueError(f"projection: needs x [B, {weights.weight.shape[1]}, H, W], got {list(x.shape)}")
    if not x.is_floating_point() or weights.weight.device != x.device:
        raise TypeError(f"projection: x is {x.dtype} on {x.device}, the weights are on {weights.weight.device}")
    dtype = weights.dtype or x.dtype
    if coarse is not None:
        _check_coarse(x, coarse, weights.weight.shape[0], dtype)
    tensors = (x, weights.weight, weights.bias, *([] if coarse is None else [coarse]))
    plain = runs_plain(x) or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
    backend = "reference" if plain else choose("projection", "cpu", x.dtype, _limit(x, dtype))
    if backend == "reference":
        return reference.projection(x, weights.weight, weights.bias, weights.activation, coarse, dtype)
    arguments = *weights.packed(x.dtype), coarse, weights.weight.shape[0], weights.activation, dtype
    if repeatable(x) and x.numel() and x.is_contiguous(memory_format=torch.channels_last):
        if len(weights.calls) >= native.CALLS:
            weights.calls.clear()
        weights.calls[setting] = _Call(x, *arguments)
    return torch.ops.dkpnet.projection.default(x, *arguments, backend)


def _limit(x: Tensor, out_dtype: torch.dtype):
    """Why a backend cannot take these arguments."""

    def limit(backend: str) -> str | None:
        if backend != "cpp":
            return "there is no such form of it"
        if x.dtype not in DTYPES or out_dtype not in (x.dtype, torch.float32):
            return f"its loops take float32 and bfloat16 to the same or float32, not {x.dtype} to {out_dtype}"
        return None

    return limit


def _check_coarse(x: Tensor, coarse: Tensor, channels: int, dtype: torch.dtype) -> None:
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"projection: x [B, C, H, W] with coarse has even sides, got {list(x.shape)}")
    shape = (x.shape[0], channels, x.shape[2] // 2, x.shape[3] // 2)
    check_tensor("projection", "coarse", coarse, shape, dtype, x.device)


def _new(x: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    shape = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


class _Call:
    """The compiled loops on features of one shape, channels_last, as in inverted_residual.py."""

    def __init__(
        self, x: Tensor, weight: Tensor, bias: Tensor, coarse: Tensor | None, out_channels: int, activation: str,
        out_dtype: torch.dtype,
    ) -> None:  # fmt: skip
        name, unit = "projection", native.module.PROJECTION_UNIT
        if x.dim() != 4 or out_channels < 1:
            raise ValueError(f"{name}: needs x [B, C, H, W] and a result, got {list(x.shape)} to {out_channels}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"{name}: unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        channels, width = x.shape[1], -(-out_channels // unit) * unit
        pairs = weight.dtype == torch.bfloat16
        if pairs and (
            x.dtype != torch.bfloat16 or out_dtype != x.dtype or channels % 2 or not native.module.BF16_DOT_PRODUCTS
        ):
            raise ValueError(
                f"{name}: weights in pairs are for an even number of bfloat16 on a processor with AVX512_BF16"
            )
        shape, dtype = ((channels // 2, width, 2), torch.bfloat16) if pairs else ((channels, width), torch.float32)
        check_tensor(name, "weight", weight, shape, dtype, x.device)
        check_tensor(name, "bias", bias, (width,), torch.float32, x.device)
        if coarse is not None:
            _check_coarse(x, coarse, out_channels, out_dtype)
        self.out_channels, self.out_dtype = out_channels, out_dtype
        self.run = native.Call(
            "projection_forward", dtype=x.dtype, out_dtype=out_dtype, pairs=pairs, batch=x.shape[0], height=x.shape[2],
            width=x.shape[3], in_channels=channels, out_channels=out_channels, activation=ACTIVATIONS.index(activation),
            weight=weight, bias=bias,
        )  # fmt: skip

    def __call__(self, x: Tensor, coarse: Tensor | None) -> Tensor:
        out = _new(x, self.out_channels, self.out_dtype)
        if coarse is not None:
            coarse = coarse.contiguous(memory_format=torch.channels_last)
        self.run(input=x, coarse=coarse, out=out)
        return out


def _forward(x, weight, bias, coarse, out_channels, activation, out_dtype, backend):
    require_kernel(backend, "projection", "cpu", x.dtype, _limit(x, out_dtype))
    call = _Call(x, weight, bias, coarse, out_channels, activation, out_dtype)
    if not x.numel():
        return _new(x, out_channels, out_dtype).zero_()  # of no channels the sum is zero, of no pixels nothing
    return call(x.contiguous(memory_format=torch.channels_last), coarse)


_library.impl("projection", _forward, "CPU")


@torch.library.register_fake("dkpnet::projection", lib=_library)
def _(x, weight, bias, coarse, out_channels, activation, out_dtype, backend):
    return _new(x, out_channels, out_dtype)
