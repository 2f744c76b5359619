"""A whole run: stage I, clustering, stage II, evaluation of every domain's test images."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from ..data import Domain, Item, load_domains, split_validation
from ..device import pick_device, pick_precision
from ..errors import UserError
from ..evaluation.baselines import mean_baseline, ridge_baseline
from ..evaluation.evaluate import write_counts
from ..evaluation.inference import attention_vectors
from ..evaluation.metrics import Metrics, markdown_table, summarize
from ..models import CrowdCounter, DKPNet, MultiBranch, load_model
from ..models.dkpnet import Attention
from ..plots import overlay, tsne_plot
from .checkpoint import save_model
from .clustering import cluster_attention
from .config import Config
from .stage import StageData, train_stage
from .validation import predict_all

_PLOTTED = 300  # at most as many images in the t-SNE plot
_STAGE1: dict[str, Attention] = {"dkpnet": "va", "va": "va", "se": "se", "jt": "none"}
_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def build_model(config: Config, stage: int, domains: list[str]) -> CrowdCounter:
    """The network of a stage, with its pretrained backbone.

    Args:
        stage: 1 (labels are data sets) or 2 (labels are clusters); domains: names of the data sets.
    """
    m = config.model
    common: dict[str, Any] = dict(
        backbone=m.backbone,
        channels=m.channels,
        domains=domains,
        out_stride=m.out_stride,
        density_scale=m.density_scale,
        min_side=config.data.min_side,
        max_side=config.data.max_side,
    )
    model: CrowdCounter
    if m.system == "mb":
        model = MultiBranch(num_domains=len(domains), **common)
    else:
        common |= dict(head=m.head, latent_dim=m.latent_dim, num_samples=m.num_samples)
        if stage == 2:
            model = DKPNet(
                attention="inva",
                num_domains=config.cluster.num_clusters,
                num_sub=config.cluster.num_sub,
                **common,
            )
        else:
            model = DKPNet(attention=_STAGE1[m.system], num_domains=len(domains), **common)
    if m.weights is not None:
        model.load_backbone(m.weights)
    return model


def make_fabric(config: Config) -> Fabric:
    """Devices and precision (``auto`` is decided here); several processes when torchrun started them."""
    device = pick_device(config.device, config.precision).type
    config.precision = pick_precision(config.precision, device)
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=max(world // local, 1),
        strategy="ddp" if world > 1 else "auto",
        precision=_PRECISION[config.precision],
    )
    fabric.launch()
    return fabric


def train(config: Config) -> Path:
    """Run or continue a training run; returns its folder.

    Raises:
        UserError: bad settings or data. Interrupted: see `train_stage`.
    """
    resuming = config.resume is not None
    if config.resume is not None:
        folder = config.resume
        config = Config.load(folder / "config.json")
    else:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = config.output or Path("runs") / f"{config.preset}-{stamp}"
    if not config.data.data:
        raise UserError("no data: give --data NAME=FOLDER ... (or --data synthetic)")
    fabric = make_fabric(config)
    folder = Path(fabric.broadcast(str(folder)))
    if fabric.is_global_zero:
        if not resuming and any(folder.glob("stage*/state.pt")):
            raise UserError(f"output {folder}: holds a run; go on with --resume {folder}, or choose another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            config.save(folder / "config.json")
        except OSError as error:
            raise UserError(
                f"output {folder}: cannot be written ({error.strerror}); choose another with --output"
            ) from None
        print(f"run folder: {folder}", flush=True)
    fabric.seed_everything(config.seed, verbose=False)
    began = time.monotonic()

    board = SummaryWriter(str(folder / "tensorboard")) if fabric.is_global_zero else None

    def log(record: dict[str, Any]) -> None:
        if board is not None:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            for key, value in record.items():
                if isinstance(value, float):
                    board.add_scalar(f"{record['stage']}/{key}", value, record.get("epoch", 0))
            board.flush()

    with fabric.rank_zero_first():  # the first process fills the cache
        domains = load_domains(
            config.data.data, cache=config.data.cache, min_side=config.data.min_side, max_side=config.data.max_side,
            on_bad=config.data.on_bad, progress=fabric.is_global_zero,
        )  # fmt: skip
    train_items, val_items, labels = split(domains, config)
    names = [d.name for d in domains]
    if config.data.ratio and len(config.data.ratio) != len(domains):
        raise UserError(f"ratio has {len(config.data.ratio)} shares for {len(domains)} domains; give one for each")
    if config.data.ratio and not (min(config.data.ratio) >= 0 and 0 < sum(config.data.ratio) < np.inf):
        raise UserError(
            f"ratio {' '.join(map(str, config.data.ratio))}: shares are positive numbers, or 0 to leave a domain out"
        )

    single = config.model.system != "dkpnet"
    stage1 = folder / "stage1"
    stage1.mkdir(exist_ok=True)
    clusters_file = folder / "clusters.json"
    if not clusters_file.exists():
        fabric.seed_everything(config.seed, verbose=False)
        model = build_model(config, 1, names)
        train_stage(fabric, model, StageData(train_items, labels, labels, val_items), config, stage1, log)
    best = stage1 / "best"
    if not single:
        if not clusters_file.exists():
            if fabric.is_global_zero:
                _cluster(best, train_items, labels, names, config, fabric.device, folder)
            fabric.barrier()
        clusters = json.loads(clusters_file.read_text())
        new_labels = [clusters[item.name] for item in train_items]
        stage2 = folder / "stage2"
        stage2.mkdir(exist_ok=True)
        fabric.seed_everything(config.seed + 1, verbose=False)
        model = build_model(config, 2, names)
        if config.optim.stage2_from == "stage1":
            trained = load_model(best)
            model.backbone.load_state_dict(trained.backbone.state_dict())
            model.pooling_head.load_state_dict(trained.pooling_head.state_dict())
        train_stage(fabric, model, StageData(train_items, new_labels, labels, val_items), config, stage2, log)
        best = stage2 / "best"

    fast = load_model(best).for_inference().to(fabric.device)
    table, rows = evaluate_domains(fabric, fast, domains, folder)
    if fabric.is_global_zero:
        log(
            {"stage": "test", "seconds": time.monotonic() - began} | {f"test/{k}": m._asdict() for k, m in rows.items()}
        )
        (folder / "results.md").write_text(f"# {folder.name}: {config.model.system}, test images\n\n{table}")
        final = load_model(best)
        final.notes = (
            f"Trained on {', '.join(names)} ({len(train_items)} images; {len(val_items)} more chose the checkpoint), "
            f"system {config.model.system}, preset {config.preset}, seed {config.seed}. Test images:\n\n{table}"
        )
        save_model(final, folder / "model")
        _pictures(fast, domains, train_items, labels, names, config, folder, fabric.device)
        print(f"\n{table}\nmodel: {folder / 'model'}\nminutes: {(time.monotonic() - began) / 60:.1f}", flush=True)
    fabric.barrier()
    return folder


def split(domains: list[Domain], config: Config) -> tuple[list[Item], list[Item], list[int]]:
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
        raise UserError("no validation images: set --val-fraction above 0")
    return train_items, val_items, labels


def _cluster(
    best: Path,
    items: list[Item],
    labels: list[int],
    names: list[str],
    config: Config,
    device: torch.device,
    folder: Path,
) -> None:
    """Cluster stage I's attention of every training image; writes clusters.json and says who went where."""
    vectors = attention_vectors(load_model(best).for_inference(), items, device=device, precision=config.precision)
    clusters = cluster_attention(vectors, config.cluster.num_clusters, config.cluster.method, config.seed)
    for c in range(config.cluster.num_clusters):
        counts = np.bincount(np.array(labels)[clusters == c], minlength=len(names))
        print(f"cluster {c}: " + ", ".join(f"{n} {k}" for n, k in zip(names, counts, strict=True)), flush=True)
    partial = folder / "clusters.tmp"
    partial.write_text(json.dumps({item.name: int(c) for item, c in zip(items, clusters, strict=True)}, indent=0))
    os.replace(partial, folder / "clusters.json")


def evaluate_domains(
    fabric: Fabric, model: CrowdCounter, domains: list[Domain], folder: Path
) -> tuple[str, dict[str, Metrics]]:
    """The final table: the model and two baselines on every domain's test images; counts.csv into ``folder``."""
    rows: dict[str, Metrics] = {}
    tested = [d for d in domains if d.test]
    counts = {d.name: predict_all(fabric, model, d.test, "fp32") for d in tested}
    if fabric.is_global_zero:
        write_counts(folder / "counts.csv", {d.name: d.test for d in tested}, counts)
    for domain in tested:
        annotated = np.array([item.count for item in domain.test])
        rows[domain.name] = summarize(counts[domain.name], annotated)
        rows[f"{domain.name}, always its training mean"] = summarize(
            mean_baseline(domain.train, domain.test), annotated
        )
        rows[f"{domain.name}, ridge on image statistics"] = summarize(
            ridge_baseline(domain.train, domain.test), annotated
        )
    return markdown_table(rows), rows


def _pictures(
    model: CrowdCounter,
    domains: list[Domain],
    train_items: list[Item],
    labels: list[int],
    names: list[str],
    config: Config,
    folder: Path,
    device: torch.device,
) -> None:
    """Density maps of two test images per domain, and where the attention vectors lie."""
    pictures = folder / "density"
    pictures.mkdir(exist_ok=True)
    for domain in domains:
        for item in domain.test[:2]:
            image = item.read()
            density = model.density(image).cpu().numpy()
            picture = overlay(Image.fromarray(np.asarray(image)), density, float(density.sum()))
            picture.save(pictures / f"{domain.name}-{item.source.stem}.png")
    if isinstance(model, DKPNet) and model.attention is not None:
        every = -(-len(train_items) // _PLOTTED)
        shown = train_items[::every]
        groups = {"data set": [names[i] for i in labels[::every]]}
        if (folder / "clusters.json").exists():
            clusters = json.loads((folder / "clusters.json").read_text())
            groups["cluster"] = [str(clusters[item.name]) for item in shown]
        vectors = attention_vectors(model, shown, device=device, precision=config.precision)
        tsne_plot(vectors, groups, folder / "tsne.png")
