"""Counting people's own pictures: a count, an overlay and a line in a JSON file for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.images import IMAGE_SUFFIXES, read_image
from ..device import Precision, autocast
from ..errors import UserError
from ..files import OutputError, Prediction, find_files, output_folder, writing
from ..plots import overlay
from .regions import Regions, count_regions
from .video import VIDEO_SUFFIXES, count_video

if TYPE_CHECKING:
    from ..models import CrowdCounter


def predict_files(
    model: CrowdCounter,
    inputs: Sequence[Path],
    output: Path,
    *,
    regions: Regions | None = None,
    precision: Precision = "fp32",
    progress: bool = False,
) -> Iterator[Prediction]:
    """Count pictures, videos, and those in folders, one after the other; at the end `predictions.json` lists all.

    A file that cannot be read yields a `Prediction` with its error, and the others follow.

    Args:
        model: on its device; output: folder for the results, created.

    Raises:
        UserError: a folder without pictures; an output that cannot be written.
    """
    files = find_files(list(inputs), IMAGE_SUFFIXES | VIDEO_SUFFIXES, skip=output)
    output_folder(output)
    done: list[Prediction] = []
    names: set[str] = set()
    try:
        for path in files:
            name, number = path.stem, 1
            while name in names:  # pictures of one name in several folders
                number += 1
                name = f"{path.stem}-{number}"
            names.add(name)
            count = count_video if path.suffix.lower() in VIDEO_SUFFIXES else count_picture
            try:
                done.append(count(model, path, output, name, regions or {}, precision, progress))
            except OutputError:
                raise
            except UserError as error:
                done.append(Prediction(str(path), error=str(error)))
            yield done[-1]
    finally:  # also of what was done before Ctrl-C
        target = output / "predictions.json"
        with writing(target):
            target.write_text(json.dumps([asdict(p) for p in done], indent=2) + "\n", encoding="utf-8")


def count_picture(
    model: CrowdCounter,
    path: Path,
    output: Path,
    name: str,
    regions: Regions,
    precision: Precision = "fp32",
    progress: bool = False,
) -> Prediction:
    """Count one picture and write ``<name>-density.png`` into ``output``. Raises `UserError`."""
    image = read_image(path)
    with autocast(model.pixel_mean.device, precision):
        density = model.density(image).cpu()
    size = (image.height, image.width)
    count = float(density.double().sum())
    counts = count_regions(density, regions, size, model.out_stride)
    target = output / f"{name}-density.png"
    with writing(target):
        overlay(image, density, count).save(target)
    return Prediction(str(path), count, size, counts, [target.name])
