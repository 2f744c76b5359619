"""Pictures without people as one more data set: drawn ones, and those of any folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import create_folder
from ..synthetic.negatives import picture
from .cache import Job, default_cache, fill_cache
from .domains import Domain, Item
from .images import BadFile, inspect_image, limited_size
from .readers import Report
from .readers.check import bad_lines
from .readers.tree import walk_pictures

NAME = "negatives"
DRAWN = "drawn"
SHARE = 0.1  # of the images of a batch
_SIZES = {"train": 600, "test": 70}
_VERSION = 1  # of what `picture` draws
_LONGEST = 1024  # pixels: a photograph of 20 megapixels shows the blur of its lens, not its texture


def load_negatives(
    sources: Sequence[str],
    *,
    cache: Path | None = None,
    min_side: int = 416,
    max_side: int = 2048,
    progress: bool = True,
) -> Domain:
    """A data set called ``negatives`` whose pictures have no heads.

    Args:
        sources: ``drawn`` (see `synthetic.negatives`), or folders: every picture below them must be without people. All of
            a folder is for training, but what lies below a folder called ``test``.
        cache: folder of decoded images; min_side, max_side: limits in pixels, the upper one at most 1024.

    Raises:
        UserError: a source that is no folder, or holds no picture; none to train on; a cache that cannot be written.
    """
    cache = default_cache() if cache is None else Path(cache).expanduser()
    found: list[tuple[str, str, Path]] = []
    for number, source in enumerate(sources):
        folder = _draw(cache / NAME, progress) if source == DRAWN else Path(source).expanduser()
        if not folder.is_dir():
            raise UserError(f"negatives {source}: no such folder; give folders of pictures without people, or {DRAWN}")
        paths = walk_pictures(folder)
        if not paths:
            raise UserError(f"negatives {source}: no pictures in it")
        for path in paths:
            inside = path.relative_to(folder)
            split = "test" if "test" in inside.parts else "train"
            found.append((split, f"{NAME}/{split}/{number}/{inside.as_posix()}", path))
    report = Report(NAME, "pictures without people", cache)
    jobs, kept = [], []
    for split, name, path in found:
        try:
            size = limited_size(inspect_image(path).size, min_side, max(min(max_side, _LONGEST), min_side))
        except BadFile as error:
            report.bad.append((path, str(error)))
            continue
        jobs.append(Job(path, size))
        kept.append((split, name))
    targets, bad = fill_cache(NAME, jobs, cache, progress)
    report.bad += [(job.source, str(bad[t])) for job, t in zip(jobs, targets, strict=True) if t in bad]
    domain = Domain(NAME, report.layout, cache, [], [], [], report)
    nobody = np.zeros((0, 2), np.float32)
    for (split, name), job, target in zip(kept, jobs, targets, strict=True):
        if target not in bad:
            getattr(domain, split).append(Item(name, NAME, target, job.size, nobody, 1.0, job.source))
    if progress:
        skipped = f", {len(report.bad)} that cannot be read left out" if report.bad else ""
        lines = [f"{NAME}: {len(domain.train)} pictures without people{skipped}", *bad_lines(report.bad)]
        print("\n".join(lines), file=sys.stderr)
    if not domain.train:
        where = f"negatives {', '.join(sources)}"
        raise UserError(
            f"{where}: no picture to train on can be read (what lies below a folder called test is not for that)"
        )
    return domain


def _draw(root: Path, progress: bool) -> Path:
    """The folder of the drawn pictures, which is complete or absent."""
    final = root / f"{DRAWN}-{_VERSION}"
    if final.is_dir():
        return final

    def fill(work: Path) -> None:
        if progress:
            print(f"{NAME}: drawing {sum(_SIZES.values())} pictures, in {root}", file=sys.stderr)
        for seed, (split, count) in enumerate(_SIZES.items()):
            (work / split).mkdir()
            for index in range(count):
                picture(seed, index).save(work / split / f"{index:04d}.png", compress_level=1)

    create_folder(final, fill)
    return final
