"""DKPNet and the paper's comparison systems: one network from images of any size to density maps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from ..errors import UserError
from .attention import AttentionOutput, SqueezeExcitation, VariationalAttention
from .backbones import create_backbone, load_backbone_weights
from .head import AttendedHead, Form

Attention = Literal["none", "se", "va", "inva"]

_CARD = """---
library_name: dkpnet_ext
tags: [crowd-counting]
license: other
---
# {kind} crowd counter

Backbone {backbone}, attention {attention}, {parameters:,} parameters, one density cell per {stride} x {stride} pixels.
Use it with `dkpnet_ext.load_model(FOLDER).count("photo.jpg")`; no label is needed.

## Data and results

{notes}

## Limits

It counts heads like those it was trained on: other cameras, densities or head sizes than its training images' need a
check against some counted images first. A count is an estimate without a confidence. It finds no identities and is not
meant to. The weights carry the terms of the training data; public crowd-counting data sets are for research only.
"""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class CounterOutput(NamedTuple):
    """A batch's result. With N > 1 latent samples in training, density and attention have N * B rows."""

    density: Tensor  # [B, 1, ceil(H / stride), ceil(W / stride)], heads per cell
    attention: Tensor | None = None  # [B, K]
    mu: Tensor | None = None  # [B, d]
    logvar: Tensor | None = None  # [B, d]
    kl: Tensor | None = None  # [B], Eq. 3
    lse: Tensor | None = None  # [B], Eq. 6
    logdet2: Tensor | None = None  # [B], Eq. 7
    domain_logits: Tensor | None = None  # [B, C], multi-branch only


class CrowdCounter(nn.Module, PyTorchModelHubMixin, library_name="dkpnet_ext", tags=["crowd-counting"]):
    """What every system shares: normalisation, padding, backbone, the Python interface for people.

    Args:
        backbone: a timm name; ``hrnet_*`` is truncated after stage 3.
        channels: K, width after the neck.
        domains: names of the domains, in label order.
        out_stride: pixels per density cell and axis, 4 or 2.
        density_scale: the head predicts density times this; `forward` divides by it.
        min_side, max_side: limits in pixels that images were resized to for training; evaluation keeps to them.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: str = "hrnet_w40",
        *,
        channels: int = 512,
        domains: Sequence[str] = (),
        out_stride: int = 4,
        density_scale: float = 1.0,
        min_side: int = 416,
        max_side: int = 2048,
    ) -> None:
        super().__init__()
        if out_stride not in (2, 4):
            raise ValueError(f"out_stride is {out_stride}; 4 and 2 are possible")
        self.backbone_name, self.channels, self.out_stride = backbone, channels, out_stride
        self.domains, self.density_scale = tuple(domains), density_scale
        self.min_side, self.max_side = min_side, max_side
        self.backbone = create_backbone(backbone)
        self.notes = "Not recorded."
        """Markdown on training data and results, for the model card that `save_pretrained` writes."""
        self.register_buffer("pixel_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def load_backbone(self, weights: str | Path) -> None:
        """Load ImageNet weights into the backbone: ``"imagenet"`` or a file (see `create_backbone`)."""
        load_backbone_weights(self.backbone, self.backbone_name, weights)

    def features(self, images: Tensor) -> tuple[list[Tensor], tuple[int, int], tuple[int, int]]:
        """Normalise, pad to the backbone's stride and run it.

        Args:
            images: uint8 or float in [0, 1], RGB, [B, 3, H, W], any H and W.

        Returns:
            branches, the padded output size and the true output size (ceil(H / stride), ceil(W / stride)).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], got {tuple(images.shape)}")
        height, width = images.shape[-2:]
        if images.dtype == torch.uint8:
            images = images.to(self.pixel_mean.dtype) / 255
        images = (images - self.pixel_mean) / self.pixel_std
        multiple = max(self.backbone.reductions)
        pad_h, pad_w = -height % multiple, -width % multiple
        if pad_h or pad_w:
            images = F.pad(images, (0, pad_w, 0, pad_h))  # zero is the mean colour
        stride = self.out_stride
        padded = ((height + pad_h) // stride, (width + pad_w) // stride)
        # The convolutions take the memory format of their input; channels_last is chosen by model.to(...).
        if next(self.backbone.parameters()).ndim == 4 and _is_channels_last(self.backbone):
            images = images.contiguous(memory_format=torch.channels_last)
        return self.backbone(images), padded, (-(-height // stride), -(-width // stride))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The card that `save_pretrained` puts beside the weights."""
        config: dict[str, Any] = dict(self._hub_mixin_config)  # type: ignore[arg-type]  # the constructor's arguments
        return ModelCard(
            _CARD.format(
                kind=type(self).__name__,
                backbone=self.backbone_name,
                attention=config.get("attention", "none, one head per domain"),
                parameters=sum(p.numel() for p in self.parameters()),
                stride=self.out_stride,
                notes=self.notes,
            )
        )

    def unscale(self, output: Tensor) -> Tensor:
        """Density in heads per cell from the head's output: ReLU (as in the authors' released baseline), then the scale.

        A density is never negative. In training the ReLU leaks 1 %, or a head that once fell below zero everywhere would
        stay there.
        """
        return F.leaky_relu(output, 0.01 if self.training else 0.0) / self.density_scale

    def _finish(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        return self.unscale(output[..., : size[0], : size[1]])

    @property
    def pooling_head(self) -> AttendedHead:
        """The head whose neck gives the pooled features."""
        raise NotImplementedError

    def decide(self, pooled: Tensor) -> Tensor | None:
        """What an image's pooled features say to the head in evaluation: attention [B, K], or the head to take."""
        raise NotImplementedError

    def decode(self, branches: list[Tensor], decision: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Density [B, 1, *size] in heads per cell from features and `decide`'s answer, for an image or a tile."""
        raise NotImplementedError

    def for_inference(self) -> Self:
        """Make prediction faster, in place: batch norms folded into convolutions, channels innermost in memory.

        The counts stay the same up to rounding. The model is not meant to be trained or saved afterwards.
        """
        from .folding import fold_batch_norms

        try:
            self.backbone = fold_batch_norms(self.backbone)
        except Exception:  # torch.fx cannot trace every backbone that timm has, and says so in many ways
            pass
        return self.eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def examine(self, image: Any) -> CounterOutput:
        """All that the model says of one image, a batch of one; above `tiling.LIMIT` pixels in tiles, with the same result.

        The image as for `density`.
        """
        from ..data.images import to_tensor
        from . import tiling

        was_training = self.training
        self.eval()
        try:
            pixels = to_tensor(image)
            if pixels.shape[-2] * pixels.shape[-1] > tiling.LIMIT:
                return tiling.predict(self, pixels)
            return self(pixels.unsqueeze(0).to(self.pixel_mean.device))
        finally:
            self.train(was_training)

    def density(self, image: Any) -> Tensor:
        """Density map of one image, float32 [ceil(H / stride), ceil(W / stride)] in heads per cell.

        Args:
            image: a path, a PIL image, or a uint8 array or tensor ([H, W, 3] or [3, H, W]); any size.
        """
        return self.examine(image).density[0, 0].float()

    def attend(self, image: Any) -> Tensor:
        """Attention y of one image in evaluation mode, float32 [K]; the image as for `density`.

        Raises:
            ValueError: a model without attention.
        """
        attention = self.examine(image).attention
        if attention is None:
            raise ValueError("attend: this model has no attention")
        return attention[0].float()

    def count(self, image: Any) -> float:
        """Number of people in one image (`density` summed); no label is needed."""
        return float(self.density(image).sum(dtype=torch.float64))


def _is_channels_last(backbone: nn.Module) -> bool:
    weight = next(p for p in backbone.parameters() if p.ndim == 4 and p.shape[2] > 1)
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


class DKPNet(CrowdCounter):
    """DKPNet (ICCV 2021): variational attention learns one counter from several data sets.

    Args:
        attention: ``inva`` (k sub-components), ``va`` (one), ``se`` (squeeze-and-excitation) or ``none`` (joint
            training, or individual training on one data set).
        num_domains: C, data sets in stage I, clusters in stage II; by default the number of ``domains``.
        num_sub: k sub-components of a domain; latent_dim: d; num_samples: N latent samples in training.
        head: ``folded`` or ``literal``, see `AttendedHead`; neck_norm: MDKNet-like batch norm and ReLU (literal only).
    """

    def __init__(
        self,
        backbone: str = "hrnet_w40",
        attention: Attention = "inva",
        num_domains: int = 0,
        num_sub: int = 1,
        latent_dim: int = 128,
        num_samples: int = 1,
        channels: int = 512,
        domains: Sequence[str] = (),
        out_stride: int = 4,
        density_scale: float = 1.0,
        head: Form = "folded",
        neck_norm: bool = False,
        min_side: int = 416,
        max_side: int = 2048,
    ) -> None:
        super().__init__(
            backbone, channels=channels, domains=domains, out_stride=out_stride, density_scale=density_scale,
            min_side=min_side, max_side=max_side,
        )  # fmt: skip
        num_domains = num_domains or len(domains)
        self.head = AttendedHead(self.backbone.channels, channels, head, neck_norm)
        self.attention: SqueezeExcitation | VariationalAttention | None
        if attention in ("va", "inva"):
            if num_domains < 1:
                raise ValueError(f"attention={attention!r} needs num_domains or the domains' names")
            if attention == "va" and num_sub != 1:
                raise ValueError(f"attention='va' has one component per domain; num_sub={num_sub} is 'inva'")
            self.attention = VariationalAttention(channels, latent_dim, num_domains, num_sub, num_samples)
        elif attention == "se":
            self.attention = SqueezeExcitation(channels)
        elif attention == "none":
            self.attention = None
        else:
            raise ValueError(f"attention {attention!r}: none, se, va and inva are possible")

    def forward(self, images: Tensor, labels: Tensor | None = None, first: int = 0) -> CounterOutput:
        """Count a batch.

        Args:
            images: uint8 or float in [0, 1], [B, 3, H, W], any size.
            labels: int64 [B]; with them the regularisers are computed, without them the model just counts.
            first: index of the batch's first image in the global batch of all processes (for the noise).
        """
        branches, padded, size = self.features(images)
        if self.attention is None and self.head.form == "folded":
            density = self.head(branches, None, padded, None)
            return CounterOutput(self._finish(density, size))
        pooled, x = self.head.pool(branches, padded)
        if self.attention is None:
            return CounterOutput(self._finish(self.head(branches, None, padded, x), size))
        att: AttentionOutput = self.attention(pooled, labels, first=first)
        samples = att.attention.shape[0] // max(images.shape[0], 1)
        if samples > 1:  # every latent sample of an image meets the same features
            branches = [b.repeat(samples, 1, 1, 1) for b in branches]
            x = None if x is None else x.repeat(samples, 1, 1, 1)
        density = self.head(branches, att.attention, padded, x)
        return CounterOutput(
            self._finish(density, size), att.attention, att.mu, att.logvar, att.kl, att.lse, att.logdet2
        )

    @property
    def pooling_head(self) -> AttendedHead:
        """The only head."""
        return self.head

    def decide(self, pooled: Tensor) -> Tensor | None:
        """Attention [B, K], or None."""
        return None if self.attention is None else self.attention(pooled).attention

    def decode(self, branches: list[Tensor], decision: Tensor | None, size: tuple[int, int]) -> Tensor:
        """See `CrowdCounter.decode`."""
        x = None if self.head.form == "folded" else self.head.pool(branches, size)[1]
        return self.unscale(self.head(branches, decision, size, x))


class MultiBranch(CrowdCounter):
    """MB, the paper's comparison: shared backbone and neck, one head per domain; a domain classifier picks the head.

    In training the label picks the head and the classifier learns by cross entropy; at test time the classifier picks.

    Args: as `DKPNet`; ``num_domains`` by default the number of ``domains``.
    """

    def __init__(
        self,
        backbone: str = "hrnet_w40",
        num_domains: int = 0,
        channels: int = 512,
        domains: Sequence[str] = (),
        out_stride: int = 4,
        density_scale: float = 1.0,
        min_side: int = 416,
        max_side: int = 2048,
    ) -> None:
        super().__init__(
            backbone, channels=channels, domains=domains, out_stride=out_stride, density_scale=density_scale,
            min_side=min_side, max_side=max_side,
        )  # fmt: skip
        num_domains = num_domains or len(domains)
        if num_domains < 1:
            raise ValueError("MultiBranch needs num_domains or the domains' names")
        self.heads = nn.ModuleList(AttendedHead(self.backbone.channels, channels) for _ in range(num_domains))
        for head in self.heads:  # one neck for all
            head.neck = self.heads[0].neck
        self.classifier = nn.Linear(channels, num_domains)

    def forward(self, images: Tensor, labels: Tensor | None = None, first: int = 0) -> CounterOutput:
        """As `DKPNet.forward`; ``domain_logits`` [B, C] are the classifier's."""
        branches, padded, size = self.features(images)
        pooled, _ = self.pooling_head.pool(branches, padded)
        logits = self.classifier(pooled)
        chosen = logits.argmax(1) if labels is None else labels
        # Every head runs on every image, so that all have gradients in every step (DDP asks for that).
        densities = torch.stack([head(branches, None, padded, None) for head in self.heads])
        density = densities[chosen, torch.arange(images.shape[0], device=images.device)]
        return CounterOutput(self._finish(density, size), domain_logits=logits)

    @property
    def pooling_head(self) -> AttendedHead:
        """The first head: its neck is everyone's."""
        return cast(AttendedHead, self.heads[0])

    def decide(self, pooled: Tensor) -> Tensor:
        """The domain [B] whose head counts."""
        return self.classifier(pooled).argmax(1)

    def decode(self, branches: list[Tensor], decision: Tensor | None, size: tuple[int, int]) -> Tensor:
        """See `CrowdCounter.decode`."""
        assert decision is not None
        densities = [
            self.heads[int(d)]([b[i : i + 1] for b in branches], None, size, None) for i, d in enumerate(decision)
        ]
        return self.unscale(torch.cat(densities))


def load_model(source: str | Path, **kwargs: Any) -> CrowdCounter:
    """Load any saved counter: a folder (config.json + model.safetensors) or a hub id.

    Raises:
        UserError: no such folder, no configuration in it, or weights of another architecture.
    """
    import json

    from huggingface_hub import hf_hub_download

    folder = Path(source)
    try:
        if folder.is_dir():
            config = json.loads((folder / "config.json").read_text())
        elif "/" in str(source) and not folder.is_absolute() and not folder.exists() and len(folder.parts) == 2:
            config = json.loads(Path(hf_hub_download(str(source), "config.json")).read_text())
        else:
            raise UserError(
                f"checkpoint {source}: no such folder; give one that holds config.json and model.safetensors"
            )
        kind = MultiBranch if "attention" not in config else DKPNet
        with redirect_stdout(StringIO()):  # the hub's mixin prints where it reads
            model = kind.from_pretrained(source, strict=True, **kwargs)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"checkpoint {source}: {Path(error.filename or '').name or 'a file'} is missing") from None
    except Exception as error:  # the hub, JSON and safetensors each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"checkpoint {source}: cannot be loaded ({reason})") from None
    return model.eval()
