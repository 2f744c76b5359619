"""Training state on disk: written beside, then renamed, so that a kill at any moment loses nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..data import Item
from ..errors import UserError
from ..models import CrowdCounter


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, with the random generators' states, atomically."""
    state = {**state, "rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state()
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    os.replace(partial, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote (never unpickling code).

    Raises:
        UserError: missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no training state here; give the folder of an interrupted run") from None
    except Exception as error:
        raise UserError(f"{path}: damaged training state ({type(error).__name__}); start the run anew") from None


def restore_rng(state: dict[str, Any]) -> None:
    """Set the random generators to where the state left them."""
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and "cuda_rng" in state:
        torch.cuda.set_rng_state(state["cuda_rng"])


def save_model(model: CrowdCounter, folder: Path) -> None:
    """`save_pretrained` into a folder that is complete or absent."""
    partial = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def fingerprint(items: Sequence[Item]) -> str:
    """A short hash of which images, with how many heads, in which order."""
    text = "\n".join(f"{item.name} {item.count}" for item in items)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
