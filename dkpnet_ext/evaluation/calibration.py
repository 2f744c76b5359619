"""Calibrating a counter on validation images, see `models.calibration`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.domains import split_validation
from ..errors import UserError
from ..files import write_atomically
from ..models import load_model
from ..models.calibration import ALL, LEVELS, Calibration, describe
from ..models.hub import CARD_SECTION, STARTER, find_checkpoint
from .inference import predict_counts, shown

if TYPE_CHECKING:
    from ..data.domains import Domain, Item
    from ..models import CrowdCounter

LIKE = 0.97  # share of pictures like the validation pictures that are called like the training pictures
FEWEST = 20  # validation pictures, below which nothing is said to be unlike
DESCRIBED = 120  # training pictures of a data set


def calibrate(
    model: CrowdCounter,
    train: Mapping[str, Sequence[Item]],
    val: Mapping[str, Sequence[Item]],
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
    spare: int = 0,
    crossed: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Calibration | None:
    """Measure intervals and distances of a trained counter.

    Args:
        model: is moved to ``device``.
        train: training pictures by data set. A data set without people is left out: its pictures are
            not typical of what is counted.
        val: pictures that the model was not trained on, by data set.
        spare: of `quantile`, for the errors on ``val``.
        crossed: by data set, relative errors on pictures by counters that did not learn from them; they take the place of those on
            its ``val``. There are few pictures, so all of them tell what is like them, too, see `left_out_distances`.

    Returns:
        None without a data set of at least two training pictures and one validation picture.
    """
    names = tuple(
        name for name in train if val.get(name) and len(train[name]) > 1 and any(i.count for i in train[name])
    )
    if not names:
        return None
    model.to(device)

    def described(items: Sequence[Item]) -> np.ndarray:
        with model.evaluating():
            rows = [describe(model, item.read()).numpy() for item in shown(items, "describing", progress)]
        return np.stack(rows).astype(np.float64)

    samples = {name: described(train[name][:: -(-len(train[name]) // DESCRIBED)]) for name in names}
    held = [item for name in names for item in val[name]]
    descriptions, of = described(held), np.array([item.domain for item in held])
    counts = predict_counts(model, held, device=device, progress=progress)
    for name in set(crossed) & set(names):
        samples[name] = np.concatenate([samples[name], descriptions[of == name]])
    centres, whitening = gaussians([samples[name] for name in names])
    distances = _distances(descriptions, centres, whitening)
    nearest = np.array(names)[distances.argmin(1)]
    far = [left_out_distances(samples, name) if name in crossed else distances[of == name].min(1) for name in names]
    annotated = np.array([item.count for item in held])
    errors = relative_errors(annotated, counts)
    groups = {name: errors[nearest == name] for name in names} | {n: e for n, e in crossed.items() if n in names}
    groups[ALL] = np.concatenate([crossed[name] if name in crossed else errors[of == name] for name in names])
    # Groups with errors on val, which may need the spare rank.
    chosen = {ALL, *names} if set(names) - set(crossed) else set()
    spares = {name: spare if name in chosen and name not in crossed else 0 for name in groups}
    quantiles = {
        level: {n: q for n, e in groups.items() if (q := quantile(e, level / 100, spares[n])) is not None}
        for level in LEVELS
    }
    limit = like_limit(np.concatenate(far))
    pictures = {name: len(group) for name, group in groups.items()}
    return Calibration(names, centres, whitening, limit, quantiles, pictures)


def calibrate_checkpoint(
    source: str | Path, domains: Sequence[Domain], *, device: torch.device | str = "cpu", progress: bool = False
) -> Calibration:
    """Calibrate a saved model anew, from the data sets it was trained on, and write the result beside its weights.

    Validation pictures are a data set's own, or the tenth of its training pictures that a training holds out.

    Args:
        source: a folder, see `find_checkpoint`; its model card gets the intervals, too.

    Raises:
        UserError: not enough pictures; a folder that cannot be written.
    """
    folder = find_checkpoint(source)
    if folder == STARTER:
        raise UserError(
            "calibrate: the packaged model keeps its intervals; calibrate a copy: load_model().save_pretrained(FOLDER)"
        )
    parts = {d.name: (d.train, d.val) if d.val else split_validation(d.train) for d in domains}
    train, val = ({name: part[i] for name, part in parts.items()} for i in (0, 1))
    model = load_model(folder).to(device).for_inference("torch")
    found = calibrate(model, train, val, device=device, progress=progress)
    if found is None:
        raise UserError("calibrate: a data set needs two training pictures, one with people, and a validation picture")
    found.save(folder)
    card = folder / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8")
        section = f"## {CARD_SECTION}\n\n{found.card()}\n\n"
        before, heading, after = text.partition(f"## {CARD_SECTION}\n")
        if heading:
            text = before + section + "".join(after.partition("## ")[1:])
        elif "## Limits" in text:
            text = text.replace("## Limits", section + "## Limits", 1)
        else:
            text = f"{text.rstrip()}\n\n{section.rstrip()}\n"
        write_atomically(card, text)
    return found


def relative_errors(annotated: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The score of which an interval is a quantile: |annotated - predicted| / (predicted + 1), float64 [n]."""
    return np.abs(annotated - counts) / (counts + 1)


def _distances(rows: np.ndarray, centres: torch.Tensor, whitening: torch.Tensor) -> np.ndarray:
    """`Calibration.distances` of n descriptions [n, K]: float64 [n, D]."""
    bare = Calibration(tuple(map(str, range(len(centres)))), centres, whitening, math.inf, {}, {})
    return np.array([bare.distances(torch.from_numpy(row)) for row in rows])


def left_out_distances(samples: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Distances of a data set's descriptions to the nearest Gaussian, float64 [n]; its own is that of the other three quarters.

    Args:
        samples: descriptions [n_d, K] by data set.
    """
    own = samples[name]
    part = np.random.default_rng(0).permutation(len(own)) % 4
    found = np.empty(len(own))
    for k in range(4):
        known = gaussians([own[part != k] if other == name else rows for other, rows in samples.items()])
        found[part == k] = _distances(own[part == k], *known).min(1)
    return found


def like_limit(distances: np.ndarray) -> float:
    """The distance beyond which a picture is unlike the training pictures, from those of n validation pictures, float64 [n].

    It is a split conformal quantile: of pictures like the validation pictures at most 1 - `LIKE` are called unlike. The
    most distant picture, which is the limit of fewer than 33 pictures, may be a rare one: of 88 it hid a sixth of the
    wallpapers (bench/results/intervals.md).
    """
    if len(distances) < FEWEST:
        return math.inf
    limit = quantile(distances, LIKE)
    return float(distances.max()) if limit is None else limit


def quantile(scores: np.ndarray, level: float, spare: int = 0) -> float | None:
    """Split conformal quantile: the ceil((n + 1) level)-th smallest of n scores; None where n is too small for it.

    Args:
        spare: so many ranks higher, for scores that are too small because they chose the model.
    """
    rank = _rank(len(scores), level, spare)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else None


def fewest(level: float, spare: int = 0) -> int:
    """The smallest number of scores that have a `quantile`."""
    return next(n for n in itertools.count(1) if _rank(n, level, spare) <= n)


def _rank(count: int, level: float, spare: int) -> int:
    return math.ceil((count + 1) * level - 1e-9) + spare


def gaussians(samples: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D, K] and whitening matrix [D, K, K] of D samples [n_d, K], float32.

    The covariance of each is shrunk (Ledoit and Wolf, 2004), after the features have been scaled to unit deviation within the
    samples.
    """
    from sklearn.covariance import LedoitWolf

    deviation = np.concatenate([sample - sample.mean(0) for sample in samples]).std(0)
    deviation = deviation.clip(max(0.05 * float(np.median(deviation)), 1e-6))  # a feature that was hardly ever there
    centres, whitening = [], []
    for sample in samples:
        fitted = LedoitWolf().fit(sample / deviation)
        values, vectors = np.linalg.eigh(fitted.covariance_)
        centres.append(sample.mean(0))
        whitening.append((vectors / np.sqrt(values.clip(1e-6))).T / deviation)
    return tuple(torch.from_numpy(np.stack(part)).float() for part in (centres, whitening))  # type: ignore[return-value]
