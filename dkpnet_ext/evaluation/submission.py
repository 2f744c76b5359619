"""The text file that the NWPU-Crowd server takes: one line "id count" per image of the unlabelled test set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..files import output_folder, write_atomically

if TYPE_CHECKING:
    from ..data.domains import Item

IMAGES = 1500  # of the test set
_LINE = re.compile(r"\d{4} \d+\.\d{4}")


def write_submission(path: Path, items: Sequence[Item], counts: np.ndarray) -> None:
    """Check a submission, and write it in the order of the ids.

    Args:
        items: the test set's images, each named by its id (``3610.jpg``); counts: [n], negative ones become 0.

    Raises:
        UserError: not the 1500 test images; the file cannot be written.
    """
    lines = sorted(
        f"{item.source.stem} {max(float(count), 0.0):.4f}" for item, count in zip(items, counts, strict=True)
    )
    _check(lines, path)
    output_folder(path.parent)
    write_atomically(path, "\n".join(lines) + "\n")


def check_submission(path: Path) -> None:
    """Check a submission as the server would.

    Raises:
        UserError: the first line that is wrong, an id that stands twice, or a number of lines other than 1500.
    """
    _check(path.read_text(encoding="ascii", errors="replace").splitlines(), path)


def _check(lines: Sequence[str], path: Path) -> None:
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            raise UserError(f"submission {path}: line {number} is {line!r}; expected a four-digit id and a count")
    if len(lines) != IMAGES:
        raise UserError(f"submission {path}: {len(lines)} lines; the test set has {IMAGES} images")
    ids = [line.split()[0] for line in lines]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise UserError(f"submission {path}: image {twice[0]} stands twice")
