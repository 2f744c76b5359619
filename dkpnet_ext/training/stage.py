"""The loop: one stage of training, readable from top to bottom."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from .. import ops
from ..data import Batch, CrowdDataset, Item, MixSampler, TrainTransform, collate
from ..device import Precision
from ..errors import UserError
from ..evaluation.inference import predict_counts
from ..evaluation.metrics import summarize
from ..models import CrowdCounter
from .checkpoint import fingerprint, load_state, restore_rng, save_model, save_state
from .config import Config
from .losses import LatentSigns, loss_terms

_CALIBRATION = 64  # batches


class Interrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the state is in the run folder that is its argument."""


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a flag that the loop reads between steps."""
    seen: list[int] = []
    previous = {s: signal.signal(s, lambda number, _: seen.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def learning_rate(config: Config, progress: float) -> float:
    """The rate at ``progress`` in [0, 1) of the stage; a function of progress alone: resuming needs no state."""
    rate = config.optim.lr
    if config.optim.schedule == "step":
        return rate if progress < 250 / 450 else rate / 2.5
    warm = 0.1
    if progress < warm:
        return rate * (0.04 + 0.96 * progress / warm)
    return rate * 0.5 * (1 + float(np.cos(np.pi * (progress - warm) / (1 - warm))))


def _norms(model: CrowdCounter) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def set_train_mode(model: CrowdCounter, config: Config) -> None:
    """Training mode, with the backbone's batch norm as configured."""
    model.train()
    for norm in _norms(model):
        norm.momentum = config.optim.bn_momentum
        norm.train(config.optim.batch_norm != "frozen")


def recalibrate(fabric: Fabric, model: CrowdCounter, batches: Iterable[Batch]) -> None:
    """Give the backbone's batch norm the mean statistics of ``batches``, over all processes.

    Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021. With few crops in a batch the running averages are noise:
    bench/results/remedies.md.
    """
    model.eval()
    for norm in _norms(model):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
        norm.train()
    with torch.no_grad(), fabric.autocast():
        for batch in batches:
            model(batch.images.to(fabric.device))
        for norm in _norms(model):
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                mean = fabric.all_reduce(statistic)
                assert isinstance(mean, torch.Tensor)
                statistic.copy_(mean)


def depthwise_in_float32(model: nn.Module) -> None:
    """Let depthwise convolutions leave bfloat16 autocast on a CPU, in place.

    oneDNN's backward pass of them is 2 to 20 times slower in bfloat16 than in float32 (torch 2.15, AVX-512 BF16): a step of
    EfficientNet-Lite0, 12 crops of 256 px on two cores, takes 0.46 s with this and 0.64 s without.
    """

    def in_float32(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", enabled=False):
                return forward(x.float()).to(x.dtype)

        return run

    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = in_float32(module.forward)  # type: ignore[method-assign, assignment]


def train_stage(
    fabric: Fabric,
    model: CrowdCounter,
    train: Sequence[Item],
    labels: Sequence[int],
    sources: Sequence[int],
    val: Sequence[Item],
    config: Config,
    folder: Path,
    log: Callable[[dict[str, Any]], None],
) -> None:
    """Train one stage, from its beginning or from the state that lies in ``folder``.

    Afterwards ``folder/best`` holds the model with the lowest validation error (the mean over the domains of MAE over
    mean count) and ``folder/state.pt`` the end of the stage.

    Args:
        fabric: launched; model: with its pretrained weights; train, val: items.
        labels: domain of each train item; sources: its data set, by which balanced sampling goes (in stage I the same).
        config: of the run; folder: of the stage, created; log: takes one record per validation.

    Raises:
        Interrupted: after Ctrl-C or SIGTERM, once the state is written.
        UserError: the loss is not finite (names the images), or the state belongs to other data.
    """
    name = folder.name
    data, optim = config.data, config.optim
    if optim.batch % (fabric.world_size * optim.accumulate):
        raise UserError(
            f"batch {optim.batch} cannot be split over {fabric.world_size} processes x {optim.accumulate} passes; "
            "choose a multiple"
        )
    per_pass = optim.batch // optim.accumulate
    sampler = MixSampler(
        sources,
        per_pass,
        mode="ratio" if data.ratio else data.sampling,
        ratio=data.ratio or None,
        block=optim.batch,  # accumulated passes make up the very batch that one pass would be
        seed=config.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    dataset = CrowdDataset(train, labels, TrainTransform(data.crop, data.flip, data.jitter), seed=config.seed)
    workers = data.workers
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=fabric.device.type == "cuda",
        generator=torch.Generator(),  # else each epoch would draw from the generator that makes the model's noise
    )
    passes = -(-sampler.batches // optim.accumulate) * optim.accumulate  # whole optimiser steps
    sampler.batches = passes

    if optim.sync_batch_norm and fabric.world_size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if config.precision == "bf16" and fabric.device.type == "cpu":
        depthwise_in_float32(model)
    kind = torch.optim.AdamW if optim.weight_decay > 0 else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay)

    mark = fingerprint([*train, *val])
    state_file = folder / "state.pt"
    epoch, start, best = 0, 0, float("inf")
    state = load_state(state_file) if state_file.exists() else None
    if state is not None:
        if state["fingerprint"] != mark:
            raise UserError(f"{state_file}: was trained on other images or another split; start a new run")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        epoch, start, best = state["epoch"], state["batch"], state["best"]
    wrapped, optimizer = fabric.setup(model, optimizer)
    if state is not None:
        restore_rng(state)

    def save(epoch: int, batch: int) -> None:
        if fabric.is_global_zero:
            save_state(
                state_file,
                {
                    "stage": name, "epoch": epoch, "batch": batch, "best": best, "fingerprint": mark,
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                },
            )  # fmt: skip

    batch_offset = fabric.global_rank * (per_pass // fabric.world_size)
    bar = tqdm(
        total=optim.epochs * passes * per_pass, initial=(epoch * passes + start) * per_pass,
        desc=name, unit="img", disable=not fabric.is_global_zero, smoothing=0.05,
    )  # fmt: skip
    with _stop_signals() as stopped:
        while epoch < optim.epochs:
            set_train_mode(model, config)
            sampler.set_epoch(epoch, start_batch=start)
            sums: dict[str, torch.Tensor] = {}
            signs = LatentSigns(max(labels) + 1)
            began = asked = time.monotonic()
            waited = 0.0
            for step, batch in enumerate(loader, start=start):
                waited += time.monotonic() - asked
                images, labels_, points, offsets = (
                    t.to(fabric.device, non_blocking=True)
                    for t in (batch.images, batch.labels, batch.points, batch.offsets)
                )
                sigma = config.loss.sigma or ops.knn_sigma(points, offsets)
                target = ops.density(
                    points, offsets, tuple(images.shape[-2:]), stride=config.model.out_stride, sigma=sigma
                )
                last = (step + 1) % optim.accumulate == 0
                with fabric.no_backward_sync(wrapped, enabled=not last):
                    output = wrapped(images, labels_, batch_offset=batch_offset)
                    terms = loss_terms(output, target, labels_, model.density_scale, config.loss)
                    fabric.backward(terms["total"] / optim.accumulate)
                if not bool(torch.isfinite(terms["total"])):
                    parts = ", ".join(f"{k} {float(v):.4g}" for k, v in terms.items())
                    raise UserError(
                        f"{name}, epoch {epoch}: the loss is not finite ({parts}) on {', '.join(batch.names)}"
                    )
                if last:
                    done_passes = epoch * passes + step + 1 - optim.accumulate  # before this optimiser step
                    rate = learning_rate(config, done_passes / (optim.epochs * passes))
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                    optimizer.step()
                    optimizer.zero_grad()
                signs.add(model, output, labels_)
                for key, value in terms.items():
                    sums[key] = sums.get(key, 0) + value.detach()
                bar.update(per_pass)
                if stopped() and last:
                    save(epoch, step + 1)
                    bar.close()
                    raise Interrupted(folder.parent)
                asked = time.monotonic()
            done = max(passes - start, 1)
            epoch, start = epoch + 1, 0
            seconds = time.monotonic() - began
            record: dict[str, Any] = {
                "stage": name, "epoch": epoch, "lr": rate, "seconds": seconds, "waiting": waited / seconds,
            }  # fmt: skip
            record |= {f"loss/{k}": float(v) / done for k, v in sums.items()}
            record |= {f"latent/{k}": v for k, v in signs.summary().items()}
            if epoch % config.eval_every == 0 or epoch == optim.epochs:
                if optim.batch_norm == "recalibrated":
                    sampler.set_epoch(epoch)
                    recalibrate(fabric, model, itertools.islice(loader, _CALIBRATION))
                errors = validate(fabric, model, val, config)
                record |= errors
                if errors["val"] < best:
                    best = errors["val"]
                    if fabric.is_global_zero:
                        save_model(model, folder / "best")
                bar.set_postfix_str(f"loss {record['loss/total']:.3g}, val {errors['val']:.3f}, best {best:.3f}")
            log(record)
            save(epoch, 0)
    bar.close()
    fabric.barrier()


def predict_all(fabric: Fabric, model: CrowdCounter, items: Sequence[Item], precision: Precision) -> np.ndarray:
    """Counts of whole images [n], shared among the processes."""
    own = predict_counts(
        model,
        items[fabric.global_rank :: fabric.world_size],
        device=fabric.device,
        precision=precision,
    )
    if fabric.world_size == 1:
        return own
    parts: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, own)
    counts = np.empty(len(items))
    for rank, part in enumerate(parts):
        counts[rank :: fabric.world_size] = part
    return counts


def validate(fabric: Fabric, model: CrowdCounter, val: Sequence[Item], config: Config) -> dict[str, float]:
    """MAE of each domain, and under ``val`` the mean over the domains of MAE over mean count."""
    counts = predict_all(fabric, model, val, config.precision)
    result: dict[str, float] = {}
    relative = []
    for domain in dict.fromkeys(item.domain for item in val):
        mine = [i for i, item in enumerate(val) if item.domain == domain]
        annotated = np.array([val[i].count for i in mine])
        mae = summarize(counts[mine], annotated).mae
        result[f"val/{domain}"] = mae
        relative.append(mae / max(float(annotated.mean()), 1.0))
    return {"val": float(np.mean(relative)), **result}


def write_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one record."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
