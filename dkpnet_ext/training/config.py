"""Every setting of a training run: its type, its range, what it means."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from ..errors import UserError
from ..files import write_atomically

_CACHE = "(default: $DKPNET_CACHE or ~/.cache/dkpnet_ext)"
_RUN = "(default: runs/PRESET-DATE-TIME)"


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may have."""

    low: float
    high: float
    above: bool = False  # low itself is not possible

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low, high = (f"{limit:.12g}" for limit in (self.low, self.high))
        return f"above {low} and at most {high}" if self.above else f"from {low} to {high}"


Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 1e6)]


@dataclass
class DataConfig:
    """What to train on and how images become batches."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=FOLDER ...")] = ("synthetic",)
    """Domains as NAME=FOLDER (layout recognised) or NAME=FOLDER:LAYOUT; `synthetic` is the embedded source."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint=_CACHE)] = None
    """Folder of decoded images."""
    min_side: Annotated[int, Range(1, 65536)] = 416
    """Images are resized once so that the shorter side is at least this (pixels)."""
    max_side: Annotated[int, Range(1, 65536)] = 2048
    """... and the longer side at most this."""
    on_bad: Literal["error", "skip"] = "error"
    """A bad file stops the run, or is named and skipped."""
    val_fraction: Annotated[float, Range(0, 0.9)] = 0.1
    """Part of the training images (fixed by their names) that chooses the checkpoint; never trained on."""
    crop: Annotated[int, Range(16, 8192)] = 400
    """Side of the training crops (pixels)."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    jitter: Annotated[float, Range(0, 0.5)] = 0.2
    """Strength of the colour jitter (brightness, contrast, saturation, hue)."""
    crops: Literal["uniform", "covering"] = "uniform"
    """Where crops lie: uniform where they fit (paper; borders are seen rarely), or so that every pixel is seen as often, with
    their colours changed by a matrix and a tenth of them gray."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Lowest and highest magnification of covering crops."""
    negatives: Annotated[tuple[str, ...], tyro.conf.arg(metavar="drawn|FOLDER ...", help_behavior_hint="")] = ()
    """Pictures without people, a tenth of every batch: `drawn` textures, folders of real pictures, or both."""
    sampling: Literal["natural", "balanced"] = "natural"
    """How a batch mixes the domains: as many as there are, or equally many of each."""
    ratio: Annotated[tuple[Weight, ...], tyro.conf.arg(metavar="SHARE ...", help_behavior_hint="")] = ()
    """Shares of the domains in a batch, in the order of --data, in place of `sampling`."""
    workers: Annotated[int, Range(0, 256)] = 2
    """Processes that prepare batches; 0 prepares them in the training process."""


@dataclass
class ModelConfig:
    """The network."""

    system: str = "dkpnet"
    """dkpnet: both stages; va: stage I alone; the paper's comparisons are se, jt (no attention; on one data set IT),
    mb (a branch per data set); film and mdknet are two other views of a domain; csrnet, canet, sfcn, dssinet(-pruned),
    vgg19 and mcnn have backbones and strides of their own; all of these but dssinet with -se, -va or -inva behind for
    attention."""
    backbone: str = "hrnet_w40"
    """A timm name; hrnet_* is truncated after stage 3."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="imagenet|starter|FILE|FOLDER|None")] = "imagenet"
    """First weights of a new network: `imagenet` (timm's backbone, needs a network once), a backbone's file, None (random), or
    the backbone and density head of a trained counter: `starter` (the packaged model) or a checkpoint's or run's folder."""
    channels: Annotated[int, Range(1, 8192)] = 512
    """K: features that the attention weighs."""
    latent_dim: Annotated[int, Range(1, 4096)] = 128
    """d: dimensions of the latent space."""
    num_samples: Annotated[int, Range(1, 64)] = 1
    """Latent samples per image in training."""
    neck: Literal["paper", "fpn"] = "paper"
    """paper: linear, all branches; fpn: depthwise convolutions on the features at 1/8 and 1/16 (out-stride 8). Systems mb, film
    and mdknet always have the paper's, with an out-stride of 4 in place of 8."""
    out_stride: Literal[2, 4, 8] = 4
    """Pixels per density cell."""
    density_scale: Annotated[float, Range(1e-6, 1e6)] = 1.0
    """The network predicts density times this; the density loss grows with its square (1 is the paper's)."""
    width: Annotated[float, Range(1 / 16, 1)] = 1.0
    """Share of the channels of csrnet, canet, sfcn, dssinet, vgg19 and mcnn, for small machines; below 1 without
    pretrained weights."""
    head: Literal["folded", "literal"] = "folded"
    """folded: the same result without ever storing the K features; literal: step by step, as in the paper."""


@dataclass
class ClusterConfig:
    """Between the stages: new domain labels from stage I's attention."""

    num_clusters: Annotated[int, Range(1, 1000)] = 5
    """c: clusters, the domains of stage II."""
    num_sub: Annotated[int, Range(1, 100)] = 2
    """k: sub-components per cluster in stage II."""
    method: Literal["gmm", "kmeans", "dbscan"] = "gmm"
    """How attention vectors are clustered."""


@dataclass
class LossConfig:
    """Weights of the terms of Eq. 9; the paper's are all 1."""

    loss: Literal["mse", "poisson", "zip", "bayesian", "dm", "ssim"] = "mse"
    """mse: squared error of blurred counts (paper); poisson: likelihood of exact counts in blocks of 8, 16 and 32 pixels,
    with an exponential link; zip: likelihood of zero-inflated counts of cells, with classification and counting terms;
    bayesian: expected count of every head; dm: DM-Count, optimal transport from the density to the heads; ssim: DSSINet's
    structural similarity of blurred counts."""
    dispersion: Annotated[float, Range(0, 100)] = 0.0
    """Of --loss poisson: a crop's loss is divided by sqrt(1 + dispersion * its predicted heads), so that dense crowds do not
    outweigh all others; 0: plain Poisson."""
    bayesian_form: Literal["paper", "2021"] = "paper"
    """Background of --loss bayesian: as published, or as in the authors' code since July 2021."""
    bayesian_targets: Literal["points", "half", "fraction"] = "points"
    """What --loss bayesian expects of a head at a crop's border: 1 where its point lies inside; 1 where half of its box does
    (as published for ShanghaiTech); the share of its box that does, from 30 % on (as published for UCF-QNRF)."""
    w_density: Annotated[float, Range(0, 1e6, above=True)] = 1.0
    """On 1/(2B) sum of squared errors (the authors' released baseline equals 2B here), or on the other losses' mean over
    images."""
    w_kl: Weight = 1.0
    """On the KL divergence (Eq. 3)."""
    w_lse: Weight = 1.0
    """On the log-sum-exp regulariser (Eq. 6)."""
    w_logdet: Weight = 1.0
    """On the squared log determinant of the domains' variances (Eq. 7)."""
    sigma: Annotated[float, Range(0, 256)] = 4.0
    """Standard deviation of an annotated person's Gaussian (pixels); 0 adapts it to the three nearest persons."""


@dataclass
class OptimConfig:
    """Optimisation of one stage."""

    epochs: Annotated[int, Range(1, 100_000)] = 450
    """Per stage."""
    stage2_from: Literal["pretrained", "stage1"] = "pretrained"
    """Stage II's backbone and head start from `--weights` again (paper), or from stage I's."""
    batch: Annotated[int, Range(1, 65536)] = 32
    """Images per optimiser step, over all processes."""
    accumulate: Annotated[int, Range(1, 65536)] = 1
    """Split each step into this many passes to save memory."""
    lr: Annotated[float, Range(0, 10, above=True)] = 5e-5
    """Learning rate (of onecycle and cosine, the highest)."""
    backbone_lr: Annotated[float, Range(0, 100)] = 1.0
    """Learning rate of the backbone, in units of `lr`."""
    beta2: Annotated[float, Range(0.5, 0.99999)] = 0.999
    """Decay of Adam's second moment."""
    clip: Annotated[float, Range(0, 1e6)] = 0.0
    """Longest gradient; a longer one is shortened to it. 0: no limit."""
    ema: Annotated[float, Range(0, 0.99999)] = 0.0
    """Decay of the average of the weights that is validated and kept; 0: the weights themselves."""
    weight_decay: Annotated[float, Range(0, 10)] = 0.0
    """Above 0 the optimiser is AdamW, else Adam."""
    schedule: Literal["step", "onecycle", "cosine"] = "step"
    """step: lr / 2.5 at 250/450 of the epochs (paper); onecycle: warm-up over a tenth, then cosine to zero; cosine: warm-up
    over 3 %, then cosine to 0.002 of lr."""
    batch_norm: Literal["train", "recalibrated", "frozen", "folded"] = "train"
    """The backbone's statistics in prediction: running averages (paper), those of 64 training batches, measured anew before
    every validation, or ImageNet's, in training too: frozen, or folded into the convolutions, which is faster."""
    frozen_stages: Annotated[int, Range(0, 100)] = 0
    """Stages of the backbone that keep their weights, the stem counted as one."""
    bn_momentum: Annotated[float, Range(0, 1, above=True)] = 0.01
    """Share of a new batch in batch norm's running statistics."""
    sync_batch_norm: bool = False
    """Share batch statistics among GPUs."""


@dataclass
class Config:
    """One training run."""

    preset: Annotated[str, tyro.conf.Suppress] = "quick"
    output: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint=_RUN)] = None
    """Run folder."""
    start: Annotated[
        str | None, tyro.conf.arg(aliases=("--from",), metavar="starter|FOLDER", help_behavior_hint="")
    ] = None
    """Adapt a trained counter, the packaged model or a checkpoint's or run's folder, in place of a new network. Its system, sizes
    and batch norm stay. It is kept unchanged unless an epoch is better on held-out images. An epoch has 20 batches."""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None
    """Continue the run in this folder, with its own settings."""
    seed: Annotated[int, Range(0, 2**32 - 2)] = 0
    """Of initial weights, batches, augmentation and noise."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    eval_every: Annotated[int, Range(1, 100_000)] = 1
    """Epochs between validations; the first epoch ends with one as well."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic; auto takes bf16 where the processor has it; fp16 needs a GPU."""
    channels_last: bool = True
    """Images and features lie in memory with their channels innermost."""

    def check(self) -> None:
        """Every setting has its type and lies in its range, and the settings fit each other.

        Raises:
            UserError: the first one that does not.
        """
        for name, hint, value in _settings(self):
            if (problem := _problem(hint, value)) is not None:
                raise UserError(f"--{name.replace('_', '-')} {_shown(value)}: {problem}")
        data, optim = self.data, self.optim
        if data.min_side > data.max_side:
            raise UserError(f"--min-side {data.min_side}: is above --max-side {data.max_side}")
        if data.ratio and not any(data.ratio):
            raise UserError(f"--ratio {_shown(data.ratio)}: at least one share must be above 0")
        if len(data.scale) != 2 or not 0.05 <= data.scale[0] <= data.scale[1] <= 20:
            raise UserError(
                f"--scale {_shown(data.scale)}: give two magnifications from 0.05 to 20, the lower one first"
            )
        if data.crops == "uniform" and data.scale != (1, 1):
            raise UserError(f"--scale {_shown(data.scale)}: needs --crops covering")
        if (self.model.neck == "fpn") != (self.model.out_stride == 8):
            raise UserError(
                f"--neck {self.model.neck} with --out-stride {self.model.out_stride}: fpn has cells of 8 pixels, paper of 2 or 4"
            )
        for name, default in (("form", "paper"), ("targets", "points")):
            value = getattr(self.loss, f"bayesian_{name}")
            if value != default and self.loss.loss != "bayesian":
                raise UserError(f"--bayesian-{name} {value}: needs --loss bayesian, not {self.loss.loss}")
        if optim.batch % optim.accumulate:
            raise UserError(
                f"--batch {optim.batch}: cannot be split into {optim.accumulate} passes (--accumulate); choose a multiple"
            )

    def save(self, path: Path) -> None:
        """Write as JSON. Raises `OutputError`."""
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=2, default=str) + "\n")

    @staticmethod
    def load(path: Path) -> Config:
        """Read what `save` wrote; settings that are newer than the file have their defaults.

        Raises:
            UserError: not a run folder's configuration, or one of another version, or values out of range.
        """
        import cattrs

        converter = cattrs.Converter(forbid_extra_keys=True)
        converter.register_structure_hook(Path, lambda value, _: Path(value))
        for kind in (bool, int, float, str):
            converter.register_structure_hook(kind, _exactly)
        converter.register_structure_hook_func(
            lambda kind: get_origin(kind) is tuple,
            lambda value, kind: tuple(converter.structure(v, get_args(kind)[0]) for v in _exactly(value, list)),
        )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict) or not {"data", "model", "optim"} <= values.keys():
                raise ValueError("data, model and optim are missing")
            config = converter.structure(values, Config)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or _first_line(error)
            raise UserError(f"{path}: not a run's configuration ({reason}); give the folder of a run") from None
        except cattrs.BaseValidationError as error:
            reason = cattrs.transform_error(error, path="")[0]
            raise UserError(f"{path}: not a run's configuration ({reason}); give the folder of a run") from None
        try:
            config.check()
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        return config


def _settings(config: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, type hint and value of every setting, those of the groups included."""
    hints = get_type_hints(type(config), include_extras=True)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(hints[item.name]):
            if not isinstance(value, hints[item.name]):
                raise UserError(f"{item.name} {value!r}: must be a {hints[item.name].__name__}")
            yield from _settings(value)
        else:
            yield item.name, hints[item.name], value


def _problem(hint: Any, value: Any) -> str | None:
    """What is wrong with a value, or None."""
    if get_origin(hint) is Annotated:
        ranges = [extra for extra in hint.__metadata__ if isinstance(extra, Range)]
        problem = _problem(hint.__origin__, value)
        if problem is None and ranges and value not in ranges[0]:
            problem = f"must be {ranges[0]}"
        return problem
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        fits = any(value == choice and type(value) is type(choice) for choice in choices)
        return None if fits else f"must be one of {', '.join(map(str, choices))}"
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple | list):
            return "must be a tuple"
        return next((p for p in (_problem(get_args(hint)[0], each) for each in value) if p), None)
    kinds = get_args(hint) or (hint,)  # of a union such as Path | None
    if float in kinds:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number"
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        return f"must be {' or '.join(_KINDS[kind] for kind in kinds)}"
    return None


_KINDS = {int: "a whole number", str: "a text", bool: "True or False", Path: "a path", type(None): "None"}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _exactly(value: Any, kind: type) -> Any:
    """JSON's own types as they are: no text becomes a number."""
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise TypeError(f"{value!r} is no {kind.__name__}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
