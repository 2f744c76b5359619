"""Inverted residual (Sandler et al., CVPR 2018) for inference on the CPU: three convolutions in one pass over memory.

    out = project(act(depthwise(act(expand(x))))) [+ x]

The expanded array is several times as large as the caches; computed layer by layer, a network's time goes into writing and
reading it. Our loops compute an output row from beginning to end before the next one, so that only a few rows of it exist.
They have no gradient: where one is wanted, on a GPU, and where the compiled module is missing, plain PyTorch runs.

    forward(x, weights, windows, activation, residual) -> out

x [B, C, H, W] float32 or bfloat16, channels_last. Sums are float32; in bfloat16 the products of `expand` and `project` take
both factors rounded, by the processor's dot products where it has them (AVX512_BF16). The same bits for any number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import native, reference
from .backend import check_tensor, choose, repeatable, require_kernel
from .depthwise import ACTIVATIONS, DTYPES, autocast, check_convolution, runs_plain

Sides = tuple[int, int, int, int]  # padding: left, right, top, bottom

_library = torch.library.Library("dkpnet", "FRAGMENT")
_library.define(
    "inverted_residual(Tensor x, Tensor? expand, Tensor? expand_bias, Tensor taps, Tensor taps_bias, Tensor project, "
    "Tensor project_bias, SymInt[] expand_window, SymInt[] window, int out_channels, str activation, bool residual, "
    "str backend, Tensor? table=None) -> Tensor"
)


class _Packed(NamedTuple):
    """Weights as csrc/math/inverted_residual.h describes them."""

    expand: Tensor | None
    expand_bias: Tensor | None
    taps: Tensor
    taps_bias: Tensor
    project: Tensor
    project_bias: Tensor


class InvertedResidual:
    """The weights of an inverted residual, which our loops' form of is made once for each dtype.

    Args:
        expand: weight [D, C, k, k] and bias [D] of a dense convolution, or None, where D is C; usually k = 1. Of a larger
            kernel it is the network's first convolution, of few channels.
        depthwise: weight [D, 1, k, k], k = 3 or 5, and bias [D].
        project: weight [E, D, 1, 1] and bias [E].
        expand_stride, stride: of `expand` and of `depthwise` (1 or 2).
        activation: after `expand` and after `depthwise`: "none", "relu" or "relu6".
        residual: x is added to the result.
        table: what the values of an image of bytes stand for, float32 [C, 256], where `expand` is the network's first
            convolution.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or names that do not fit.
    """

    def __init__(
        self,
        expand: tuple[Tensor, Tensor | None] | None,
        depthwise: tuple[Tensor, Tensor | None],
        project: tuple[Tensor, Tensor | None],
        *,
        expand_stride: int = 1,
        stride: int = 1,
        activation: str = "relu6",
        residual: bool = False,
        table: Tensor | None = None,
    ) -> None:
        width = depthwise[0].shape[0]
        for name, wanted, (weight, _) in (("depthwise", (width, 1), depthwise), ("project", (None, width), project)):
            if weight.dim() != 4 or weight.shape[2] != weight.shape[3] or weight.shape[1] != wanted[1]:
                raise ValueError(
                    f"inverted_residual: weight of {name} is {list(weight.shape)}, which does not fit {width}"
                )
        if expand is not None and (expand[0].dim() != 4 or expand[0].shape[0] != width):
            raise ValueError(
                f"inverted_residual: expand must give {width} channels, got weight {list(expand[0].shape)}"
            )
        if project[0].shape[2] != 1:
            raise ValueError(f"inverted_residual: project has a kernel of 1, got {project[0].shape[2]}")
        if table is not None and (expand is None or table.shape != (expand[0].shape[1], 256)):
            raise ValueError(f"inverted_residual: table is for expand's channels, [C, 256], got {list(table.shape)}")
        if min(expand_stride, stride) < 1:
            raise ValueError(f"inverted_residual: strides are at least 1, got {expand_stride} and {stride}")

        def checked(pair: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
            return pair[0], check_convolution("inverted_residual", depthwise[0], *pair, activation)

        self.expand = None if expand is None else checked(expand)
        self.depthwise, self.project = checked(depthwise), checked(project)
        self.expand_stride, self.stride = expand_stride, stride
        self.activation, self.residual, self.table = activation, residual, table
        self._packed: dict[torch.dtype, _Packed] = {}
        self._tables: dict[torch.dtype, Tensor] = {}
        self.calls: dict[tuple, _Call] = {}  # by shape, layout and padding of features that they were checked for

    def __getstate__(self) -> dict[str, Any]:
        """For copies, also in other processes: the calls have addresses of this one's tensors."""
        return self.__dict__ | {"calls": {}}

    @property
    def in_channels(self) -> int:
        """C"""
        return self.depthwise[0].shape[0] if self.expand is None else self.expand[0].shape[1]

    def tensors(self) -> list[Tensor]:
        """All weights and biases."""
        return [t for pair in (self.expand, self.depthwise, self.project) if pair is not None for t in pair]

    def packed(self, dtype: torch.dtype) -> _Packed:
        """The weights for features of a dtype. They are not expected to change after the first call."""
        if dtype not in self._packed:
            self._packed[dtype] = self._pack(dtype)
        return self._packed[dtype]

    def packed_table(self, dtype: torch.dtype) -> Tensor:
        """The table for features of a dtype."""
        if dtype not in self._tables:
            assert self.table is not None
            self._tables[dtype] = self.table.to(dtype)
        return self._tables[dtype]

    def _pack(self, dtype: torch.dtype) -> _Packed:
        unit, out_unit = native.module.INVERTED_RESIDUAL_UNITS
        (taps, taps_bias), (project, project_bias) = self.depthwise, self.project
        # A pixel's values are read two at a time.
        pairs = dtype == torch.bfloat16 and native.module.BF16_DOT_PRODUCTS
        pairs = pairs and (self.expand is None or self.expand_stride * self.in_channels % 2 == 0)
        expand = expand_bias = None
        if self.expand is not None:
            weight = self.expand[0].detach().float()
            rows = weight.permute(2, 3, 1, 0).flatten(1, 2)  # [k, k C, D]
            expand = filled(in_pairs(filled(rows, -1, unit), dtype, pairs), 0, 1)
            expand_bias = filled(self.expand[1].detach().float(), 0, unit)
        rows = filled(filled(project.detach().float().flatten(1).t(), 0, unit), 1, out_unit)
        return _Packed(
            expand, expand_bias, filled(taps.detach().float().flatten(1).t(), 1, unit),
            filled(taps_bias.detach().float(), 0, unit), in_pairs(rows, dtype, pairs),
            filled(project_bias.detach().float(), 0, out_unit),
        )  # fmt: skip


def filled(x: Tensor, dim: int, unit: int) -> Tensor:
    """x with zeros at the end of ``dim``, up to a multiple of ``unit``; contiguous."""
    sides = [0, 0] * (x.dim() - 1 - dim % x.dim()) + [0, -x.shape[dim] % unit]
    return F.pad(x, sides).contiguous()


def in_pairs(rows: Tensor, dtype: torch.dtype, pairs: bool) -> Tensor:
    """[.., k, n] -> [.., ceil(k / 2), n, 2] in bfloat16, or as it is: in float32, rounded to the dtype."""
    if not pairs:
        return rows.to(dtype).float()
    rows = filled(rows, -2, 2).to(dtype)
    return rows.unflatten(-2, (-1, 2)).transpose(-1, -2).contiguous()


def inverted_residual(
    x: Tensor, weights: InvertedResidual, padding: int | Sides = 0, expand_padding: int | Sides = 0
) -> Tensor:
    """project(act(depthwise(act(expand(x))))) [+ x]

    Differentiable in plain PyTorch, which runs where a gradient is wanted. The features' dtype decides (under autocast,
    autocast's).

    Args:
        x: [B, C, H, W]; channels_last runs as it is, another layout is copied to it. The compiled loops take float32 and
            bfloat16; with a ``table`` also uint8, in both layouts.
        padding: zeros around the depthwise convolution's input, for all sides or (left, right, top, bottom), left and top
            less than its kernel; expand_padding: the same of `expand`.

    Returns:
        [B, E, H', W'] in x's dtype, channels_last where the compiled loops ran.

    Raises:
        ValueError, TypeError: shapes, devices, dtypes or names that do not fit.
    """
    dtype = autocast(x.new_empty(0, dtype=torch.float32)).dtype if x.dtype == torch.uint8 else None
    x = x if dtype else autocast(x)
    setting = (x.shape, x.stride(), x.dtype, dtype, x.device, padding, expand_padding)
    call = weights.calls.get(setting) if repeatable(x) else None
    if call is not None:
        return call(x)
    sides, expand_sides = ((p,) * 4 if isinstance(p, int) else p for p in (padding, expand_padding))
    tensors = weights.tensors()
    if x.dim() != 4 or x.shape[1] != weights.in_channels:
        raise ValueError(f"inverted_residual: needs x [B, {weights.in_channels}, H, W], got {list(x.shape)}")
    if not (x.is_floating_point() or (dtype and weights.table is not None)) or any(
        t.device != x.device for t in tensors
    ):
        raise TypeError(f"inverted_residual: x is {x.dtype} on {x.device}, the weights are on {tensors[0].device}")
    expand_kernel = 0 if weights.expand is None else weights.expand[0].shape[2]
    expand_window = [] if weights.expand is None else [expand_kernel, weights.expand_stride, *expand_sides]
    window = [weights.depthwise[0].shape[2], weights.stride, *sides]
    size = _size(_size(tuple(x.shape[2:]), expand_window), window)
    if weights.residual and (*size, weights.project[0].shape[0]) != (*x.shape[2:], x.shape[1]):
        raise ValueError("inverted_residual: x cannot be added to a result of another shape")
    plain = runs_plain(x) or (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *tensors)))
    table = None if dtype is None else weights.packed_table(dtype)
    backend = (
        "reference" if plain else choose("inverted_residual", "cpu", dtype or x.dtype, _limit(dtype or x.dtype, window))
    )
    if backend == "reference":
        x = x if table is None else reference.looked_up(x, table)
        return reference.inverted_residual(
            x, weights.expand, weights.depthwise, weights.project, (weights.expand_stride, expand_sides),
            (weights.stride, sides), weights.activation, weights.residual,
        )  # fmt: skip
    arguments = expand_window, window, weights.project[0].shape[0], weights.activation, weights.residual
    if repeatable(x) and _as_it_is(x, expand_window, weights.residual) is x and x.numel():
        if len(weights.calls) >= native.CALLS:
            weights.calls.clear()
        weights.calls[setting] = _Call(x, weights.packed(dtype or x.dtype), *arguments, table)
    return torch.ops.dkpnet.inverted_residual.default(x, *weights.packed(dtype or x.dtype), *arguments, backend, table)


def _limit(dtype: torch.dtype, window: list[int]):
    """Why a backend cannot take these arguments."""

    def limit(backend: str) -> str | None:
        if backend != "cpp":
            return "there is no such form of it"
        if dtype not in DTYPES:
            return f"its loops take float32 and bfloat16, not {dtype}"
        if window[0] not in (3, 5) or window[1] not in (1, 2):
            return f"its loops take depthwise kernels of 3 and 5 at strides 1 and 2, not {window[0]} at {window[1]}"
        return None

    return limit


def _size(size: tuple[int, ...], window: list[int]) -> tuple[int, ...]:
    """Height and width after a convolution, of the window [kernel, stride, left, right, top, bottom] or []."""
    if not window:
        return size
    kernel, stride, left, right, top, bottom = window
    if stride < 1 or not (0 <= left < kernel and 0 <= top < kernel) or right < 0 or bottom < 0:
        raise ValueError(
            f"inverted_residual: padding (left, right, top, bottom) is 0 to {kernel - 1} at the left and top, got {window[2:]}"
        )
    height, width = size[0] + top + bottom, size[1] + left + right
    if height < kernel or width < kernel:
        raise ValueError(
            f"inverted_residual: {list(size)} with padding {window[2:]} is smaller than the kernel, {kernel}"
        )
    return (height - kernel) // stride + 1, (width - kernel) // stride + 1


def _out_shape(x: Tensor, expand_window: list[int], window: list[int], channels: int) -> tuple[int, ...]:
    return (x.shape[0], channels, *_size(_size(tuple(x.shape[2:]), expand_window), window))


def _new(x: Tensor, shape: tuple[int, ...], table: Tensor | None) -> Tensor:
    dtype = x.dtype if table is None else table.dtype
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def _planar(x: Tensor, expand_window: list[int], residual: bool) -> bool:
    """Whether an image's planes are read as they lie: to interleave those of 1024 x 768 pixels takes 2 ms."""
    return bool(expand_window) and x.shape[1] <= 4 and x.is_contiguous() and not residual


def _as_it_is(x: Tensor, expand_window: list[int], residual: bool) -> Tensor:
    """x, or a copy in a layout that the loops read."""
    return x if x.dim() != 4 or _planar(x, expand_window, residual) else x.contiguous(memory_format=torch.channels_last)


def _check_packed(
    x: Tensor,
    dtype: torch.dtype,
    packed: _Packed,
    expand_window: list[int],
    window: list[int],
    out_channels: int,
    activation: str,
) -> bool:
    """Raises what does not fit in the raw operator's arguments; returns whether the weights are pairs."""
    unit, out_unit = native.module.INVERTED_RESIDUAL_UNITS
    name = "inverted_residual"
    if x.dim() != 4 or not all(len(w) in allowed for w, allowed in ((expand_window, (0, 6)), (window, (6,)))):
        raise ValueError(f"{name}: needs x [B, C, H, W] and windows of 6 numbers, got {list(x.shape)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name}: unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
    if (packed.expand is None) is not (not expand_window) or (packed.expand is None) is not (
        packed.expand_bias is None
    ):
        raise ValueError(f"{name}: weight, bias and window of expand are given together")
    pairs = packed.project.dtype == torch.bfloat16
    if pairs and (dtype != torch.bfloat16 or not native.module.BF16_DOT_PRODUCTS):
        raise ValueError(f"{name}: weights in pairs are for bfloat16 on a processor with AVX512_BF16")
    words, pair, packed_dtype = (2, (2,), torch.bfloat16) if pairs else (1, (), torch.float32)
    channels, width = packed.taps.shape[-1], -(-out_channels // out_unit) * out_unit
    in_channels, plain, place = x.shape[1], torch.float32, x.device
    if channels % unit or out_channels < 1:
        raise ValueError(f"{name}: {channels} channels are no multiple of {unit}, or {out_channels} results are none")
    if packed.expand is not None and packed.expand_bias is not None:
        kernel, stride = expand_window[:2]
        if pairs and stride * in_channels % 2:
            raise ValueError(f"{name}: pairs need an even number of values from pixel to pixel")
        shape = (kernel, -(-kernel * in_channels // words), channels, *pair)
        check_tensor(name, "expand", packed.expand, shape, packed_dtype, place)
        check_tensor(name, "expand_bias", packed.expand_bias, (channels,), plain, place)
    elif not channels - unit < in_channels <= channels:
        raise ValueError(f"{name}: x has {in_channels} channels, the depthwise convolution {channels}")
    check_tensor(name, "taps", packed.taps, (window[0] ** 2, channels), plain, place)
    check_tensor(name, "taps_bias", packed.taps_bias, (channels,), plain, place)
    check_tensor(name, "project", packed.project, (channels // words, width, *pair), packed_dtype, place)
    check_tensor(name, "project_bias", packed.project_bias, (width,), plain, place)
    return pairs


class _Call:
    """The compiled loops on features of one shape and layout: all that is known without their values."""

    def __init__(
        self,
        x: Tensor,
        packed: _Packed,
        expand_window: list[int],
        window: list[int],
        out_channels: int,
        activation: str,
        residual: bool,
        table: Tensor | None,
    ) -> None:
        dtype = x.dtype if table is None else table.dtype
        pairs = _check_packed(x, dtype, packed, expand_window, window, out_channels, activation)
        if (table is None) is (x.dtype == torch.uint8) or (table is not None and (residual or packed.expand is None)):
            raise ValueError("inverted_residual: a table is for an image of uint8, with expand and without residual")
        if table is not None:
            check_tensor("inverted_residual", "table", table, (x.shape[1], 256), dtype, x.device)
            table = (table if pairs else table.float()).contiguous()
        self.shape = _out_shape(x, expand_window, window, out_channels)
        if residual and self.shape != tuple(x.shape):
            raise ValueError("inverted_residual: x cannot be added to a result of another shape")
        height, width = _size(tuple(x.shape[2:]), expand_window)
        sizes = {
            "dtype": dtype, "pairs": pairs, "planar": _planar(x, expand_window, residual), "residual": residual,
            "batch": x.shape[0], "height": x.shape[2], "width": x.shape[3], "in_channels": x.shape[1], "mid_height": height,
            "mid_width": width, "channels": packed.taps.shape[1], "out_height": self.shape[2], "out_width": self.shape[3],
            "out_channels": out_channels, "activation": ACTIVATIONS.index(activation),
            **_window("expand_", expand_window or [0, 1] + [0] * 4), **_window("", window),
        }  # fmt: skip
        size = torch.empty(1, dtype=torch.int64, device="cpu")
        native.run("inverted_residual_scratch", x, **sizes, size=size)
        self.scratch, self.dtype = int(size), dtype
        self.run = native.Call(
            "inverted_residual_forward", **sizes, expand_weight=packed.expand, expand_bias=packed.expand_bias,
            taps=packed.taps, taps_bias=packed.taps_bias, project_weight=packed.project, project_bias=packed.project_bias,
            table=table,
        )  # fmt: skip

    def __call__(self, x: Tensor) -> Tensor:
        out = torch.empty(self.shape, dtype=self.dtype, device="cpu", memory_format=torch.channels_last)
        scratch = torch.empty((torch.get_num_threads(), self.scratch), dtype=torch.float32, device="cpu")
        self.run(input=x, out=out, scratch=scratch)
        return out


def _forward(
    x, expand, expand_bias, taps, taps_bias, project, project_bias, expand_window, window, out_channels, activation,
    residual, backend, table=None,
):  # fmt: skip
    dtype = x.dtype if table is None else table.dtype
    require_kernel(backend, "inverted_residual", "cpu", dtype, _limit(dtype, window))
    packed = _Packed(expand, expand_bias, taps, taps_bias, project, project_bias)
    x = _as_it_is(x, expand_window, residual)
    call = _Call(x, packed, expand_window, window, out_channels, activation, residual, table)
    return call(x) if x.numel() else _new(x, call.shape, table)


def _window(prefix: str, window: list[int]) -> dict[str, int]:
    kernel, stride, left, _, top, _ = window
    return {f"{prefix}kernel": kernel, f"{prefix}stride": stride, f"{prefix}left": left, f"{prefix}top": top}


_library.impl("inverted_residual", _forward, "CPU")


@torch.library.register_fake("dkpnet::inverted_residual", lib=_library)
def _(x, expand, expand_bias, taps, taps_bias, project, project_bias, expand_window, window, out_channels,
      _activation, _residual, _backend, table=None):  # fmt: skip
    return _new(x, _out_shape(x, expand_window, window, out_channels), table)
