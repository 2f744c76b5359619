"""Every entry of a data set checked once: records of what can be used, and a report of what was seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import UserError, printable
from ..images import BadFile, ImageInfo, inspect_image, turn_points
from ..regions import all_but, inside_region, turn_region
from .base import MALFORMED, Areas, Entry, Heads, Layout, as_points
from .layouts import find_layout

OnBad = Literal["error", "skip"]
FRACTIONS = "points are fractions of the picture, made pixels"
UNLABELLED = "without an annotation, left out"
OUTSIDE_REGION = "heads outside the region of interest, left out"
GROUPS = "groups of people, painted out but for who is marked singly"
IGNORED = "areas marked to be ignored, painted out with who stands in them"
PLACELESS = "groups or ignored areas without an extent, in whose place nobody is counted"


@dataclass(frozen=True)
class Record:
    """A checked image. ``points``: float64 [N, 2] (x, y) in the upright image's pixels; None: unlabelled."""

    split: str
    name: str
    image: Path
    size: tuple[int, int]  # (H, W), upright
    points: np.ndarray | None
    region: np.ndarray | None = None  # of interest: vertices [K, 2] (x, y) or a mask [H, W], upright; None: all of it
    sizes: np.ndarray | None = (
        None  # float64 [N, 2] (width, height) of the heads' boxes, upright; None: not all have one
    )


@dataclass
class Report:
    """What a reader saw; ``print(report)`` is meant to be read."""

    domain: str
    layout: str
    root: Path
    heads: dict[str, list[int]] = field(default_factory=dict)  # split -> heads per image
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was noticed -> names
    bad: list[tuple[Path, str]] = field(default_factory=list)  # unusable files and why
    says: str = ""  # what the layout takes for granted
    boxes: int = 0  # heads that were annotated as boxes
    top: bool = False  # the middle of whose top edge was taken
    labels: frozenset[str] = frozenset()  # what was counted as a head, where there are labels
    left: frozenset[str] = frozenset()  # labels that were not counted
    areas: Counter[str] = field(default_factory=Counter)  # what they are -> how many

    def note(self, what: str, name: str) -> None:
        self.notes.setdefault(what, []).append(name)

    def raise_if_bad(self) -> None:
        """Raise `UserError` with the first bad file, if there is one."""
        if self.bad:
            path, reason = self.bad[0]
            more = f" (and {len(self.bad) - 1} more bad files)" if len(self.bad) > 1 else ""
            raise UserError(f"{self.domain}: {path}: {reason}{more}; repair it, or skip such with --on-bad skip")

    def __str__(self) -> str:
        pictures = sum(map(len, self.heads.values()))
        boxes = f", {pictures} pictures, {self.boxes} boxes -> {'top-' * self.top}centres" if self.boxes else ""
        says = f" ({self.says})" if self.says else ""
        lines = [f"{self.domain}: layout {self.layout} in {self.root}{boxes}{says}"]
        for split, heads in self.heads.items():
            line = f"  {split:<10} {len(heads):>6} images"
            if split != "unlabelled":
                per_image = f"{min(heads)} to {max(heads)}, mean {np.mean(heads):.1f} per image"
                line += f"  {sum(heads):>9,} heads  ({per_image})"
            lines.append(line)
        if self.labels:
            lines.append(f"  counted as heads: {', '.join(_names(self.labels))}")
        if self.left:
            lines.append(f"  not counted: {some(_names(self.left))}")
        lines += [f"  {what}: {number}" for what, number in sorted(self.areas.items()) if number]
        lines += [f"  {what}: {some(names)}" for what, names in sorted(self.notes.items())]
        return "\n".join(lines + bad_lines(self.bad))


def _names(labels: frozenset[str]) -> list[str]:
    """Labels as they may be printed: a damaged file has any."""
    return sorted(printable(label) or "no label" for label in labels)


def some(names: list[str], most: int = 4) -> str:
    """How many there are and what the first few are called."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})"


def bad_lines(bad: Sequence[tuple[Path, str]], of_file: int = 3, most: int = 20) -> list[str]:
    """A line for each unusable file; of one list with 300 wrong lines only the first few."""
    reasons: dict[Path, list[str]] = {}
    for path, reason in bad:
        reasons.setdefault(path, []).append(reason)
    lines = []
    for path, all_of_it in reasons.items():
        name = printable(str(path))  # a damaged list may name anything
        lines += [f"  BAD {name}: {reason}" for reason in all_of_it[:of_file]]
        if len(all_of_it) > of_file:
            lines.append(f"  BAD {name}: {len(all_of_it) - of_file} more like these")
    return lines if len(lines) <= most else [*lines[:most], f"  BAD: {len(lines) - most} more lines like these"]


def check_points(points: np.ndarray, size: tuple[int, int], image: Path) -> tuple[str, ...]:
    """What is worth noting of the points [N, 2] of an image of ``size`` (H, W).

    Raises `BadFile` when most of them lie far outside: they are another image's.
    """
    height, width = size
    # More than a tenth of the image away is no annotator's slip.
    far = ((points < -0.1 * np.array([width, height])) | (points > 1.1 * np.array([width, height]))).any(axis=1)
    if far.sum() > 0.5 * len(points):
        x, y = points[far][0]
        where = f"far outside the {width}x{height} image, like ({x:g}, {y:g})"
        raise BadFile(image, f"{far.sum()} of {len(points)} points lie {where}")
    outside = ((points < 0) | (points >= [width, height])).any(axis=1)
    return ("no heads",) * (len(points) == 0) + ("points outside",) * bool(outside.any())


def check_boxes(points: np.ndarray, sizes: np.ndarray, size: tuple[int, int], image: Path) -> None:
    """Raise `BadFile` when many boxes around points [N, 2] reach far outside an image of ``size`` (H, W): their second corners
    were taken for widths and heights.
    """
    far = (points + sizes / 2 > 1.1 * np.array([size[1], size[0]])).any(axis=1)
    if far.sum() > max(0.25 * len(points), 2):
        corners = "are they two corners, where a corner, a width and a height are expected?"
        raise BadFile(
            image, f"{far.sum()} of {len(points)} boxes reach far outside the {size[1]}x{size[0]} image: {corners}"
        )


def like_fractions(points: np.ndarray) -> bool:
    """Whether two or more different points [N, 2] all lie in the first pixel, as fractions of the picture do."""
    in_one = len(points) > 1 and bool(((points >= 0) & (points <= 1)).all())
    return in_one and len(np.unique(points, axis=0)) > 1 and not (points == np.floor(points)).all()


def _check(
    entry: Entry, info: ImageInfo, heads: Heads | None, upright: bool, fractions: bool
) -> tuple[Record, tuple[str, ...]]:
    """One image's record and what is worth noting. ``fractions``: those of the whole data set look like it."""
    upright = upright or (heads is not None and heads.upright)
    stored = info.size if upright or info.orientation < 5 else info.size[::-1]
    unit = stored if heads is not None and (heads.fractions or fractions) else (1, 1)
    region = entry.region() if entry.region else _without(heads.areas, unit) if heads and heads.areas else None
    region = region if region is None or upright else turn_region(region, info.orientation, info.size)
    if heads is None:
        return Record(entry.split, entry.name, entry.image, info.size, None, region), info.notes
    points, sizes, notes = heads.points, heads.sizes, info.notes
    if heads.fractions or fractions:
        with np.errstate(over="ignore"):
            points = as_points(points * [stored[1], stored[0]], entry.image)
            sizes = None if sizes is None else sizes * [stored[1], stored[0]]
        notes += (FRACTIONS,) * (fractions and len(points) > 0)
    elif like_fractions(points):
        raise BadFile(entry.image, f"its {len(points)} points all lie in pixel (0, 0): are they fractions?")
    if not upright:
        points = turn_points(points, info.orientation, info.size)
        sizes = sizes[:, ::-1] if sizes is not None and info.orientation >= 5 else sizes
    if sizes is not None:
        check_boxes(points, sizes, info.size, entry.image)
    notes += check_points(points, info.size, entry.image)
    if region is not None:
        inside = inside_region(points, region, info.size, entry.image)
        notes += (OUTSIDE_REGION,) * bool((~inside).any())
        points, sizes = points[inside], None if sizes is None else sizes[inside]
    return Record(entry.split, entry.name, entry.image, info.size, points, region, sizes), notes


def _without(areas: Areas, unit: tuple[int, int]) -> np.ndarray | None:
    """The region without the areas, of which a pixel is 1 / ``unit`` (H, W); None: they have no extent."""
    with np.errstate(over="ignore"):  # a damaged file has any corners
        groups, single, ignored = (
            [np.clip(ring * [unit[1], unit[0]], -1e6, 1e6) for ring in kind] for kind in areas[:3]
        )
    near = [ring for ring in single if any(_meet(ring, group) for group in groups)]
    # Whole pixels: the one with the middle of the top edge belongs to a person's box.
    whole = [np.where(ring > ring.mean(axis=0), np.ceil(ring), np.floor(ring)) for ring in near]
    return np.concatenate([all_but(groups, whole), all_but(ignored)]) if groups or ignored else None


def _meet(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the boxes around two polygons [K, 2] overlap."""
    return bool(((one.min(axis=0) <= other.max(axis=0)) & (other.min(axis=0) <= one.max(axis=0))).all())


def _entries(root: Path, layout: Layout) -> list[Entry]:
    try:
        entries = list(layout.entries(root))
    except BadFile as bad:
        raise UserError(f"{bad.path}: {bad}") from None
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None
    except MALFORMED as error:  # a number where a list should be, a field that is missing ...
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{root}: damaged, or not in the layout '{layout.name}' ({reason})") from None
    if not entries:
        raise UserError(f"{root}: no images in the '{layout.name}' layout here")
    return entries


def _note_twins(records: dict[str, list[Record]], report: Report) -> None:
    """Note image files with the same bytes: tested on what was trained on, or counted twice. Bad are val and test pictures
    that are all in train; a few are in some public data sets."""
    by_size: dict[int, list[Record]] = {}
    for record in (record for rows in records.values() for record in rows):
        by_size.setdefault(record.image.stat().st_size, []).append(record)
    first: dict[bytes, Record] = {}
    learned = {"val": 0, "test": 0}
    for record in (record for rows in by_size.values() if len(rows) > 1 for record in rows):
        with record.image.open("rb") as file:
            twin = first.setdefault(hashlib.file_digest(file, "sha256").digest(), record)
        if twin is not record:
            where = f"twice in {record.split}" if twin.split == record.split else f"in {twin.split} and {record.split}"
            report.note(f"the same picture {where}", record.name)
            if twin.split == "train" and record.split in learned:
                learned[record.split] += 1
    for split, number in learned.items():
        if 0 < number == len(records[split]):
            which = f"the only picture of {split} is" if number == 1 else f"all {number} pictures of {split} are"
            report.bad.append(
                (report.root, f"{which} in train, too: what was learned tests nothing, give {split} its own")
            )


def read_domain(
    domain: str, path: Path, layout: str | None = None, progress: bool = True
) -> tuple[dict[str, list[Record]], Report]:
    """Check every image and annotation of one data set.

    Returns the usable records by split and the report, in which unusable files are listed: what to do with
    those (`Report.raise_if_bad`) is the caller's choice. Raises `UserError` when there is no data set at ``path``.
    """
    from tqdm import tqdm

    root, row = find_layout(path, layout)
    report = Report(domain, row.name, root, says=row.says)
    records: dict[str, list[Record]] = {"train": [], "val": [], "test": [], "unlabelled": []}
    found: list[tuple[Entry, ImageInfo, Heads | None]] = []
    hide = None if progress else True  # None: unless this is a terminal
    for entry in tqdm(_entries(root, row), f"checking {domain}", unit="image", disable=hide, leave=False):
        if entry.points is None and not row.keep_unlabelled:
            report.note(UNLABELLED, entry.name)
            continue
        try:
            points = entry.points() if entry.points else None
            heads = Heads(points) if isinstance(points, np.ndarray) else points
            found.append((entry, inspect_image(entry.image), heads))
        except BadFile as bad:
            report.bad.append((bad.path, str(bad)))
    pixels = [heads.points for _, _, heads in found if heads is not None and not heads.fractions]
    fractions = like_fractions(np.concatenate(pixels)) if pixels else False
    for entry, info, heads in found:
        try:
            record, notes = _check(entry, info, heads, row.upright_points, fractions)
        except BadFile as bad:
            report.bad.append((bad.path, str(bad)))
            continue
        records[entry.split].append(record)
        report.heads.setdefault(entry.split, []).append(0 if record.points is None else len(record.points))
        if heads is not None:
            report.boxes += heads.boxes
            report.top |= heads.top
            report.labels |= heads.labels
            report.left |= heads.left
        if heads is not None and (areas := heads.areas):
            report.areas.update({GROUPS: len(areas.groups), IGNORED: len(areas.ignored), PLACELESS: areas.placeless})
        for note in notes:
            report.note(note, f"{entry.split}/{entry.name}")
    _note_twins(records, report)
    return records, report
