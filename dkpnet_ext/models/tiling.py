"""Images of any size in bounded memory: the untiled density map, computed from overlapping tiles.

The attention depends on the features' average over the whole image, so tiles cannot each have their own. Pass one
adds up every tile's share of that average; then the attention is computed once; pass two runs the attended head
on every tile. The features are kept between the passes where they fit `CACHE`, and computed again elsewhere. A tile
is cut out with as much of its surroundings as its own features depend on (`reach`), which are then cut off: the
result is the untiled one up to rounding, and every cell of the map comes from exactly one tile.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .fpn import FPNHead
from .head import AttendedHead
from .network import CounterOutput, Network

LIMIT = 2048 * 2048  # pixels; larger images are tiled
TILE = 1024  # pixels per side, without the overlap
CACHE = 768 << 20  # bytes of features kept between the passes
MAX_REACH = 768  # pixels; a backbone that looks further is cut off here
_reaches: WeakKeyDictionary[Network, int] = WeakKeyDictionary()
_TOLERANCE = 3e-5  # largest difference, relative to a branch's largest value, that still counts as none


class Tile(NamedTuple):
    """One axis of a tile: pixels [start, end) are its own, [first, last) are read."""

    start: int
    end: int
    first: int
    last: int


def split(length: int, overlap: int, multiple: int) -> list[Tile]:
    """Cut [0, length) into tiles of about equal size, at most `TILE` each; all edges are at multiples."""
    count = -(-length // TILE)
    side = -(-length // (count * multiple)) * multiple
    return [
        Tile(start, min(start + side, length), max(start - overlap, 0), min(start + side + overlap, length))
        for start in range(0, length, side)
    ]


@torch.inference_mode()
def reach(model: Network) -> int:
    """How many pixels from the edge of a cut the backbone's features differ from those of the uncut image.

    Measured on noise: a strip with and without its ends. A multiple of the backbone's coarsest reduction.
    """
    (model,) = getattr(model.backbone, "exact", (model,))  # an engine may compute in bfloat16
    multiple = model.multiple
    cut, width = 16 * multiple, 8 * multiple
    length = 2 * (cut + MAX_REACH + multiple)
    drawn: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "device": "cpu"}
    noise = torch.rand(1, 3, length // 8, width // 8, **drawn).repeat_interleave(8, 2).repeat_interleave(8, 3)
    noise = (0.7 * noise + 0.3 * torch.rand(1, 3, length, width, **drawn)).to(model.pixel_mean)
    noise[:, :, :cut] *= 0.5  # an average over the whole strip is then seen to change, too
    # Reduced precision would drown the comparison in rounding.
    with torch.autocast(noise.device.type, enabled=False), torch.backends.cudnn.flags(allow_tf32=False):
        whole, part = model.features(noise)[0], model.features(noise[:, :, cut : length - cut])[0]
    furthest = 0
    for branch, alone, reduction in zip(whole, part, model.backbone.reductions, strict=True):
        inner = branch[:, :, cut // reduction : (length - cut) // reduction]
        error = (inner - alone).abs().amax((0, 1, 3)) / branch.abs().max()
        differs = (error > _TOLERANCE).nonzero().flatten()
        middle = len(error) / 2  # rows above it suffer from the upper end, rows below it from the lower end
        depth = torch.where(differs < middle, differs + 1, len(error) - differs)
        furthest = max(furthest, int(depth.max()) * reduction if len(depth) else 0)
    return -(-furthest // multiple) * multiple


class _Piece(NamedTuple):
    """Features of a tile with a margin of as many coarse cells as the neck looks into."""

    branches: list[Tensor]
    rows: Tile  # here [first, last) is the margin's extent
    columns: Tile


def _pieces(model: Network, image: Tensor, tiles: list[tuple[Tile, Tile]]) -> Iterator[_Piece]:
    margin = model.pooling_head.coarse_cells * model.multiple
    for rows, columns in tiles:
        cut = image[None, :, rows.first : rows.last, columns.first : columns.last].to(model.pixel_mean.device)
        branches, _, _ = model.features(cut)
        kept = [
            axis._replace(first=max(axis.start - margin, axis.first), last=min(axis.end + margin, axis.last))
            for axis in (rows, columns)
        ]
        (top, bottom), (left, right) = (
            (k.first - axis.first, k.last - axis.first) for k, axis in zip(kept, (rows, columns), strict=True)
        )
        yield _Piece(
            [
                # A copy: a view would keep the whole tile in memory.
                b[:, :, top // r : bottom // r, left // r : right // r].clone()
                for b, r in zip(branches, model.backbone.reductions, strict=True)
            ],
            *kept,
        )


def _overlap(model: Network) -> int:
    """The reach; says so where the backbone looks further than is possible."""
    overlap = _reaches.get(model)
    if overlap is None:
        overlap = reach(model)
        if getattr(model, "folded", False):  # for inference: its weights no longer change
            _reaches[model] = overlap
    if overlap >= MAX_REACH:
        warnings.warn(
            f"{model.backbone_name} looks further than {MAX_REACH} px (squeeze-and-excitation or attention over the "
            "whole image?): the density of an image above the tile limit is approximate",
            stacklevel=6,
        )
    return overlap


def _near(model: Network, image: Tensor) -> Tensor:
    """The image on the model's device, if it is small beside `CACHE`: a copy of every tile from the CPU would make a GPU wait."""
    return image.to(model.pixel_mean.device) if image.nbytes <= CACHE // 4 else image


def assemble(model: Network, image: Tensor) -> list[Tensor]:
    """The backbone's features of a whole image, as if untiled, put together from tiles.

    For heads that must see all of them; the features' memory grows with the image, the backbone's own does not.

    Args:
        image: uint8 [3, H, W] on any device; of a large one only tiles go to the model's.

    Returns:
        branches [1, C_j, H_j, W_j] of the padded image.
    """
    multiple, reductions = model.multiple, model.backbone.reductions
    image, overlap = _near(model, image), _overlap(model)
    height, width = (side + -side % multiple for side in image.shape[-2:])
    whole: list[Tensor] = []
    for rows in split(height, overlap, multiple):
        for columns in split(width, overlap, multiple):
            cut = image[None, :, rows.first : rows.last, columns.first : columns.last].to(model.pixel_mean.device)
            branches = model.features(cut)[0]
            if not whole:
                whole = [
                    b.new_empty(1, b.shape[1], height // r, width // r)
                    for b, r in zip(branches, reductions, strict=True)
                ]
            piece = _Piece(branches, rows, columns)
            for target, branch, r in zip(whole, branches, reductions, strict=True):
                target[..., rows.start // r : rows.end // r, columns.start // r : columns.end // r] = _own(
                    branch, piece, r
                )
    return whole


def predict(model: Network, image: Tensor) -> CounterOutput:
    """Evaluate one image tile by tile; the model is in evaluation mode.

    Args:
        image: uint8 [3, H, W] on any device; of a large one only tiles go to the model's.

    Returns:
        density [1, 1, ceil(H / stride), ceil(W / stride)], and what `Network.decide` says of the whole image.
    """
    reductions, stride, head = model.backbone.reductions, model.out_stride, model.pooling_head
    multiple = model.multiple
    image, overlap = _near(model, image), _overlap(model)
    overlap += head.coarse_cells * multiple  # for the margin
    height, width = image.shape[-2:]
    padded = (height + -height % multiple, width + -width % multiple)
    tiles = [(r, c) for r in split(padded[0], overlap, multiple) for c in split(padded[1], overlap, multiple)]

    # Pass one: the pooled features. Of a linear neck they follow from the branches' means: a pixel's weight in the mean
    # of its bilinear upsampling is everywhere the same, at the borders too, because the factor is a whole number
    # (align_corners=False).
    size = (padded[0] // stride, padded[1] // stride)
    device = model.pixel_mean.device
    widths = model.backbone.channels if isinstance(head, AttendedHead) else (model.channels,)
    sums = [torch.zeros(1, c, device=device) for c in widths]
    cache: list[_Piece] = []
    cached = 0
    for piece in _pieces(model, image, tiles):
        averaged, strides = piece.branches, reductions
        if isinstance(head, FPNHead):
            averaged, strides = [head.pool(piece.branches, _cells(piece, stride))[1]], (stride,)
        for j, (branch, r) in enumerate(zip(averaged, strides, strict=True)):
            cells = (padded[0] // r) * (padded[1] // r)
            sums[j] += _own(branch, piece, r).float().sum((2, 3)) / cells
        cached += sum(b.numel() * b.element_size() for b in piece.branches)
        if cached <= CACHE:
            cache.append(piece)
    pooled = torch.cat(sums, 1).to(model.pixel_mean.dtype)
    if isinstance(head, AttendedHead):
        pooled = torch.nn.functional.linear(pooled, head.neck.weight.flatten(1), head.neck.bias)

    # Pass two: the attended head.
    decision = model.decide(pooled)
    density = torch.empty(1, 1, *size, device=device)
    for piece in (*cache, *_pieces(model, image, tiles[len(cache) :])):
        own = _own(model.decode(piece.branches, decision, _cells(piece, stride)), piece, stride)
        rows, columns = piece.rows, piece.columns
        density[:, :, rows.start // stride : rows.end // stride, columns.start // stride : columns.end // stride] = own
    density = density[..., : -(-height // stride), : -(-width // stride)]
    return CounterOutput(density, **decision._asdict())


def _cells(piece: _Piece, stride: int) -> tuple[int, int]:
    """Size of a piece with its margin in cells of ``stride`` pixels."""
    rows, columns = ((axis.last - axis.first) // stride for axis in (piece.rows, piece.columns))
    return rows, columns


def _own(values: Tensor, piece: _Piece, stride: int) -> Tensor:
    """Cut the margin off [B, C, h, w] values that have one cell per ``stride`` pixels."""
    (top, bottom), (left, right) = (
        ((axis.start - axis.first) // stride, (axis.end - axis.first) // stride) for axis in (piece.rows, piece.columns)
    )
    return values[..., top:bottom, left:right]
