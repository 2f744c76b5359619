"""Training state and models on disk: written beside, checked, then renamed, so that a kill at any moment loses nothing."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ..data import Item
from ..errors import UserError
from ..files import write_atomically, writing
from ..models import CrowdCounter
from ..models.calibration import FILE as CALIBRATION

_KEYS: dict[str, type | tuple[type, ...]] = {
    "epoch": int, "batch": int, "best": float, "fingerprint": str, "model": dict, "optimizer": dict, "rng": torch.Tensor,
}  # fmt: skip


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, with the random generators' states, atomically. Raises `OutputError`."""
    state = {**state, "rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()

    def write(partial: Path) -> None:
        try:
            torch.save(state, partial)
        except RuntimeError:  # torch's word for a write that fails
            full = "the disk is full, or a limit on the size of files is reached"
            raise OSError(0, full if path.parent.is_dir() else "No such file or directory") from None

    write_atomically(path, write, check=_verify)


def _verify(path: Path) -> None:
    """Compare the checksums inside a state file. Raises `OSError`."""
    try:
        with zipfile.ZipFile(path) as file:
            bad = file.testzip()
    except zipfile.BadZipFile as error:
        raise OSError(0, str(error)) from None
    if bad is not None:
        raise OSError(0, f"wrong checksum of {bad}")


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote (never unpickling code).

    Raises:
        UserError: missing, damaged, or not a training state.
    """
    try:
        if not path.exists():
            raise UserError(f"{path}: no training state here; give the folder of an interrupted run")
        _verify(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # the disk, zip files and torch each have their own
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path}: damaged training state ({reason}); start the run anew") from None
    wrong = [key for key, kind in _KEYS.items() if not isinstance(state, dict) or not isinstance(state.get(key), kind)]
    if wrong:
        raise UserError(f"{path}: not a training state ({', '.join(wrong)} missing); start the run anew")
    return state


def restore(path: Path, state: dict[str, Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a state's weights and moments into model and optimiser.

    Raises:
        UserError: they belong to another model.
    """
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for parameter, values in optimizer.state.items():
            for value in values.values():
                if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                    raise ValueError("moments of another shape")
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: does not fit this run's model ({reason}); start the run anew") from None


def restore_rng(state: dict[str, Any]) -> None:
    """Set the random generators to where the state left them. Raises `UserError` for what is no generator's state."""
    try:
        torch.set_rng_state(state["rng"])
        if torch.cuda.is_available() and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"])
    except (RuntimeError, TypeError) as error:
        raise UserError(f"damaged training state ({error}); start the run anew") from None


def save_model(model: CrowdCounter, folder: Path) -> None:
    """`save_pretrained` into a folder whose files are replaced whole, the weights last. Raises `OutputError`."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=folder.parent) as partial:
            try:
                model.save_pretrained(partial)
            except SafetensorError as error:
                raise OSError(0, str(error).splitlines()[0]) from None
            files = sorted(Path(partial).iterdir(), key=lambda file: file.suffix == ".safetensors")
            for file in files:
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            if model.calibration is None:
                (folder / CALIBRATION).unlink(missing_ok=True)
            for file in files:
                os.replace(file, folder / file.name)


def fingerprint(items: Sequence[Item]) -> str:
    """A hash of the images' names, order, sizes, contents and points.

    Image files are read whole: 1,000 files of 1 MB take 0.7 s of processor time (SHA-256, AMD EPYC with SHA instructions).
    """
    return _mark("3", items, _content)


def belongs(mark: str, items: Sequence[Item]) -> bool:
    """Whether a state's fingerprint is that of these items. Older states know less of the images."""
    if mark.startswith("3:"):
        return mark == fingerprint(items)
    if mark.startswith("2:"):
        return mark == _mark("2", items, _ends)
    text = "\n".join(f"{item.name} {item.count}" for item in items)
    return mark == hashlib.sha256(text.encode()).hexdigest()[:16]


def _mark(version: str, items: Sequence[Item], content: Callable[[Item], bytes]) -> str:
    digest = hashlib.blake2b(version.encode(), digest_size=16)
    with ThreadPoolExecutor() as pool:  # reading and hashing release the GIL
        for item, image in zip(items, pool.map(content, items), strict=True):
            digest.update(f"{item.name} {item.size} {item.points.shape}".encode("utf-8", "surrogateescape"))
            digest.update(item.points.tobytes())
            digest.update(image)
    return f"{version}:{digest.hexdigest()}"


def _content(item: Item) -> bytes:
    """A hash of an image file, or of pixels in memory."""
    if not item.source.is_file():
        return hashlib.sha256(item.read().tobytes()).digest()
    with item.source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _ends(item: Item) -> bytes:
    """What version 2 took: an image file's length and 64 KiB at either end, or pixels in memory."""
    if not item.source.is_file():
        return item.read().tobytes()
    length, some = item.source.stat().st_size, 1 << 16
    with item.source.open("rb") as file:
        head = file.read(some)
        file.seek(max(some, length - some))
        return str(length).encode() + head + file.read(some)
