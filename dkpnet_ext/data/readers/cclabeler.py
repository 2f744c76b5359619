"""cclabeler (github.com/Elin24/cclabeler).

    images/1.jpg   jsons/1.json     (perhaps in data/)

The JSON has ``points`` {x, y} and ``boxes`` {sx, sy, ex, ey}, of which each is a head, and ``human_num``, their number.
A picture without a JSON is unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .base import Entry, Layout, has, pictures
from .nwpu import read_nwpu_json


def _entries(root: Path) -> Iterator[Entry]:
    folder = root / "data" if has(root, "data/jsons") else root
    for image in pictures(folder / "images"):
        truth = folder / "jsons" / f"{image.stem}.json"
        labelled = truth.exists()
        yield Entry(
            "train" if labelled else "unlabelled",
            image.name,
            image,
            partial(read_nwpu_json, truth) if labelled else None,
        )


def _recognise(root: Path) -> bool:
    return any(has(root, f"{folder}/jsons") and has(root, f"{folder}/images") for folder in (".", "data"))


LAYOUT = Layout("cclabeler", _recognise, _entries, upright_points=True)
