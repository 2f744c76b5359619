"""Analysis of trained models as in the paper: sub-centres, sub-domains, how well the latent separates domains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from ..data import Item
from ..evaluation.inference import shown
from ..models import DKPNet
from ..models.attention import AttentionOutput, VariationalAttention


def attention_of(model: DKPNet) -> VariationalAttention:
    """The variational attention of a model. Raises `ValueError` for one without."""
    if not isinstance(model.attention, VariationalAttention):
        raise ValueError("this model has no variational attention")
    return model.attention


def center_cosines(model: DKPNet) -> np.ndarray:
    """Table 6: cosines between the sub-centres of each domain, [C, k, k]."""
    centers = torch.nn.functional.normalize(attention_of(model).centers.detach().double(), dim=-1)
    return (centers @ centers.transpose(1, 2)).cpu().numpy()


def center_distances(model: DKPNet) -> np.ndarray:
    """Distances between the sub-centres of each domain, [C, k, k]."""
    centers = attention_of(model).centers.detach().double()
    return torch.cdist(centers, centers).cpu().numpy()


@torch.inference_mode()
def latents(
    model: DKPNet, items: Sequence[Item], device: torch.device | str = "cpu", progress: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Attention y [n, K] and latent mean mu [n, d] (None for SE) of whole images, float32."""
    model.to(device).eval()
    ys, mus = [], []
    for item in shown(items, "attention", progress):
        output = model.examine(item.read())
        assert output.attention is not None
        ys.append(output.attention[0].float().cpu().numpy())
        if output.mu is not None:
            mus.append(output.mu[0].float().cpu().numpy())
    return np.array(ys), np.array(mus) if mus else None


@contextmanager
def fixed_attention(model: DKPNet, y: np.ndarray) -> Iterator[None]:
    """Inside, the model weighs the features of every image by y [K], whatever its attention says.

    Raises:
        ValueError: a model without attention.
    """
    if model.attention is None:
        raise ValueError("this model has no attention")

    def replace(module: torch.nn.Module, args: tuple, output: AttentionOutput) -> AttentionOutput:
        own = output.attention
        return output._replace(attention=torch.as_tensor(y, dtype=own.dtype, device=own.device).expand_as(own))

    hook = model.attention.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def subdomains(model: DKPNet, mu: np.ndarray, clusters: Sequence[int], datasets: Sequence[int]) -> np.ndarray:
    """Table 7: images of each data set in each sub-domain, int [datasets, C, k].

    Args:
        mu: [n, d]; clusters: domain of each image in stage II; datasets: its data set.
    """
    centers = attention_of(model).centers.detach().cpu().numpy()
    own = centers[np.asarray(clusters)]  # [n, k, d]
    chosen = np.einsum("nkd,nd->nk", own, mu).argmax(1)  # Eq. 8
    table = np.zeros((max(datasets) + 1, *centers.shape[:2]), int)
    np.add.at(table, (np.asarray(datasets), np.asarray(clusters), chosen), 1)
    return table


class Separation(NamedTuple):
    """How well vectors tell labels apart; chance is ``majority``."""

    silhouette: float  # -1 to 1
    accuracy: float  # of the nearest centroid, five-fold cross-validated
    majority: float  # share of the largest class


def separation(vectors: np.ndarray, labels: Sequence[int], seed: int = 0) -> Separation:
    """Silhouette and nearest-centroid accuracy of vectors [n, K].

    NaN with fewer than two classes of five images, or where all vectors are one and the same.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import NearestCentroid

    known = np.asarray(labels)
    sizes = np.bincount(known)
    enough = np.isin(known, np.flatnonzero(sizes >= 5))
    known, vectors = known[enough], vectors[enough]
    if len(np.unique(known)) < 2 or float(vectors.std(0).max()) < 1e-6:
        return Separation(np.nan, np.nan, float(sizes.max() / sizes.sum()))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    accuracy = cross_val_score(NearestCentroid(), vectors, known, cv=folds).mean()
    return Separation(float(silhouette_score(vectors, known)), float(accuracy), float(sizes.max() / sizes.sum()))


LEVELS = ((0, 20), (20, 100), (100, 300), (300, 1000), (1000, np.inf))


def level_errors(counts: np.ndarray) -> list[tuple[int, float]]:
    """Images and MAE by density level: annotated heads in `LEVELS` (from, below); counts [n, 2] annotated, predicted."""
    annotated, error = counts[:, 0], np.abs(counts[:, 1] - counts[:, 0])
    rows = []
    for low, high in LEVELS:
        inside = (annotated >= low) & (annotated < high)
        rows.append((int(inside.sum()), float(error[inside].mean()) if inside.any() else np.nan))
    return rows
