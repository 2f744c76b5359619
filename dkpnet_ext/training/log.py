"""What a run records: a JSON object per epoch in metrics.jsonl, curves for TensorBoard, a line on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..errors import UserError, say
from ..files import write_atomically, writing

Record = dict[str, Any]


class RunLog:
    """Takes records; one of the same stage and epoch as an older one (a kill came between it and the state) replaces it.

    Raises:
        UserError: metrics.jsonl is damaged, or cannot be written.
    """

    def __init__(self, folder: Path, callback: Callable[[Record], object] | None = None) -> None:
        self.file, self.callback = folder / "metrics.jsonl", callback
        self.records = read_metrics(self.file) if self.file.exists() else []
        with writing(folder):
            self.board = SummaryWriter(str(folder / "tensorboard"))

    def __call__(self, record: Record) -> None:
        """Write a record; its keys ``stage`` and ``epoch`` say what it is of."""
        key = (record["stage"], record.get("epoch"))
        self.records = [r for r in self.records if (r["stage"], r.get("epoch")) != key] + [record]
        write_atomically(self.file, "".join(json.dumps(r) + "\n" for r in self.records))
        with writing(self.file.parent / "tensorboard"):
            for name, value in record.items():
                if isinstance(value, float):
                    self.board.add_scalar(f"{record['stage']}/{name}", value, record.get("epoch", 0))
            self.board.flush()
        if self.callback is not None:
            self.callback(record)

    def close(self) -> None:
        """Let TensorBoard's thread end."""
        with suppress(OSError):
            self.board.close()


def read_metrics(path: Path) -> list[Record]:
    """The records of a run, without a last line that was cut off.

    Raises:
        UserError: a line that is no record.
    """
    records = []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            record = json.loads(line)
            record["stage"] + ""
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError(f"{path}: line {number} is damaged; delete this line, or start the run anew") from None
        records.append(record)
    return records


def say_beside_bar(line: str) -> None:
    """Print a line without tearing a progress bar."""
    with tqdm.external_write_mode():
        say(line)
