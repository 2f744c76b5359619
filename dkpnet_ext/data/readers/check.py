"""Every entry of a data set checked once: records of what can be used, and a report of what was seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import UserError
from ..images import BadFile, inspect_image, turn_points
from .base import Entry, Layout
from .layouts import find_layout

OnBad = Literal["error", "skip"]


@dataclass(frozen=True)
class Record:
    """A checked image. ``points``: float64 [N, 2] (x, y) in the upright image's pixels; None: unlabelled."""

    split: str
    name: str
    image: Path
    size: tuple[int, int]  # (H, W), upright
    points: np.ndarray | None


@dataclass
class Report:
    """What a reader saw; ``print(report)`` is meant to be read."""

    domain: str
    layout: str
    root: Path
    heads: dict[str, list[int]] = field(default_factory=dict)  # split -> heads per image
    notes: dict[str, list[str]] = field(default_factory=dict)  # what was noticed -> names
    bad: list[tuple[Path, str]] = field(default_factory=list)  # unusable files and why

    def note(self, what: str, name: str) -> None:
        self.notes.setdefault(what, []).append(name)

    def raise_if_bad(self) -> None:
        """Raise `UserError` with the first bad file, if there is one."""
        if self.bad:
            path, reason = self.bad[0]
            more = f" (and {len(self.bad) - 1} more bad files)" if len(self.bad) > 1 else ""
            raise UserError(f"{self.domain}: {path}: {reason}{more}; repair it, or skip such with --on-bad skip")

    def __str__(self) -> str:
        lines = [f"{self.domain}: layout {self.layout} in {self.root}"]
        for split, heads in self.heads.items():
            line = f"  {split:<10} {len(heads):>6} images"
            if split != "unlabelled":
                per_image = f"{min(heads)} to {max(heads)}, mean {np.mean(heads):.1f} per image"
                line += f"  {sum(heads):>9,} heads  ({per_image})"
            lines.append(line)
        lines += [f"  {what}: {_some(names)}" for what, names in sorted(self.notes.items())]
        lines += [f"  BAD {path}: {reason}" for path, reason in self.bad]
        return "\n".join(lines)


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})"


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


def _check(entry: Entry, layout: Layout) -> tuple[Record, tuple[str, ...]]:
    points = entry.points() if entry.points else None
    info = inspect_image(entry.image)
    notes = info.notes
    if points is not None:
        if not layout.upright_points:
            points = turn_points(points, info.orientation, info.size)
        notes += check_points(points, info.size, entry.image)
    return Record(entry.split, entry.name, entry.image, info.size, points), notes


def read_domain(
    domain: str, path: Path, layout: str | None = None, progress: bool = True
) -> tuple[dict[str, list[Record]], Report]:
    """Check every image and annotation of one data set.

    Returns the usable records by split and the report, in which unusable files are listed: what to do with
    those (`Report.raise_if_bad`) is the caller's choice. Raises `UserError` when there is no data set at ``path``.
    """
    from tqdm import tqdm

    root, row = find_layout(path, layout)
    report = Report(domain, row.name, root)
    records: dict[str, list[Record]] = {"train": [], "val": [], "test": [], "unlabelled": []}
    try:
        entries = list(row.entries(root))
    except BadFile as bad:
        raise UserError(f"{bad.path}: {bad}") from None
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None
    hide = None if progress else True  # None: unless this is a terminal
    for entry in tqdm(entries, f"checking {domain}", unit="image", disable=hide, leave=False):
        try:
            record, notes = _check(entry, row)
        except BadFile as bad:
            report.bad.append((bad.path, str(bad)))
            continue
        records[entry.split].append(record)
        report.heads.setdefault(entry.split, []).append(0 if record.points is None else len(record.points))
        for note in notes:
            report.note(note, f"{entry.split}/{entry.name}")
    if not entries:
        raise UserError(f"{root}: no images in the '{row.name}' layout here")
    return records, report
