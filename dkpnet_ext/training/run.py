"""A whole run: stage I, clustering, stage II, evaluation of every data set's test images."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric import Fabric

from ..data import Domain, Item, load_domains, split_validation
from ..data.negatives import load_negatives
from ..device import pick_device, pick_precision
from ..errors import UserError, say
from ..evaluation.inference import attention_vectors
from ..files import locked, output_folder, remove_partial
from ..models import CrowdCounter, DKPNet, load_model, registry
from ..models.backbones import check_backbone
from .adapt import adopt, extend, try_factor
from .clustering import cluster_attention, load_clusters, save_clusters
from .config import Config
from .crossing import crossed_errors
from .interruption import Stop, one_line, stop_signals
from .log import Record, RunLog
from .losses import LINKS
from .report import finish, next_steps
from .stage import StageData, train_stage

_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(
    config: Config,
    domains: Sequence[Domain] | None = None,
    callback: Callable[[Record], object] | None = None,
    extras: bool = True,
) -> Path:
    """Run or continue a training run; returns its folder.

    Args:
        config: stays as it is; with ``resume`` the run's own settings count.
        domains: data sets in place of ``config.data.data``, such as `Domain.from_arrays` makes. They are needed again to
            resume.
        callback: called after every epoch with its record: stage, epoch, lr, seconds, means of the loss terms, and where
            there was a validation ``val`` (the mean over the data sets of MAE / mean count) and the MAE of each data set;
            at last with the test images' errors. Of several processes only the first calls it.
        extras: whether the finished counter is compared with the trivial ones, its intervals are measured and pictures drawn,
            beside the errors.

    Raises:
        UserError: bad settings or data, a full disk, too little memory.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the state is saved.

    Example:
        >>> from dkpnet_ext.training import PRESETS, train
        >>> folder = train(PRESETS["quick"].config, callback=print)  # doctest: +SKIP
    """
    with stop_signals() as stop, one_line(stop):
        config, folder, resuming = _settle(config, domains)
        if resuming and is_finished(folder):
            for line in (f"{folder}: this run is finished", *next_steps(folder).splitlines()):
                say(line)
            return folder
        started = adopt(config)
        fabric = make_fabric(config)
        folder = Path(fabric.broadcast(str(folder)))
        began = time.monotonic()
        if domains is None:
            with fabric.rank_zero_first():  # the first process fills the cache
                domains = load_domains(
                    config.data.data, cache=config.data.cache, min_side=config.data.min_side,
                    max_side=config.data.max_side, on_bad=config.data.on_bad, progress=fabric.is_global_zero,
                )  # fmt: skip
        if config.data.negatives:
            with fabric.rank_zero_first():
                domains = [*domains, negatives_of(config, fabric.is_global_zero)]
        train_items, val_items, labels = split(domains, config)
        check_data(domains, train_items, config)
        fabric.seed_everything(config.seed, verbose=False)
        names, sources = [d.name for d in domains], labels
        if started is None:
            model = build_model(config, 1, names)
        else:
            model, labels = extend(started, names, train_items, sources)
        with _run_folder(fabric, folder, config, resuming, stop, callback) as log:
            data = StageData(train_items, labels, sources, val_items)
            best = train_stages(fabric, model, data, domains, config, folder, log, stop)
            factor, crossed = None, {}
            if config.start is not None:
                factor = try_factor(fabric, best, folder, config.start, train_items, val_items)
                crossed = crossed_errors(fabric, config, folder, stop, data, names, factor) if extras else {}
            finish(fabric, best, domains, data, config, folder, log, began, extras, factor, crossed)
    return folder


def _settle(config: Config, domains: Sequence[Domain] | None) -> tuple[Config, Path, bool]:
    """The settings that count, the run folder, whether its run goes on; nothing is written.

    Raises:
        UserError: settings that cannot be right.
    """
    config = copy.deepcopy(config)
    resuming = config.resume is not None
    if config.resume is not None:
        folder = config.resume
        config = Config.load(folder / "config.json")
    else:
        config.check()
        folder = config.output or Path("runs") / f"{config.preset}-{datetime.now():%Y%m%d-%H%M%S}"
        if any(folder.glob("stage*/state.pt")):
            raise UserError(f"output {folder}: holds a run; go on with --resume {folder}, or choose another folder")
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise UserError(f"output {folder}: cannot be written ({existing}); choose another with --output")
    if domains is not None:
        config.data.data = ()
        if not domains:
            raise UserError("no data: domains is empty")
    elif not config.data.data and resuming:
        raise UserError(f"{folder}: trained on data sets given in Python; give them again: train(config, domains=...)")
    elif not config.data.data:
        raise UserError("no data: give --data NAME=FOLDER ... (or --data synthetic)")
    registry.get(config.model.system)
    check_backbone(config.model.backbone)
    weights = config.model.weights
    if weights not in (None, "imagenet", "starter") and not Path(weights).exists():
        raise UserError(f"weights {weights}: no such file or checkpoint")
    return config, folder, resuming


def negatives_of(config: Config, progress: bool) -> Domain:
    """The data set of pictures without people."""
    d = config.data
    return load_negatives(d.negatives, cache=d.cache, min_side=d.min_side, max_side=d.max_side, progress=progress)


def is_finished(folder: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (folder / "results.md").exists() and (folder / "model" / "model.safetensors").exists()


def make_fabric(config: Config) -> Fabric:
    """Devices and precision (``auto`` is decided here); several processes when torchrun started them.

    Raises:
        UserError: a device that is not there, or torchrun's variables without torchrun.
    """
    device = pick_device(config.device, config.precision).type
    config.precision = pick_precision(config.precision, device)
    sizes = {}
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        text = os.environ.get(name, "1")
        if not text.isdecimal() or not 0 < int(text) < 100_000:
            raise UserError(f"{name}={text}: no number of processes; unset it, or start with torchrun")
        sizes[name] = int(text)
    world, local = sizes["WORLD_SIZE"], sizes["LOCAL_WORLD_SIZE"]
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not os.environ.get(name)]
    if world > 1 and missing:
        raise UserError(f"WORLD_SIZE={world} without {', '.join(missing)}: start with torchrun, or unset WORLD_SIZE")
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=max(world // local, 1),
        strategy="ddp" if world > 1 else "auto",
        precision=_PRECISION[config.precision],
    )
    fabric.launch()
    return fabric


def split(domains: Sequence[Domain], config: Config) -> tuple[list[Item], list[Item], list[int]]:
    """Training items, validation items (the data set's own, else a fixed part of the training images), labels."""
    train_items: list[Item] = []
    val_items: list[Item] = []
    labels: list[int] = []
    for label, domain in enumerate(domains):
        mine, held = (
            (domain.train, domain.val) if domain.val else split_validation(domain.train, config.data.val_fraction)
        )
        if not mine:
            raise UserError(f"{domain.name}: no training images in {domain.root}")
        train_items += mine
        val_items += held
        labels += [label] * len(mine)
    if not val_items:
        raise UserError("no validation images: set --val-fraction above 0, and label two images or more")
    if not any(item.count for item in val_items):  # their error could not choose an epoch
        raise UserError(
            f"no head is labelled on the held-out pictures ({len(val_items)}); label more pictures with people"
        )
    return train_items, val_items, labels


def check_data(domains: Sequence[Domain], train_items: Sequence[Item], config: Config) -> None:
    """Settings that depend on the data. Raises `UserError`."""
    names = [d.name for d in domains]
    if len(set(names)) < len(names):
        raise UserError(f"two data sets have the same name ({', '.join(names)}); give each its own")
    counted = len(domains) - bool(config.data.negatives)  # the negatives' share is fixed
    if config.data.ratio and len(config.data.ratio) != counted:
        raise UserError(f"ratio has {len(config.data.ratio)} shares for {counted} domains; give one for each")
    clusters = config.cluster.num_clusters
    if config.start is None and registry.get(config.model.system).two_stage and len(train_items) < clusters:
        raise UserError(
            f"{len(train_items)} training images cannot form {clusters} clusters; set --num-clusters to at most "
            f"{len(train_items)}"
        )


def build_model(config: Config, stage: int, domains: list[str]) -> CrowdCounter:
    """The network of a stage, with its pretrained backbone.

    Args:
        stage: 1 (labels are data sets) or 2 (labels are clusters); domains: names of the data sets.
    """
    m = config.model
    model = registry.create(
        m.system,
        stage,
        backbone=m.backbone,
        channels=m.channels,
        domains=domains,
        num_domains=len(domains) if stage == 1 else config.cluster.num_clusters,
        num_sub=config.cluster.num_sub,
        latent_dim=m.latent_dim,
        num_samples=m.num_samples,
        out_stride=4 if m.neck == "fpn" and "neck" not in registry.get(m.system).parameters else m.out_stride,
        # The scale is the squared error's; in the link of another loss it would be a limit of what a cell can say.
        density_scale=m.density_scale if config.loss.loss == "mse" else 1.0,
        link=LINKS[config.loss.loss],
        fold_norms=config.optim.batch_norm == "folded",
        neck=m.neck,
        width=m.width,
        head=m.head,
        min_side=config.data.min_side,
        max_side=config.data.max_side,
    )
    if m.weights == "starter" or (m.weights is not None and Path(m.weights).is_dir()):
        start_from(model, load_model(m.weights))
    elif m.weights is not None:
        model.load_backbone(m.weights)
    return model


def start_from(model: CrowdCounter, trained: CrowdCounter) -> None:
    """Give a model the backbone and the density head of a trained one; DKPNet's attention that this one has not begins without
    effect, and the last layer of a network with another link anew, since its outputs mean something else.

    Raises:
        UserError: they are built otherwise.
    """
    head = trained.pooling_head.state_dict()
    if model.link != trained.link:
        if not model.last_layers:
            raise UserError(
                f"weights: a {model.system} begins with one of the same link only ({trained.link}); choose its loss"
            )
        head |= {k: v for k, v in model.pooling_head.state_dict().items() if k.startswith(model.last_layers)}
    try:
        model.backbone.load_state_dict(trained.backbone.state_dict())
        model.pooling_head.load_state_dict(head)
    except RuntimeError:
        raise UserError(
            f"weights: the trained model ({trained.backbone_name}, {trained.channels} channels) is built otherwise; give the same "
            "--backbone, --channels, --neck and --batch-norm, or choose other --weights, such as None"
        ) from None
    if isinstance(model, DKPNet) and getattr(trained, "attention", None) is None:
        model.start_neutral()


@contextmanager
def _run_folder(
    fabric: Fabric,
    folder: Path,
    config: Config,
    resuming: bool,
    stop: Stop,
    callback: Callable[[Record], object] | None,
) -> Iterator[Callable[[Record], None]]:
    """The folder, which no other process gets meanwhile, and what takes the run's records.

    Raises:
        UserError: another process trains in it, or it cannot be written.
    """
    if not fabric.is_global_zero:
        stop.folder = folder
        yield lambda record: None
        return
    output_folder(folder)
    with locked(folder):
        remove_partial(folder)
        if not resuming:
            config.save(folder / "config.json")
        stop.folder = folder
        say(f"run folder: {folder}")
        log = RunLog(folder, callback)
        try:
            yield log
        finally:
            log.close()


def train_stages(
    fabric: Fabric,
    model: CrowdCounter,
    data: StageData,
    domains: Sequence[Domain],
    config: Config,
    folder: Path,
    log: Callable[[Record], None],
    stop: Stop,
) -> Path:
    """Train the stages of the system, or what is left of them; returns the folder of the best model.

    Args:
        model: of stage I; data: of stage I; the rest as for `train_stage`.
    """
    names = [d.name for d in domains]
    best, clusters_file = folder / "stage1" / "best", folder / "clusters.json"
    if not clusters_file.exists():
        output_folder(best.parent)
        train_stage(fabric, model, data, config, best.parent, log, stop)
    if config.start is not None or not registry.get(config.model.system).two_stage:
        return best
    if not clusters_file.exists():
        if fabric.is_global_zero:
            _cluster(fabric, best, data, names, config, clusters_file)
        fabric.barrier()
    labels = load_clusters(clusters_file, data.train, config.cluster.num_clusters)
    fabric.seed_everything(config.seed + 1, verbose=False)
    model = build_model(config, 2, names)
    if config.optim.stage2_from == "stage1":
        start_from(model, load_model(best))
    stage2 = output_folder(folder / "stage2")
    train_stage(fabric, model, StageData(data.train, labels, data.sources, data.val), config, stage2, log, stop)
    return stage2 / "best"


def _cluster(
    fabric: Fabric, best: Path, data: StageData, names: Sequence[str], config: Config, clusters_file: Path
) -> None:
    """Cluster stage I's attention of every training image; writes clusters.json and says how the data sets mix."""
    model = load_model(best).to(fabric.device).for_inference("torch")
    vectors = attention_vectors(model, data.train, device=fabric.device, precision=config.precision)
    clusters = cluster_attention(vectors, config.cluster.num_clusters, config.cluster.method, config.seed)
    for c in range(config.cluster.num_clusters):
        counts = np.bincount(np.array(data.sources)[clusters == c], minlength=len(names))
        say(f"cluster {c}: " + ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)))
    save_clusters(clusters_file, data.train, clusters)
