"""Data sets ready for training: `Item`s (an image and its points) and `Domain`s, from folders or from memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError, say
from .cache import Job, default_cache, fill_cache
from .images import MIN_PIXELS, BadFile, decode, inspect_image, limited_size, to_tensor
from .readers import LAYOUTS, OnBad, Record, Report, as_points, bad_lines, check_points, read_domain

Labelled = tuple[Any, Any]  # an image and its points, see `Domain.from_arrays`


@dataclass(frozen=True)
class Item:
    """One image that is ready to be read, and its annotation."""

    name: str  # "SHA/train/IMG_12.jpg": domain/split/file, unique
    domain: str
    image: Path | np.ndarray  # uint8 [H, W, 3] RGB, upright: a cached .npy, an image file, or the pixels themselves
    size: tuple[int, int]  # (H, W) of what `read` gives
    points: np.ndarray  # [N, 2] float32 (x, y) in its pixels, all annotated points (also those outside)
    scale: float  # its pixels per original pixel
    source: Path  # the original image file; of pixels in memory a name
    sizes: np.ndarray | None = (
        None  # [N, 2] float32 (width, height) of the heads' boxes in its pixels, where all have one
    )

    @property
    def count(self) -> int:
        """Number of annotated points: the ground truth of every metric."""
        return len(self.points)

    def read(self) -> np.ndarray:
        """The image: uint8 [H, W, 3] RGB; from the cache it is memory-mapped."""
        if isinstance(self.image, np.ndarray):
            return self.image
        if self.image.suffix == ".npy":
            return _map(self.image, (*self.size, 3))
        return np.asarray(decode(self.image, self.size))


def _map(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A uint8 array that `np.save` wrote, memory-mapped.

    `np.load` would parse its header as Python source, which fails now and then in several threads before Python 3.11.8
    ("AST constructor recursion depth mismatch", cpython#106905).
    """
    with open(path, "rb") as file:
        header = int.from_bytes(file.read(10)[8:], "little")  # after the magic number and the version
        return np.memmap(file, np.uint8, "r", offset=10 + header, shape=shape)


@dataclass
class Domain:
    """One data set: from a folder by `load_domains`, from memory by `Domain.from_arrays`.

    NWPU's labelled val list is ``test``; its unlabelled test images are ``unlabelled``.
    """

    name: str
    layout: str
    root: Path
    train: list[Item]
    val: list[Item]
    test: list[Item]
    report: Report
    unlabelled: list[Item] = field(default_factory=list)

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train: Sequence[Labelled] = (),
        val: Sequence[Labelled] = (),
        test: Sequence[Labelled] = (),
        *,
        min_side: int = 416,
        max_side: int = 2048,
    ) -> Domain:
        """A data set from images and points in Python, without a folder of its own and without a cache.

        Args:
            name: what it is called in tables and checkpoints.
            train, val, test: pairs (image, points). An image is a path, a PIL image, a uint8 array [H, W, 3] (RGB) or
                [H, W], or a uint8 tensor [3, H, W]; a path is decoded whenever it is used, so large sets need no
                memory. Points are array-like [N, 2] (x, y) in pixels of the upright image; ``[]``: no people.
                Without ``val``, training takes a fixed tenth of ``train``.
            min_side, max_side: limits in pixels on an image's shortest and longest side, as in `load_domains`; it
                and its points are resized to them.

        Raises:
            UserError: an image that cannot be read, points that are none or belong to another image.

        Example:
            >>> image, points = np.zeros((480, 640, 3), np.uint8), [[320, 240]]
            >>> Domain.from_arrays("mine", train=[(image, points)]).train[0].count
            1
        """
        if not 0 < min_side <= max_side:
            raise UserError(f"min_side {min_side}, max_side {max_side}: give 0 < min_side <= max_side")
        domain = cls(name, "memory", Path("memory"), [], [], [], Report(name, "memory", Path("memory")))
        for split, pairs in (("train", train), ("val", val), ("test", test)):
            items = getattr(domain, split)
            for number, pair in enumerate(pairs):
                if not isinstance(pair, tuple | list) or len(pair) != 2:
                    raise UserError(f"{name}: {split} image {number} is no pair (image, points)")
                image, points = pair
                try:
                    items.append(_item(name, split, number, image, points, min_side, max_side, domain.report))
                except BadFile as bad:
                    raise UserError(f"{name}: {split} image {number} ({bad.path}): {bad}") from None
            if len({item.name for item in items}) < len(items):
                raise UserError(f"{name}: {split} holds an image file twice")
            learned = (
                {item.source for item in domain.train if isinstance(item.image, Path)} if split != "train" else set()
            )
            if items and learned.issuperset(item.source for item in items):
                raise UserError(f"{name}: the images of {split} are all in train, too; give {split} its own")
            if items:
                domain.report.heads[split] = [item.count for item in items]
        return domain


def _scale_points(points: np.ndarray | None, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Points move with the pixels; what was inside the image stays inside, also after rounding to float32."""
    if points is None:
        return np.zeros((0, 2), np.float32)
    old_wh, new_wh = np.array(old[::-1]), np.array(new[::-1])
    limit = np.nextafter(new_wh.astype(np.float32), np.float32(0))
    # float32 cannot hold every float64
    scaled = np.clip(points * (new_wh / old_wh), -1e9, 1e9).astype(np.float32)
    return np.where((points < old_wh) & (scaled > limit), limit, scaled)


def _item(
    domain: str, split: str, number: int, image: Any, points: Any, min_side: int, max_side: int, report: Report
) -> Item:
    """An `Item` that needs no cache. Raises `BadFile`."""
    if isinstance(image, str | Path):
        source = Path(image)
        info = inspect_image(source)
        old, notes = info.size, info.notes
        size = limited_size(old, min_side, max_side)
        pixels: Path | np.ndarray = source
    else:
        source, notes = Path(f"{number:05d}"), ()
        try:
            picture = to_tensor(image).permute(1, 2, 0).contiguous().numpy()
        except (UserError, TypeError, ValueError, OSError) as error:  # OSError: of a cut picture of Pillow's
            raise BadFile(source, str(error)) from None
        old = picture.shape[:2]
        if min(old) < MIN_PIXELS:
            raise BadFile(source, f"{old[1]}x{old[0]} px is too small (at least {MIN_PIXELS} px a side)")
        size = limited_size(old, min_side, max_side)
        resized = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=2.0)
        pixels = picture if size == old else np.asarray(resized)
    checked = as_points(points, source)
    name = f"{domain}/{split}/{source.as_posix().lstrip('/')}"
    for note in (*notes, *check_points(checked, old, source)):
        report.note(note, name)
    return Item(name, domain, pixels, size, _scale_points(checked, old, size), max(size) / max(old), source)


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
    jobs = [
        Job(record.image, limited_size(record.size, min_side, max_side), record.region, record.size)
        for record in records
    ]
    targets, bad = fill_cache(domain, jobs, cache, progress)
    items = []
    for record, job, target in zip(records, jobs, targets, strict=True):
        if target in bad:
            report.bad.append((record.image, str(bad[target])))
            continue
        name = f"{domain}/{record.split}/{record.name}"
        points = _scale_points(record.points, record.size, job.size)
        scale = max(job.size) / max(record.size)
        sizes = None if record.sizes is None else (record.sizes * scale).astype(np.float32)
        items.append((record.split, Item(name, domain, target, job.size, points, scale, record.image, sizes)))
    return items


def parse_spec(spec: str) -> tuple[str, Path, str | None]:
    """``NAME=PATH``, ``PATH`` (named after itself), or one of them with ``:layout`` -> name, path, layout or None.

    Raises `UserError`.
    """
    name, equals, rest = spec.partition("=")
    if not equals or not re.fullmatch(r"[\w.+-]+", name) or Path(spec).expanduser().exists():
        name, rest = "", spec  # no name: a path, which may hold an equals sign
    path, colon, layout = rest.rpartition(":")
    if not (colon and not Path(rest).expanduser().exists() and re.fullmatch(r"[\w-]+", layout)):
        path, layout = rest, ""
    elif layout not in LAYOUTS:
        raise UserError(f"'{spec}': '{layout}' is not a layout (known: {', '.join(LAYOUTS)})")
    folder = Path(path).expanduser()
    if not path or (not name and not folder.exists()):
        raise UserError(f"'{spec}': no such file or folder; write PATH, NAME=PATH, NAME=PATH:layout, or synthetic")
    own = re.sub(r"[^\w.+-]+", "_", folder.resolve().name if folder.is_dir() else folder.stem)
    return name or own or "data", folder, layout or None


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

    specs: "NAME=PATH" (layout recognised), "PATH" (named after its folder), "NAME=PATH:layout", or "synthetic" (every
    synthetic domain).
    min_side, max_side: limits in pixels on the cached images' shortest and longest side; where both cannot
    hold, the longest side wins. on_bad: "error" raises at the first unusable file, "skip" leaves such files
    out; either way all of them stand in the domain's report. Raises `UserError`.
    """
    if not 0 < min_side <= max_side:
        raise UserError(f"min_side {min_side} and max_side {max_side} leave no size; give 0 < min_side <= max_side")
    cache = default_cache() if cache is None else Path(cache).expanduser()
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
            for line in str(report).splitlines():
                say(line, error=True)
        if on_bad == "error":
            report.raise_if_bad()  # before hours of decoding
        checked = len(report.bad)
        splits: dict[str, list[Item]] = {split: [] for split in records}
        everything = [record for rows in records.values() for record in rows]
        for split, item in cache_records(name, everything, report, cache, min_side, max_side, progress):
            splits[split].append(item)
        for line in bad_lines(report.bad[checked:]) if progress else ():
            say(line, error=True)
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
    ranked = sorted(
        items, key=lambda item: hashlib.blake2b(f"{seed}/{item.name}".encode(errors="surrogateescape")).digest()
    )
    chosen = {item.name for item in ranked[:count]}
    return [item for item in items if item.name not in chosen], [item for item in items if item.name in chosen]
