"""The labels of a folder of pictures: drafts beside the pictures, and the lists that training reads.

    mine/train.json                    finished pictures, in the layout `list`
    mine/val.json, mine/test.json      those below a folder whose name tells val or test
    mine/.annotate/street/1.jpg.json   a draft: {"points": ..., "ignore": ...} of mine/street/1.jpg

A picture's labels are in one place: its list if it is finished, else its draft. Every change is on the disk, whole, before
it is answered. A change names the version that it began with, so that two people cannot overwrite each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..counting.regions import polygon
from ..data.images import BadFile
from ..data.readers import find_layout
from ..data.readers.base import as_points, is_file, natural, read_json
from ..data.readers.lists import beside, elsewhere, image_of, list_points
from ..data.readers.tree import Pictures, split_of, split_of_folders, walk_pictures
from ..errors import UserError
from ..files import output_folder, remove_partial, write_atomically

SPLITS = ("train", "val", "test")
DRAFTS = ".annotate"
MAX_HEADS, MAX_REGIONS, MAX_CORNERS = 100_000, 1000, 10_000  # of one picture


class Labels(NamedTuple):
    """What is labelled in one picture, in pixels of the upright picture."""

    points: list[list[float]]  # heads (x, y)
    ignore: list[list[list[float]]]  # polygons that are left out
    done: bool  # whether it is finished

    @property
    def version(self) -> str:
        """Equal for equal labels."""
        return hashlib.blake2b(json.dumps(self).encode(), digest_size=12).hexdigest()

    @property
    def heads(self) -> int:
        """Heads outside of the ignored polygons."""
        outside = np.ones(len(self.points), bool)
        for ring in self.ignore:
            outside &= ~_inside(np.array(self.points).reshape(-1, 2), np.array(ring))
        return int(outside.sum())


UNTOUCHED = Labels([], [], False)


def _inside(points: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Which points [N, 2] a polygon [K, 2] holds (even-odd rule): booleans [N]."""
    (x0, y0), (x1, y1) = ring.T, np.roll(ring, -1, axis=0).T
    x, y = points[:, :1], points[:, 1:]
    crossed = (y0 > y) != (y1 > y)
    at = x0 + (y - y0) * (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)
    return (crossed & (x < at)).sum(1) % 2 == 1


class Conflict(UserError):
    """The labels are no longer those that a change began with: it was refused."""

    def __init__(self, name: str, labels: Labels) -> None:
        super().__init__(f"{name}: somebody else changed it")
        self.labels = labels


def checked(content: Any) -> Labels:
    """Labels from outside. Raises `UserError`."""
    try:
        points, ignore, done = content["points"], content["ignore"], content["done"]
        if not (isinstance(points, list) and isinstance(ignore, list) and isinstance(done, bool)):
            raise ValueError
        if len(points) > MAX_HEADS or len(ignore) > MAX_REGIONS or any(len(ring) > MAX_CORNERS for ring in ignore):
            raise ValueError
        return Labels(
            as_points(points, Path("points")).tolist(), [polygon(ring).tolist() for ring in ignore], done
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, RecursionError, BadFile):
        raise UserError(
            f"labels are points [[x, y], ...] (at most {MAX_HEADS}), ignore (polygons, at most {MAX_REGIONS}) and done"
        ) from None


class Store:
    """The labels of the pictures below a folder, which nobody else writes meanwhile (see `files.locked`).

    Args:
        folder: of the pictures; those in folders below it, too.

    Raises:
        UserError: no pictures; labels of another layout, which would be read instead; a damaged list.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.pictures = {path.relative_to(folder).as_posix(): path for path in walk_pictures(folder)}
        if not self.pictures:
            raise UserError(f"{folder}: no pictures in this folder")
        self._refuse_others()
        self.drafts = output_folder(folder / DRAFTS)
        remove_partial(self.drafts)
        for partial in folder.glob(".*.tmp.json"):  # left behind by a killed process
            if re.fullmatch(r"\.[0-9a-f]{12}\.tmp\.json", partial.name):
                partial.unlink()
        # Entries of the lists: those of pictures here by name, others (and what else stands in an entry) as they are.
        self.listed: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in SPLITS}
        self.others: dict[str, list[Any]] = {split: [] for split in SPLITS}
        self.labels: dict[str, Labels] = {}
        for split in SPLITS:
            self._read_list(split)
        for name in self.pictures.keys() - self.labels.keys():
            if (draft := self._draft(name)).is_file():
                self.labels[name] = self._read(draft, {**_object(draft), "done": False})

    def _refuse_others(self) -> None:
        """Labels that `train` would read in the place of ours, or besides."""
        try:
            root, layout = find_layout(self.folder)
        except UserError:
            return  # nothing is labelled yet
        own = [self.folder / f"{split}.json" for split in SPLITS]
        lists = {
            path for path in root.iterdir() if split_of(path.stem) and path.suffix in (".csv", ".jsonl", ".ndjson")
        }
        if root != self.folder or layout.name != "list" or lists or not any(path.exists() for path in own):
            raise UserError(
                f"{self.folder}: it is labelled already, in the layout {layout.name} (in {root}); make it a list first: "
                f"python -m dkpnet_ext.prepare {self.folder} --to list --into FOLDER"
            )

    def _draft(self, name: str) -> Path:
        return self.drafts / f"{name}.json"

    def _read_list(self, split: str) -> None:
        path = self.folder / f"{split}.json"
        if not path.exists():
            return
        try:
            rows = read_json(path)
        except BadFile as bad:
            raise UserError(f"{path}: {bad}") from None
        if isinstance(rows, dict):
            rows = [{"image": image, "points": points} for image, points in rows.items()]
        if not isinstance(rows, list):
            raise UserError(f'{path}: not a list of {{"image": ..., "points": [[x, y], ...]}}')
        pictures = Pictures(self.folder)
        for row in rows:
            image = image_of(row)
            file = None if image is None else beside(path, image)
            if file and not is_file(file):
                file = elsewhere(file, pictures)
            name = file.relative_to(self.folder).as_posix() if file and file.is_relative_to(self.folder) else ""
            if name not in self.pictures or name in self.labels:
                self.others[split].append(row)
                continue
            try:
                points = list_points(row.get("points"), path, name, {}).tolist()
            except BadFile as bad:
                raise UserError(f"{path}: {bad}") from None
            self.labels[name] = self._read(path, {"points": points, "ignore": row.get("ignore") or [], "done": True})
            self.listed[split][name] = row

    @staticmethod
    def _read(path: Path, content: Any) -> Labels:
        try:
            return checked(content)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def get(self, name: str) -> Labels:
        """A picture's labels; none of one that nobody touched."""
        return self.labels.get(name, UNTOUCHED)

    def put(self, name: str, labels: Labels, base: str) -> str:
        """Write a picture's labels; returns their version.

        Args:
            base: the version that they began with.

        Raises:
            Conflict: the version is another one by now. OutputError: the disk does not take it; nothing has changed.
        """
        with self.lock:
            before = self.get(name)
            if base != before.version:
                raise Conflict(name, before)
            if before.done or labels.done:
                # In this order: at any moment one of the two is there, and the list counts if both are.
                if not labels.done:
                    self._write_draft(name, labels)
                self._write_list(name, labels)
                if labels.done:
                    with suppress(OSError):
                        self._draft(name).unlink()
            else:
                self._write_draft(name, labels)
            self.labels[name] = labels
            return labels.version

    def _write_draft(self, name: str, labels: Labels) -> None:
        path = self._draft(name)
        output_folder(path.parent)
        write_atomically(path, json.dumps({"points": labels.points, "ignore": labels.ignore}))
        _sync(path.parent)

    def _write_list(self, name: str, labels: Labels) -> None:
        inside = (split for split in SPLITS if name in self.listed[split])
        split = next(inside, None) or split_of_folders(Path(name).parent) or "train"
        entries = dict(self.listed[split])
        row = entries.pop(name, {"image": name})  # its own name for the picture stays
        if labels.done:
            row = {k: v for k, v in row.items() if k != "ignore"} | {"points": labels.points}
            entries[name] = row | ({"ignore": labels.ignore} if labels.ignore else {})
        path = self.folder / f"{split}.json"
        rows = [entries[key] for key in sorted(entries, key=lambda key: natural(Path(key)))] + self.others[split]
        if rows:
            lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in rows)
            write_atomically(path, f"[\n{lines}\n]\n")
        else:
            path.unlink(missing_ok=True)  # a list of nothing is no data set
        _sync(self.folder)
        self.listed[split] = entries


def _object(path: Path) -> dict[str, Any]:
    """A draft's content. Raises `UserError`."""
    try:
        content = read_json(path)
    except BadFile as bad:
        raise UserError(f"{path}: {bad}") from None
    return content if isinstance(content, dict) else {}


def _sync(folder: Path) -> None:
    """A new name in a folder survives a power failure, too."""
    with suppress(OSError):  # a file system whose folders cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
