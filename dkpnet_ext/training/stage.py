"""The loop: one stage of training."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..data import Batch, CrowdDataset, Item, MixSampler, TrainTransform, collate
from ..data.crops import CoveringCrops
from ..data.negatives import SHARE as NEGATIVE_SHARE
from ..errors import UserError
from ..memory import keep_freed_memory
from ..models import CounterOutput, CrowdCounter
from ..models.backbones import freeze_stages
from .adapt import BATCHES
from .average import averaged
from .batch_norm import recalibrate, set_train_mode
from .checkpoint import belongs, fingerprint, load_state, restore, restore_rng, save_model, save_state
from .config import Config, DataConfig
from .convolutions import speed_up_convolutions
from .interruption import Interrupted, Stop, outlive_stop
from .log import Record, say_beside_bar
from .losses import Annotation, density_loss, loss_terms
from .monitor import LatentMonitor
from .schedule import learning_rate
from .validation import validate

_CALIBRATION = 64  # batches
_LOOK = {"cpu": 1}  # passes between looks at the loss; on a GPU, where a look waits for all that was launched, 50
_ASK = 5  # optimiser steps between questions of several processes: torchrun kills those that go on 30 seconds after a signal


@dataclass(frozen=True)
class StageData:
    """The images of a stage, with their labels."""

    train: Sequence[Item]
    labels: Sequence[int]  # domain of each training image: its data set in stage I, its cluster in stage II
    sources: Sequence[int]  # data set of each training image, by which batches are mixed
    val: Sequence[Item]


@dataclass
class Stage:
    """A stage in training: what a step needs, and how far it has come."""

    fabric: Fabric
    config: Config
    folder: Path
    data: StageData
    loader: DataLoader
    sampler: MixSampler
    model: CrowdCounter
    wrapped: Any  # the model as Fabric runs it: precision, several processes
    optimizer: Any  # torch.optim.Optimizer, as Fabric wraps it
    mark: str  # of the data that the state belongs to
    average: AveragedModel | None = None  # of the weights, where there is one
    epoch: int = 0
    batch: int = 0  # of the epoch
    best: float = float("inf")  # lowest validation error

    @property
    def name(self) -> str:
        """``stage1`` or ``stage2``."""
        return self.folder.name

    @property
    def result(self) -> CrowdCounter:
        """What is validated and kept: the averaged weights where there are such."""
        return self.model if self.average is None else cast(CrowdCounter, self.average.module)

    @property
    def images(self) -> int:
        """Images of a pass, over all processes."""
        return self.config.optim.batch // self.config.optim.accumulate

    def save(self) -> None:
        """Write ``state.pt``."""
        if self.fabric.is_global_zero:
            values = {
                "stage": self.name, "epoch": self.epoch, "batch": self.batch, "best": self.best, "fingerprint": self.mark,
                "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            }  # fmt: skip
            if self.average is not None:
                values["average"] = self.average.state_dict()
            save_state(self.folder / "state.pt", values)


def train_stage(
    fabric: Fabric,
    model: CrowdCounter,
    data: StageData,
    config: Config,
    folder: Path,
    log: Callable[[Record], None],
    stop: Stop,
) -> None:
    """Train one stage, from its beginning or from the state that lies in ``folder``.

    Afterwards ``folder/best`` holds the model with the lowest validation error (the mean over the data sets of MAE over
    mean count) and ``folder/state.pt`` the end of the stage.

    Args:
        fabric: launched; model: with its pretrained weights; data: the stage's images.
        config: of the run; folder: of the stage, created; log: takes one record per epoch; stop: asked between steps.

    Raises:
        Interrupted: after a signal, once the state is written.
        UserError: the loss is not finite (names the images), or the state belongs to other data.
    """
    stage = open_stage(fabric, model, data, config, folder)
    passes = stage.sampler.batches
    bar = tqdm(
        total=config.optim.epochs * passes * stage.images, initial=(stage.epoch * passes + stage.batch) * stage.images,
        desc=stage.name, unit="img", disable=not fabric.is_global_zero, smoothing=0.05,
    )  # fmt: skip
    with bar, stop.deferred():
        if config.start is not None and stage.epoch == stage.batch == 0:  # the counter as it is has to be beaten
            log({"stage": stage.name, "epoch": 0} | validate_epoch(stage, bar))
        while stage.epoch < config.optim.epochs:
            record = train_epoch(stage, bar, stop)
            if stage.epoch == 1 or stage.epoch % config.eval_every == 0 or stage.epoch == config.optim.epochs:
                record |= validate_epoch(stage, bar, record.get("loss/total"))  # none if all was trained before a stop
            log(record)
            stage.save()
        if asked_to_stop(fabric, stop):  # while it validated
            raise Interrupted(folder.parent)
    fabric.barrier()
    if not (folder / "best").exists():
        raise UserError(f"{stage.name}: no validation had a finite error; lower --lr")


def asked_to_stop(fabric: Fabric, stop: Stop) -> bool:
    """Whether a signal has come, to any of the processes: all of them stop at the same step, or none."""
    if fabric.world_size == 1:
        return stop.requested
    asked = fabric.all_reduce(torch.tensor(float(stop.requested), device=fabric.device), reduce_op="sum")
    return float(torch.as_tensor(asked)) > 0


def validate_epoch(stage: Stage, bar: tqdm, loss: float | None = None) -> dict[str, float]:
    """Validate, keep the model if it is the best so far, say so; returns the errors, see `validate`."""
    fabric, config = stage.fabric, stage.config
    if config.optim.batch_norm == "recalibrated":
        stage.sampler.set_epoch(stage.epoch)
        recalibrate(fabric, stage.result, itertools.islice(stage.loader, _CALIBRATION))
    errors = validate(fabric, stage.result, stage.data.val, config.precision)
    before, stage.best = stage.best, min(stage.best, errors["val"])
    if fabric.is_global_zero:
        if stage.best < before:
            save_model(stage.result, stage.folder / "best")
        shown = "" if loss is None else f"loss {loss:.3g}, "
        bar.set_postfix_str(f"{shown}val {errors['val']:.3f}, best {stage.best:.3f}")
        say_beside_bar(validation_line(stage, errors))
    return errors


def validation_line(stage: Stage, errors: Mapping[str, float]) -> str:
    """Says what the validation's numbers are."""
    sets = ", ".join(f"{name.removeprefix('val/')} MAE {mae:.2f}" for name, mae in errors.items() if name != "val")
    return (
        f"{stage.name}, epoch {stage.epoch} of {stage.config.optim.epochs}: validation {sets}; "
        f"MAE / mean count {errors['val']:.3f}, lowest so far {stage.best:.3f}"
    )


def open_stage(fabric: Fabric, model: CrowdCounter, data: StageData, config: Config, folder: Path) -> Stage:
    """Everything in place for the first step, or for the next one after the state in ``folder``."""
    sampler = build_sampler(fabric, data.sources, config)
    loader = build_loader(fabric, data, sampler, config)
    if config.optim.sync_batch_norm and fabric.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if fabric.device.type == "cpu":
        keep_freed_memory()
        speed_up_convolutions(model, config)
    freeze_stages(model.backbone, config.optim.frozen_stages)
    mark = fingerprint([*data.train, *data.val])
    stage = Stage(fabric, config, folder, data, loader, sampler, model, model, build_optimizer(model, config), mark)
    if config.optim.ema:
        stage.average = averaged(model, config.optim.ema)
    file = folder / "state.pt"
    state = load_state(file) if file.exists() else None
    if state is not None:
        if state["fingerprint"] != mark and not belongs(state["fingerprint"], [*data.train, *data.val]):
            raise UserError(
                f"{file}: was trained on other data (images, points or split have changed since); start a new run"
            )
        restore(file, state, model, stage.optimizer)
        if stage.average is not None:
            stage.average.load_state_dict(state["average"])
        stage.epoch, stage.batch, stage.best = state["epoch"], state["batch"], state["best"]
    stage.wrapped, stage.optimizer = fabric.setup(model, stage.optimizer)
    if state is not None:
        restore_rng(state)
    return stage


def build_sampler(fabric: Fabric, sources: Sequence[int], config: Config) -> MixSampler:
    """Batches of an epoch, which make up whole optimiser steps."""
    data, optim = config.data, config.optim
    if optim.batch % (fabric.world_size * optim.accumulate):
        raise UserError(
            f"batch {optim.batch} cannot be split over {fabric.world_size} processes x {optim.accumulate} passes; "
            "choose a multiple"
        )
    ratio = shares(sources, data)
    sampler = MixSampler(
        sources,
        optim.batch // optim.accumulate,
        mode="ratio" if ratio else data.sampling,
        ratio=ratio or None,
        block=optim.batch,  # accumulated passes make up the very batch that one pass would be
        seed=config.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    if config.start is not None:
        sampler.batches = BATCHES * optim.accumulate
    sampler.batches = -(-sampler.batches // optim.accumulate) * optim.accumulate
    return sampler


def shares(sources: Sequence[int], data: DataConfig) -> tuple[float, ...]:
    """The data sets' shares of a batch, where they are not `sampling`'s; the last one's are the negatives, if there are any."""
    if not data.negatives:
        return data.ratio
    counts = np.bincount(sources)[:-1]
    wanted = np.array(data.ratio or (counts if data.sampling == "natural" else np.ones(len(counts))), float)
    return (*(wanted / wanted.sum() * (1 - NEGATIVE_SHARE)).tolist(), NEGATIVE_SHARE)


def build_loader(fabric: Fabric, data: StageData, sampler: MixSampler, config: Config) -> DataLoader:
    """Batches of crops."""
    d = config.data
    transform: TrainTransform | CoveringCrops = TrainTransform(d.crop, d.flip, d.jitter)
    if d.crops == "covering":
        transform = CoveringCrops(d.crop, d.flip, d.jitter, d.scale)
    return DataLoader(
        CrowdDataset(data.train, data.labels, transform, seed=config.seed, border=config.loss.bayesian_targets),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=d.workers,
        persistent_workers=d.workers > 0,  # else an epoch begins with new processes and an empty queue
        worker_init_fn=outlive_stop,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),  # else each epoch would draw from the generator that makes the model's noise
    )


def build_optimizer(model: CrowdCounter, config: Config) -> torch.optim.Optimizer:
    """Adam, or AdamW where there is weight decay; the backbone is a group with a rate of its own."""
    optim = config.optim
    kind = torch.optim.AdamW if optim.weight_decay > 0 else torch.optim.Adam
    backbone = set(model.backbone.parameters())
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if optim.backbone_lr != 1:
        groups = [
            {"params": [p for p in model.parameters() if p not in backbone]},
            {"params": [p for p in model.parameters() if p in backbone], "factor": optim.backbone_lr},
        ]
    return kind(groups, lr=optim.lr, betas=(0.9, optim.beta2), weight_decay=optim.weight_decay)


def train_epoch(stage: Stage, bar: tqdm, stop: Stop) -> Record:
    """Train an epoch, or what is left of it; returns its record: means of the loss terms and of the latent's figures.

    Raises:
        Interrupted, UserError: see `train_stage`.
    """
    optim, passes = stage.config.optim, stage.sampler.batches
    set_train_mode(stage.model, optim)
    stage.sampler.set_epoch(stage.epoch, start_batch=stage.batch)
    sums: dict[str, torch.Tensor] = {}
    monitor = LatentMonitor(max(stage.data.labels) + 1)
    start, rate = stage.batch, 0.0
    began = asked = time.monotonic()
    waited = 0.0
    look = _LOOK.get(stage.fabric.device.type, 50)
    for step, batch in enumerate(stage.loader, start=start):
        waited += time.monotonic() - asked
        last = (step + 1) % optim.accumulate == 0  # of an optimiser step
        labels, output, terms = forward_backward(stage, batch, last)
        if last:
            done = stage.epoch * passes + step + 1 - optim.accumulate  # before this optimiser step
            rate = learning_rate(optim, done / (optim.epochs * passes))
            for group in stage.optimizer.param_groups:
                group["lr"] = rate * group.get("factor", 1.0)
            if optim.clip:
                # A gradient that is not finite makes the next loss so, and `check_finite` says it in one line.
                stage.fabric.clip_gradients(
                    stage.wrapped, stage.optimizer, max_norm=optim.clip, error_if_nonfinite=False
                )
            stage.optimizer.step()
            stage.optimizer.zero_grad()
            if stage.average is not None:
                stage.average.update_parameters(stage.model)
        monitor.add(stage.model, output, labels)
        for key, value in terms.items():
            sums[key] = sums.get(key, 0) + value.detach()
        # Several processes have to agree, for which GPUs are waited for.
        often = stage.fabric.world_size == 1 or step // optim.accumulate % min(look, _ASK) == 0 or step + 1 == passes
        stopping = last and often and asked_to_stop(stage.fabric, stop)
        if stopping or step + 1 == passes or step % look == 0:
            check_finite(stage, sums["total"], terms, batch.names)
        bar.update(stage.images)
        if stopping:
            stage.batch = step + 1
            stage.save()
            raise Interrupted(stage.folder.parent)
        asked = time.monotonic()
    stage.epoch, stage.batch = stage.epoch + 1, 0
    seconds = time.monotonic() - began
    record = {"stage": stage.name, "epoch": stage.epoch, "lr": rate, "seconds": seconds, "waiting": waited / seconds}
    record |= {f"loss/{k}": float(v) / max(passes - start, 1) for k, v in sums.items()}
    return record | {f"latent/{k}": v for k, v in monitor.summary().items()}


def forward_backward(
    stage: Stage, batch: Batch, last: bool
) -> tuple[torch.Tensor, CounterOutput, dict[str, torch.Tensor]]:
    """One pass: gradients of a batch, without the optimiser's step; returns labels [B], output and loss terms.

    Args:
        last: of the passes of an optimiser step, so that processes exchange their gradients.
    """
    config, fabric = stage.config, stage.fabric
    images, labels, points, offsets, sides = (
        t.to(fabric.device, non_blocking=True)
        for t in (batch.images, batch.labels, batch.points, batch.offsets, batch.sides)
    )
    targets = None if batch.targets is None else batch.targets.to(fabric.device)
    people = Annotation(points, offsets, sides, (images.shape[2], images.shape[3]), stage.model.out_stride, targets)
    batch_offset = fabric.global_rank * (stage.images // fabric.world_size)
    with fabric.no_backward_sync(stage.wrapped, enabled=not last):
        output = stage.wrapped(images, labels, batch_offset=batch_offset)
        loss = density_loss(output, people, config.loss, stage.model.density_scale, config.optim.batch)
        terms = loss_terms(output, loss, labels, config.loss)
        fabric.backward(terms["total"] / config.optim.accumulate)
    return labels, output, terms


def check_finite(stage: Stage, total: torch.Tensor, terms: dict[str, torch.Tensor], names: Sequence[str]) -> None:
    """Raise UserError where the sum of an epoch's losses is not finite; ``terms`` and ``names`` are of its last batch."""
    if not bool(torch.isfinite(total)):
        parts = ", ".join(f"{k} {float(v.detach()):.4g}" for k, v in terms.items())
        raise UserError(f"{stage.name}, epoch {stage.epoch}: the loss is not finite ({parts}) on {', '.join(names)}")
