"""Saving a model for use without this package: as a torch.export program or in ONNX, for any batch and image size.

Input ``images``: uint8 RGB [batch, 3, height, width] of more than 16 px a side; the graph normalises and pads.
Outputs ``density`` [batch, 1, ceil(height / stride), ceil(width / stride)] in heads per cell and ``count`` [batch].
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..files import write_atomically, writing
from ..models import CrowdCounter, DKPNet
from ..models.engines.graph import fix_padding, save_onnx
from ..models.fpn import FPNHead
from ..models.head import AttendedHead
from ..models.network import IMAGENET_MEAN, IMAGENET_STD
from ..models.published import PublishedNetwork

FORMATS = (".onnx", ".pt2")


class ExportGraph(nn.Module):
    """A DKPNet, or a published network, in evaluation, written with plain operators whose shapes a symbolic trace can follow.

    The folded head of `ops.attended_head`. The pooled features are the branches' plain means: bilinear upsampling by
    a whole factor (align_corners=False) keeps the mean exactly.
    """

    def __init__(self, model: DKPNet | PublishedNetwork) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        fix_padding(self.model.backbone)
        self.stride = model.out_stride

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images uint8 [B, 3, H, W] -> density [B, 1, h, w], count [B]."""
        model = self.model
        height, width = images.shape[-2:]
        multiple = model.multiple
        x = (images.to(torch.float32) / 255 - model.pixel_mean) / model.pixel_std
        # Written so that the padded size is visibly a multiple: every layer's size then stays a short expression.
        # And no -a // b, which ONNX rounds differently.
        bottom, right = (multiple * ((side + multiple - 1) // multiple) - side for side in (height, width))
        branches = model.backbone(F.pad(x, (0, right, 0, bottom)))
        head: Any = model.head
        if isinstance(model, PublishedNetwork):
            (x,) = branches
            if model.attention is not None:
                x = x * model.attention(x.mean((2, 3))).attention[:, :, None, None]
            output = head(x)
        else:
            output = self._fpn(head, branches) if isinstance(head, FPNHead) else self._paper(head, branches)
        density = model.unscale(output)
        # Not a slice: whether that is contiguous would become a condition on the image's size.
        rows = torch.arange((height + self.stride - 1) // self.stride, device=density.device)
        columns = torch.arange((width + self.stride - 1) // self.stride, device=density.device)
        density = density.index_select(2, rows).index_select(3, columns)
        return density, density.sum((1, 2, 3))

    def _fpn(self, head: FPNHead, branches: list[Tensor]) -> Tensor:
        pooled, x = head.pool(branches)
        if self.model.attention is not None:
            x = x * self.model.attention(pooled).attention[:, :, None, None]
        return head(branches, None, (0, 0), x)

    def _paper(self, head: AttendedHead, branches: list[Tensor]) -> Tensor:
        model, neck = self.model, head.neck.weight.flatten(1)
        weight = head.conv1.weight.flatten(1).unsqueeze(0)
        assert head.neck.bias is not None and head.conv1.bias is not None
        if model.attention is not None:
            pooled = F.linear(torch.cat([b.mean((2, 3)) for b in branches], 1), neck, head.neck.bias)
            weight = weight * model.attention(pooled).attention.unsqueeze(1)
        hidden = (weight @ head.neck.bias + head.conv1.bias)[:, :, None, None]
        start = 0
        for branch, reduction in zip(branches, model.backbone.reductions, strict=True):
            end = start + branch.shape[1]
            part = torch.einsum("boc,bchw->bohw", (weight @ neck[:, start:end]).expand(branch.shape[0], -1, -1), branch)
            if reduction != self.stride:
                part = F.interpolate(part, scale_factor=reduction // self.stride, mode="bilinear", align_corners=False)
            hidden, start = hidden + part, end
        return head.conv3(F.relu(head.conv2(F.relu(hidden))))


def metadata(model: CrowdCounter) -> dict[str, str]:
    """What a program that reads the file needs to know; JSON in every value that is no sentence."""
    return {
        "producer": "dkpnet_ext",
        "backbone": model.backbone_name,
        "domains": json.dumps(model.domains),
        "input": "images: uint8, RGB, upright, [batch, 3, height, width], any size above 16 x 16",
        "size": "resize images before, aspect kept (bicubic), as for training: shorter side at least min_side, longer at "
        "most max_side pixels, in conflict the latter; at another size the counts are others",
        "min_side": json.dumps(model.min_side),
        "max_side": json.dumps(model.max_side),
        "normalisation": "inside the graph: (images / 255 - mean) / std",
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
        "stride": json.dumps(model.out_stride),
        "output": "density: heads per cell of stride x stride pixels; count: its sum per image",
    }


def export_model(model: CrowdCounter, path: Path) -> None:
    """Write a model to ``path``: ``.onnx`` (opset 18) or ``.pt2`` (torch.export), with `metadata` inside.

    Raises:
        UserError: another suffix; a system that has no such graph; packages missing; a disk that refuses.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: choose a name that ends in {' or '.join(FORMATS)}")
    if isinstance(model, PublishedNetwork) and not model.exports:
        raise UserError(f"system {model.system}: cannot be exported, its operations depend on the image's size")
    if not isinstance(model, DKPNet | PublishedNetwork):
        raise UserError(f"system {model.system}: cannot be exported; dkpnet, va, se and jt can")
    graph = ExportGraph(model).eval()
    example = torch.zeros(2, 3, 96, 128, dtype=torch.uint8, device=model.pixel_mean.device)
    Dim = torch.export.Dim
    # A single cell of the coarsest branch is what a trace takes for a constant.
    least = model.multiple + 1
    shapes = {0: Dim.DYNAMIC, 2: Dim("height", min=least), 3: Dim("width", min=least)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        program = torch.export.export(graph, (example,), dynamic_shapes=(shapes,))
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pt2":  # PyTorch ends the process where the disk is full: into memory first
            buffer = io.BytesIO()
            torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata(model))})
            write_atomically(path, buffer.getvalue())
        else:
            write_atomically(path, lambda p: save_onnx(program, p, ["images"], ["density", "count"], metadata(model)))


def run_exported(path: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a file that `export_model` wrote: images uint8 [B, 3, H, W] on the CPU -> density, count.

    Raises:
        UserError: onnxruntime is not installed.
    """
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(path).module()(images)
    try:
        import onnxruntime
    except ImportError:
        raise UserError("running ONNX needs more packages: pip install 'dkpnet_ext[export]'") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    density, count = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(density), torch.from_numpy(count)


def check_exported(model: CrowdCounter, path: Path) -> float:
    """Largest difference of counts, relative to the heads PyTorch sees, on noise of two sizes and batches.

    Raises:
        UserError: counts that are not finite.
    """
    generator = torch.Generator().manual_seed(0)
    differences = []
    for shape in ((1, 3, 131, 174), (3, 3, 96, 64)):
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        with torch.inference_mode():
            density = model(images.to(model.pixel_mean.device)).density.cpu()
        exported, count = run_exported(path, images)
        scale = density.abs().sum((1, 2, 3)).clamp_min(1e-6)
        differences += [
            (count - density.sum((1, 2, 3))).abs() / scale,
            (exported - density).abs().sum((1, 2, 3)) / scale,
        ]
    worst = float(torch.cat(differences).max())  # NaN if any is, unlike Python's max
    if not worst < float("inf"):
        raise UserError(f"{path}: the counts of the exported model or of the model itself are not finite")
    return worst
