"""Every setting of a training run, typed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import tyro

from ..errors import UserError

_CACHE = "(default: $DKPNET_CACHE or ~/.cache/dkpnet_ext)"
_RUN = "(default: runs/PRESET-DATE-TIME)"

System = Literal["dkpnet", "va", "se", "jt", "mb"]


@dataclass
class DataConfig:
    """What to train on and how images become batches."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FOLDER ...")] = ("synthetic",)
    """Domains as NAME=FOLDER (layout recognised) or NAME=FOLDER:LAYOUT; `synthetic` is the embedded source."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint=_CACHE)] = None
    """Folder of decoded images."""
    min_side: int = 416
    """Images are resized once so that the shorter side is at least this (pixels)."""
    max_side: int = 2048
    """... and the longer side at most this."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad file stops the run, or is named and skipped."""
    val_fraction: float = 0.1
    """Part of the training images (fixed by their names) that chooses the checkpoint; never trained on."""
    crop: int = 400
    """Side of the training crops (pixels)."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.2
    """Strength of the colour jitter (brightness, contrast, saturation, hue)."""
    sampling: Literal["natural", "balanced"] = "natural"
    """How a batch mixes the domains: as many as there are, or equally many of each."""
    ratio: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE ...", help_behavior_hint="")] = ()
    """Shares of the domains in a batch, in the order of --data, in place of `sampling`."""
    workers: int = 2
    """Processes that prepare batches; 0 prepares them in the training process."""


@dataclass
class ModelConfig:
    """The network."""

    system: System = "dkpnet"
    """dkpnet: both stages; va: stage I alone; the paper's comparisons are se, jt (no attention; on one data set IT)
    and mb (a head per data set)."""
    backbone: str = "hrnet_w40"
    """A timm name; hrnet_* is truncated after stage 3."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="imagenet|FILE|None")] = "imagenet"
    """Backbone weights: `imagenet` (timm's, needs a network once), a file, or None (random)."""
    channels: int = 512
    """K: features that the attention weighs."""
    latent_dim: int = 128
    """d: dimensions of the latent space."""
    num_samples: int = 1
    """Latent samples per image in training."""
    out_stride: Literal[2, 4] = 4
    """Pixels per density cell."""
    density_scale: float = 1.0
    """The head predicts density times this; the density loss grows with its square (1 is the paper's)."""
    head: Literal["folded", "literal"] = "folded"
    """folded: the same result without ever storing the K features; literal: step by step, as in the paper."""


@dataclass
class ClusterConfig:
    """Between the stages: new domain labels from stage I's attention."""

    num_clusters: int = 5
    """c: clusters, the domains of stage II."""
    num_sub: int = 2
    """k: sub-components per cluster in stage II."""
    method: Literal["gmm", "kmeans", "dbscan"] = "gmm"
    """How attention vectors are clustered."""


@dataclass
class LossConfig:
    """Weights of the terms of Eq. 9; the paper's are all 1."""

    w_density: float = 1.0
    """On 1/(2B) sum of squared errors; the authors' released baseline equals 2B here."""
    w_kl: float = 1.0
    """On the KL divergence (Eq. 3)."""
    w_lse: float = 1.0
    """On the log-sum-exp regulariser (Eq. 6)."""
    w_logdet: float = 1.0
    """On the squared log determinant of the domains' variances (Eq. 7)."""
    sigma: float = 4.0
    """Standard deviation of a head's Gaussian (pixels); 0 adapts it to the three nearest heads."""


@dataclass
class OptimConfig:
    """Optimisation of one stage."""

    epochs: int = 450
    """Per stage."""
    stage2_from: Literal["pretrained", "stage1"] = "pretrained"
    """Stage II's backbone and head start from `--weights` again (paper), or from stage I's."""
    batch: int = 32
    """Images per optimiser step, over all processes."""
    accumulate: int = 1
    """Split each step into this many passes to save memory."""
    lr: float = 5e-5
    """Learning rate (of onecycle, the highest)."""
    weight_decay: float = 0.0
    """Above 0 the optimiser is AdamW, else Adam."""
    schedule: Literal["step", "onecycle"] = "step"
    """step: lr / 2.5 at 250/450 of the epochs (paper); onecycle: warm-up over a tenth, then cosine to zero."""
    batch_norm: Literal["train", "recalibrated", "frozen"] = "train"
    """The backbone's statistics in prediction: running averages (paper), those of 64 training batches, measured anew before
    every validation, or ImageNet's, in training too."""
    bn_momentum: float = 0.01
    """Share of a new batch in batch norm's running statistics."""
    sync_batch_norm: bool = False
    """Share batch statistics among GPUs."""


@dataclass
class Config:
    """One training run."""

    preset: Annotated[str, tyro.conf.Suppress] = "quick"
    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint=_RUN)] = None
    """Run folder."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Continue the run in this folder, with its own settings."""
    seed: int = 0
    """Of initial weights, batches, augmentation and noise."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval_every: int = 1
    """Epochs between validations."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic; auto takes bf16 where the processor has it; fp16 needs a GPU."""
    channels_last: bool = True
    """Images and features lie in memory with their channels innermost."""

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n")

    @staticmethod
    def load(path: Path) -> Config:
        """Read what `save` wrote.

        Raises:
            UserError: not a run folder's configuration, or one of another version.
        """
        try:
            return _build(Config, json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: not a run's configuration ({error}); give the folder of a run") from None


def _build(kind: type, values: dict[str, Any]) -> Any:
    """Rebuild nested dataclasses from JSON."""
    built = {}
    for item in dataclasses.fields(kind):
        value = values[item.name]
        if isinstance(value, dict):
            value = _build(cast(type, item.default_factory), value)  # the nested class is its own factory
        elif "Path" in str(item.type) and value is not None:
            value = Path(value)
        elif isinstance(value, list):
            value = tuple(value)
        built[item.name] = value
    return kind(**built)
