"""Between the stages: cluster stage I's attention vectors into the intrinsic domains of stage II."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..data import Item
from ..errors import UserError
from ..files import write_atomically

# Attention vectors of 512 correlated channels from some hundred images: a full covariance in that space would be
# singular, so the vectors are first projected on their leading principal components.
_COMPONENTS = 16


def cluster_attention(
    vectors: np.ndarray, num_clusters: int, method: Literal["gmm", "kmeans", "dbscan"] = "gmm", seed: int = 0
) -> np.ndarray:
    """Cluster label of each image.

    Args:
        vectors: float [n, K], attention y of every training image.
        num_clusters: c. DBSCAN finds its own number and keeps the c largest; images of other clusters and noise go
            to the nearest kept centre.
        method: Gaussian mixture (the paper's), k-means or DBSCAN (its footnote 3).

    Returns:
        int64 [n] in [0, c), clusters numbered from the largest to the smallest.

    Raises:
        UserError: fewer images than clusters, or DBSCAN finds fewer clusters than asked for.
    """
    from sklearn.cluster import DBSCAN, KMeans
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import NearestNeighbors

    count = len(vectors)
    if count < num_clusters:
        raise UserError(f"clustering: {count} training images cannot form {num_clusters} clusters; lower num-clusters")
    if float(vectors.std(0).max()) < 1e-4:
        warnings.warn(
            "clustering: the attention is (nearly) the same for all images, so its clusters mean nothing; "
            "give the KL less weight, or lower the learning rate",
            stacklevel=2,
        )
    if num_clusters == 1:
        return np.zeros(count, np.int64)
    points = PCA(min(_COMPONENTS, count, vectors.shape[1]), random_state=seed).fit_transform(vectors.astype(np.float64))
    points /= max(points[:, 0].std(), 1e-12)  # attention of an early model varies little; the scale means nothing
    if method == "gmm":
        model = GaussianMixture(num_clusters, covariance_type="diag", n_init=5, reg_covar=1e-4, random_state=seed)
        labels = model.fit_predict(points)
    elif method == "kmeans":
        labels = KMeans(num_clusters, n_init=10, random_state=seed).fit_predict(points)
    else:
        neighbours = min(5, count - 1)
        distances, _ = NearestNeighbors(n_neighbors=neighbours + 1).fit(points).kneighbors(points)
        radius = max(float(np.quantile(distances[:, -1], 0.75)), 1e-9)  # 0: all are the same
        labels = DBSCAN(eps=radius, min_samples=neighbours).fit_predict(points)
        found, sizes = np.unique(labels[labels >= 0], return_counts=True)
        if len(found) < num_clusters:
            raise UserError(f"clustering: DBSCAN finds {len(found)} clusters, not {num_clusters}; use gmm or kmeans")
        kept = found[np.argsort(-sizes)][:num_clusters]
        centres = np.stack([points[labels == c].mean(0) for c in kept])
        labels = np.linalg.norm(points[:, None] - centres[None], axis=-1).argmin(1)
    order = np.argsort(-np.bincount(labels, minlength=num_clusters), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[labels].astype(np.int64)


def save_clusters(path: Path, items: Sequence[Item], clusters: np.ndarray) -> None:
    """Write each image's cluster as JSON, by the image's name. Raises `OutputError`."""
    write_atomically(path, json.dumps({item.name: int(c) for item, c in zip(items, clusters, strict=True)}, indent=0))


def load_clusters(path: Path, items: Sequence[Item], num_clusters: int) -> list[int]:
    """The cluster of each item.

    Raises:
        UserError: damaged, or of other images or another number of clusters.
    """
    try:
        clusters = json.loads(path.read_text(encoding="utf-8"))
        labels = [clusters[item.name] for item in items]
        if not all(type(label) is int and 0 <= label < num_clusters for label in labels):
            raise ValueError(f"a cluster is none of 0 to {num_clusters - 1}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: damaged ({reason}); delete it, and stage I's attention is clustered anew") from None
    except KeyError as error:
        raise UserError(f"{path}: belongs to other images ({error.args[0]} is missing); start a new run") from None
    return labels
