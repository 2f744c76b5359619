"""Pictures: density over the photograph, rows of density maps (Fig. 4), t-SNE of attention (Fig. 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

MAX_SIDE = 2048  # px; a picture for the eye needs no more, and a map over 8192 x 8192 px would take gigabytes


def overlay(
    image: Image.Image | np.ndarray,
    density: Tensor | np.ndarray,
    count: float | None = None,
    peak: float | None = None,
) -> Image.Image:
    """Density as heat over the photograph, with the count in a caption.

    Args:
        image: RGB, or uint8 [H, W, 3]; scaled down to at most `MAX_SIDE` px a side.
        density: [h, w] of the whole image, heads per cell.
        count: what the caption says; None leaves it out.
        peak: heads per cell at full heat, by default `heat_peak` of the map (give one for all frames of a video).

    Returns:
        RGB image.
    """
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))  # a copy in either case
    color, alpha = _heat(density, image.size, peak)
    alpha = 0.85 * alpha
    ground = np.asarray(image, np.float32)
    gray = ground.mean(2, keepdims=True)
    ground = 0.75 * (0.6 * ground + 0.4 * gray)  # dimmed so that heat shows
    blended = ground + (color - ground) * alpha[:, :, None]
    result = Image.fromarray(blended.clip(0, 255).astype(np.uint8))
    if count is not None:
        _caption(result, f"{count:,.0f} {'person' if round(count) == 1 else 'people'}")
    return result


def heat_layer(density: Tensor | np.ndarray) -> Image.Image:
    """Density [h, w] as a picture of its own, to lie over the photograph: RGBA, one pixel per cell."""
    color, alpha = _heat(density, (density.shape[1], density.shape[0]))
    return Image.fromarray(np.dstack([color, 255 * alpha]).round().astype(np.uint8))


def heat_peak(density: Tensor | np.ndarray) -> float:
    """Heads per cell at full heat: the 99.9 % quantile (single peaks would darken all else).

    At least 1/256, so that the noise of an empty scene stays dark.
    """
    return max(float(np.quantile(np.asarray(density, np.float32), 0.999)), 1 / 256)


def _heat(
    density: Tensor | np.ndarray, size: tuple[int, int], peak: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Colour [H, W, 3] in [0, 255] and opacity [H, W] in [0, 1] of a density map at size (W, H)."""
    heat = np.asarray(density, np.float32).clip(min=0) / (heat_peak(density) if peak is None else peak)
    # The square root lets a sparse crowd be seen beside a dense one.
    heat = np.asarray(Image.fromarray(np.sqrt(heat.clip(max=1))).resize(size, Image.Resampling.BICUBIC))
    heat = heat.clip(0, 1)
    return _colormap(heat), heat


def _colormap(values: np.ndarray) -> np.ndarray:
    """[h, w] in [0, 1] -> RGB float32 [h, w, 3] in [0, 255]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["turbo"](values)[..., :3], np.float32) * 255


def _caption(image: Image.Image, text: str) -> None:
    """Draw the text into a dark rounded box in the upper left corner."""
    size = max(12, min(image.size) // 18)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image, "RGBA")
    pad = size // 2
    left, top, right, bottom = draw.textbbox((2 * pad, 2 * pad), text, font=font)
    draw.rounded_rectangle((left - pad, top - pad, right + pad, bottom + pad), size // 3, fill=(0, 0, 0, 170))
    draw.text((2 * pad, 2 * pad), text, font=font, fill=(255, 255, 255))


def density_figure(
    images: Sequence[Any],
    densities: Sequence[Tensor | np.ndarray],
    counts: Sequence[float],
    annotated: Sequence[float] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Fig. 4: one row per image, the photograph beside its density map.

    Args:
        images: whatever `data.images.to_tensor` takes; densities: [h, w] each; counts: predicted.
        annotated: numbers of annotated heads, or None; path: where to save it (PNG, PDF ...), or None.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from .data.images import to_tensor

    rows = len(images)
    figure = Figure(figsize=(8, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for row, axes in enumerate(figure.subplots(rows, 2, squeeze=False)):
        axes[0].imshow(to_tensor(images[row]).permute(1, 2, 0).numpy())
        axes[1].imshow(np.asarray(densities[row], np.float32), cmap="turbo", vmin=0)
        axes[0].set_title("" if annotated is None else f"annotated {annotated[row]:,.0f}")
        axes[1].set_title(f"predicted {counts[row]:,.1f}")
        for axis in axes:
            axis.set_axis_off()
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def tsne_plot(vectors: np.ndarray, labels_by_group: Mapping[str, Sequence], path: str | Path, seed: int = 0) -> None:
    """Fig. 5 and 6: one t-SNE of the attention vectors, drawn once per labelling.

    Args:
        vectors: [n, K], n >= 3; path: picture file to write.
        labels_by_group: for each panel's title (such as "data set", "cluster") the n labels.

    Raises:
        ValueError: fewer than three vectors, or a group with another number of labels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    vectors = np.asarray(vectors, np.float32)
    if len(vectors) < 3:
        raise ValueError(f"tsne_plot: {len(vectors)} vectors; at least 3 are needed")
    for group, labels in labels_by_group.items():
        if len(labels) != len(vectors):
            raise ValueError(f"tsne_plot: {len(labels)} labels in {group!r} for {len(vectors)} vectors")
    # t-SNE asks for a perplexity below the number of points; 30 is its customary value.
    embedding = TSNE(perplexity=min(30, (len(vectors) - 1) / 3), init="pca", random_state=seed).fit_transform(vectors)
    figure = Figure(figsize=(5 * len(labels_by_group), 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(labels_by_group), squeeze=False)[0]
    for axis, (group, labels) in zip(panels, labels_by_group.items(), strict=True):
        names = np.array([str(label) for label in labels])
        for name in dict.fromkeys(sorted(names)):
            axis.scatter(*embedding[names == name].T, s=12, alpha=0.8, linewidths=0, label=name)
        axis.set_title(group)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.legend(markerscale=2, fontsize="small", loc="best")
    figure.savefig(path, dpi=150)
