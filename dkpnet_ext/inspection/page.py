"""One HTML page that shows data sets, to be looked through before a long training."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..data.domains import Domain, Item
from ..data.images import inspect_image
from ..errors import UserError
from ..files import OutputError, write_atomically, writing
from .duplicates import find_near_duplicates

THUMBNAIL = (360, 270)  # px
SHOWN = 8  # thumbnails of a split, from the emptiest to the fullest image
MOST = 12  # suspicious images and near-duplicates shown as pictures; all are listed


def write_page(domains: Sequence[Domain], path: Path) -> list[str]:
    """Write the page: one file, pictures inside. Returns what a person should look at, a line each.

    Raises `UserError` if it cannot be written.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("dkpnet_ext", "assets"), autoescape=True)
    shown = [_domain(domain) for domain in domains]
    page = environment.get_template("data.html").render(domains=shown)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page)
    except OutputError as error:
        raise UserError(f"{error}; choose another page with --output") from None
    return [line for domain in shown for line in _findings(domain)]


def _findings(domain: dict[str, Any], most: int = 5) -> list[str]:
    """The suspicious images and near-duplicates of the page, for the terminal."""
    pairs = [
        f"{test} shows almost the same picture as {train}{' mirrored' * mirrored}"
        for train, test, _, mirrored in domain["pairs"]
    ]
    lines = []
    for found in ([f"{name}: {reasons}" for name, reasons in domain["suspicious"]], pairs):
        lines += found[:most]
        if len(found) > most:
            lines.append(f"{domain['name']}: {len(found) - most} more like these on the page")
    return lines


def _domain(domain: Domain) -> dict[str, Any]:
    splits = {name: getattr(domain, name) for name in ("train", "val", "test", "unlabelled")}
    labelled = domain.train + domain.val + domain.test
    suspicious = [(item, reasons) for item in labelled if (reasons := _suspicions(item, labelled))]
    pairs = find_near_duplicates(domain.train, domain.val + domain.test)
    return {
        "name": domain.name,
        "layout": domain.layout,
        "root": domain.root,
        "splits": [_split(name, items) for name, items in splits.items() if items],
        "bad": domain.report.bad,
        "notes": sorted(domain.report.notes.items()),
        "suspicious": [(item.name, "; ".join(reasons)) for item, reasons in suspicious],
        "suspicious_pictures": [_picture(item, *reasons) for item, reasons in suspicious[:MOST]],
        "pairs": [(pair.train.name, pair.test.name, pair.distance, pair.mirrored) for pair in pairs],
        "pair_pictures": [(_picture(pair.train), _picture(pair.test)) for pair in pairs[: MOST // 2]],
    }


def _original_size(item: Item) -> tuple[int, int]:
    """(H, W) before it was resized; about so, where the picture is not a file."""
    if item.scale != 1 and item.source.is_file():
        return inspect_image(item.source).size
    return round(item.size[0] / item.scale), round(item.size[1] / item.scale)


def _split(name: str, items: Sequence[Item]) -> dict[str, Any]:
    sizes = np.array([_original_size(item) for item in items])
    heads = np.array([item.count for item in items])
    density = heads / (sizes.prod(axis=1) / 1e6)
    order = np.argsort(heads, kind="stable")
    shown = order[np.unique(np.linspace(0, len(items) - 1, min(SHOWN, len(items))).round().astype(int))]
    smallest, largest = (sizes[index] for index in (sizes.prod(axis=1).argmin(), sizes.prod(axis=1).argmax()))
    return {
        "name": name,
        "images": len(items),
        "labelled": name != "unlabelled",
        "heads": int(heads.sum()),
        "least": int(heads.min()),
        "median": float(np.median(heads)),
        "mean": float(heads.mean()),
        "most": int(heads.max()),
        "density": float(np.median(density)),
        "sizes": f"{smallest[1]}x{smallest[0]} to {largest[1]}x{largest[0]}",
        "resized": sum(item.scale != 1 for item in items),
        "histogram": _histogram(heads),
        "pictures": [_picture(items[index], labelled=name != "unlabelled") for index in shown],
    }


def _histogram(heads: np.ndarray) -> list[tuple[str, int, float]]:
    """(heads, images, share of the highest bar) in bins that double: 0, 1, 2-3, 4-7 ..."""
    bins = np.ceil(np.log2(heads + 1)).astype(int)
    counts = np.bincount(bins)
    rows = []
    for power, count in enumerate(counts):
        low, high = (0, 0) if power == 0 else (2 ** (power - 1), 2**power - 1)
        rows.append((str(low) if low == high else f"{low}-{high}", int(count), float(count / counts.max())))
    first = next(i for i, row in enumerate(rows) if row[1])
    return rows[first:]


def _suspicions(item: Item, everything: Sequence[Item]) -> list[str]:
    """What a person should look at: reasons in words."""
    height, width = item.size
    reasons = []
    outside = int(((item.points < 0) | (item.points >= [width, height])).any(axis=1).sum())
    if outside:
        reasons.append(f"{outside} of {item.count} points outside the image")
    twice = item.count - len(np.unique(item.points, axis=0))
    if twice:
        reasons.append(f"{twice} points given twice")
    if item.count == 0:
        reasons.append("no heads")
    if item.scale > 2:
        reasons.append(f"small: enlarged {item.scale:.1f} times")
    if max(item.size) > 4 * min(item.size):
        reasons.append("very long and narrow")
    if item.count >= 10:
        spread = item.points.std(axis=0) / [width, height]
        if spread.max() < 0.03:
            reasons.append("all points in one spot")
    return reasons


def _picture(item: Item, *remarks: str, labelled: bool = True) -> dict[str, str]:
    """A thumbnail with its points, as a data URL, and what to write below it."""
    image = Image.fromarray(item.read())
    image.thumbnail(THUMBNAIL, reducing_gap=2.0)
    draw = ImageDraw.Draw(image)
    radius = 1 if item.count > 300 else 2.5
    for x, y in item.points * [image.width / item.size[1], image.height / item.size[0]]:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(255, 40, 40))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return {
        "url": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(),
        "name": item.name,
        "text": "; ".join((f"{item.count} heads" if labelled else "no labels", *remarks)),
    }
