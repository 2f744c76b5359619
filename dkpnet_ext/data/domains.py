"""Data sets ready for training: `Item`s (an image and its points) and `Domain`s, from folders or from memory."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import UserError
from .cache import Job, default_cache, fill_cache
from .images import limited_size
from .readers import LAYOUTS, OnBad, Record, Report, read_domain


@dataclass(frozen=True)
class Item:
    """One image that is ready to be read, and its annotation."""

    name: str  # "SHA/train/IMG_12.jpg": domain/split/file, unique
    domain: str
    image: Path  # cached .npy uint8 [H, W, 3] RGB, upright
    size: tuple[int, int]  # (H, W) of the cached image
    points: np.ndarray  # [N, 2] float32 (x, y) in cached pixels, all annotated points (also those outside)
    scale: float  # cached pixels per original pixel
    source: Path  # the original image file

    @property
    def count(self) -> int:
        """Number of annotated points: the ground truth of every metric."""
        return len(self.points)

    def read(self) -> np.ndarray:
        """The cached image, memory-mapped: uint8 [H, W, 3]."""
        return np.load(self.image, mmap_mode="r")


@dataclass
class Domain:
    """One data set. NWPU's labelled val list is ``test``; its unlabelled test images are ``unlabelled``."""

    name: str
    layout: str
    root: Path
    train: list[Item]
    val: list[Item]
    test: list[Item]
    report: Report
    unlabelled: list[Item] = field(default_factory=list)


def _scale_points(points: np.ndarray | None, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Points move with the pixels; what was inside the image stays inside, also after rounding to float32."""
    if points is None:
        return np.zeros((0, 2), np.float32)
    old_wh, new_wh = np.array(old[::-1]), np.array(new[::-1])
    limit = np.nextafter(new_wh.astype(np.float32), np.float32(0))
    # float32 cannot hold every float64
    scaled = np.clip(points * (new_wh / old_wh), -1e9, 1e9).astype(np.float32)
    return np.where((points < old_wh) & (scaled > limit), limit, scaled)


def cache_records(
    domain: str,
    records: Sequence[Record],
    report: Report,
    cache: Path,
    min_side: int,
    max_side: int,
    progress: bool,
) -> list[tuple[str, Item]]:
    """Fill the cache where it lacks an image; (split, item) in order. Undecodable files go to the report."""
    jobs = [Job(record.image, limited_size(record.size, min_side, max_side)) for record in records]
    targets, bad = fill_cache(domain, jobs, cache, progress)
    items = []
    for record, job, target in zip(records, jobs, targets, strict=True):
        if target in bad:
            report.bad.append((record.image, str(bad[target])))
            continue
        name = f"{domain}/{record.split}/{record.name}"
        points = _scale_points(record.points, record.size, job.size)
        scale = max(job.size) / max(record.size)
        items.append((record.split, Item(name, domain, target, job.size, points, scale, record.image)))
    return items


def parse_spec(spec: str) -> tuple[str, Path, str | None]:
    """``NAME=PATH`` or ``NAME=PATH:layout`` -> name, path, layout or None. Raises `UserError`."""
    name, equals, rest = spec.partition("=")
    if not equals or not re.fullmatch(r"[\w.+-]+", name) or not rest:
        raise UserError(f"'{spec}' does not name data; write NAME=PATH, NAME=PATH:layout, or synthetic")
    path, colon, layout = rest.rpartition(":")
    if colon and not Path(rest).expanduser().exists() and re.fullmatch(r"[\w-]+", layout):
        if layout not in LAYOUTS:
            raise UserError(f"'{spec}': '{layout}' is not a layout (known: {', '.join(LAYOUTS)})")
        return name, Path(path).expanduser(), layout
    return name, Path(rest).expanduser(), None


def load_domains(
    specs: Sequence[str],
    *,
    cache: Path | None = None,
    min_side: int = 416,
    max_side: int = 2048,
    on_bad: OnBad = "error",
    progress: bool = True,
) -> list[Domain]:
    """Read, check and cache the data sets that ``specs`` name.

    specs: "NAME=PATH" (layout recognised), "NAME=PATH:layout", or "synthetic" (every synthetic domain).
    min_side, max_side: limits in pixels on the cached images' shortest and longest side; where both cannot
    hold, the longest side wins. on_bad: "error" raises at the first unusable file, "skip" leaves such files
    out; either way all of them stand in the domain's report. Raises `UserError`.
    """
    if not 0 < min_side <= max_side:
        raise UserError(f"min_side {min_side} and max_side {max_side} leave no size; give 0 < min_side <= max_side")
    cache = default_cache() if cache is None else Path(cache)
    sources: list[tuple[str, Path, str | None]] = []
    for spec in specs:
        if spec == "synthetic":
            from ..synthetic.scenes import ensure

            sources += [(name, path, "list") for name, path in ensure(cache / "synthetic", progress=progress).items()]
        else:
            sources.append(parse_spec(spec))
    names = [name for name, _, _ in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two data sets are called '{twice[0]}'; give each its own name")

    domains = []
    for name, path, layout in sources:
        records, report = read_domain(name, path, layout, progress)
        if progress:
            print(report, file=sys.stderr)
        if on_bad == "error":
            report.raise_if_bad()  # before hours of decoding
        checked = len(report.bad)
        splits: dict[str, list[Item]] = {split: [] for split in records}
        everything = [record for rows in records.values() for record in rows]
        for split, item in cache_records(name, everything, report, cache, min_side, max_side, progress):
            splits[split].append(item)
        for file, reason in report.bad[checked:] if progress else ():
            print(f"  BAD {file}: {reason}", file=sys.stderr)
        if on_bad == "error":
            report.raise_if_bad()
        report.heads = {split: [item.count for item in items] for split, items in splits.items() if items}
        domains.append(Domain(name, report.layout, report.root, report=report, **splits))
    return domains


def split_validation(items: Sequence[Item], fraction: float = 0.1, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Split off a validation part: (train, val), fixed by a hash of the names whatever the items' order.

    ``fraction`` > 0 takes at least one item, and always leaves one for training when there are two.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction must be in [0, 1), got {fraction}")
    count = min(max(1, round(fraction * len(items))), len(items) - 1) if fraction > 0 and items else 0
    ranked = sorted(items, key=lambda item: hashlib.blake2b(f"{seed}/{item.name}".encode()).digest())
    chosen = {item.name for item in ranked[:count]}
    return [item for item in items if item.name not in chosen], [item for item in items if item.name in chosen]
