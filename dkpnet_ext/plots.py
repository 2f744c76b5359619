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

LEAST_PEAK = 1 / 32  # heads per cell at full heat, at least: a single head that fills 16 x 16 px reaches about that
_OWN, _GRAY = 0.75 * 0.6, 0.75 * 0.4 / 3  # the photograph is dimmed so that heat shows
_DIMMED = tuple(value for i in range(3) for value in (*(_OWN * (i == j) + _GRAY for j in range(3)), 0.0))
_OPACITY = [round(0.85 * heat) for heat in range(256)]
MAX_SIDE = 2048  # px; a picture for the eye needs no more, and a map over 8192 x 8192 px would take gigabytes


def overlay(
    image: Image.Image | np.ndarray,
    density: Tensor | np.ndarray,
    count: float | None = None,
    peak: float | None = None,
    points: np.ndarray | None = None,
) -> Image.Image:
    """Density as heat over the photograph; below it the count and what the colours stand for.

    Args:
        image: RGB, or uint8 [H, W, 3]; scaled down to at most `MAX_SIDE` px a side.
        density: [h, w] of the whole image, heads per cell.
        count: what the caption below says; None leaves the caption out.
        peak: heads per cell at full heat, by default `heat_peak` of the map (give one for all frames of a video).
        points: [N, 2 or more] (x, y) in pixels of ``image``, drawn as dots.

    Returns:
        RGB image, higher than the photograph by its caption, and as wide (wider where the caption is).
    """
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
    peak = heat_peak(density) if peak is None else peak
    full, width = per_area(peak, density, image.size), image.width
    image.thumbnail((MAX_SIDE, MAX_SIDE))  # a copy in either case
    heat = _heat(density, image.size, peak)
    # Pillow's loops over bytes, which take a fifth of NumPy's time over floats: a video draws every frame.
    result = Image.composite(_coloured(heat), image.convert("RGB", _DIMMED), heat.point(_OPACITY))
    if points is not None:
        _dots(result, points[:, :2] * (image.width / width))
    if count is not None:
        return captioned(result, f"{count:,.0f} {'person' if round(count) == 1 else 'people'}", full)
    return result


def heat_layer(density: Tensor | np.ndarray) -> Image.Image:
    """Density [h, w] as a picture of its own, to lie over the photograph: RGBA, one pixel per cell."""
    heat = _heat(density, (density.shape[1], density.shape[0]))
    layer = _coloured(heat)
    layer.putalpha(heat)
    return layer


def heat_peak(density: Tensor | np.ndarray) -> float:
    """Heads per cell at full heat: the 99.9 % quantile (single peaks would darken all else).

    At least `LEAST_PEAK`, so that an empty scene stays dark and does not look like a crowd.
    """
    return max(float(np.quantile(np.asarray(density, np.float32), 0.999)), LEAST_PEAK)


def per_area(heads: float, density: Tensor | np.ndarray, size: tuple[int, int]) -> float:
    """Heads per cell of a density [h, w] -> heads per 100 x 100 pixels of its picture of size (W, H)."""
    return heads * density.shape[0] * density.shape[1] / (size[0] * size[1]) * 1e4


def _heat(density: Tensor | np.ndarray, size: tuple[int, int], peak: float | None = None) -> Image.Image:
    """How hot a density map is at size (W, H): a gray picture, 255 at ``peak`` and above."""
    heat = np.asarray(density, np.float32).clip(min=0) / (heat_peak(density) if peak is None else peak)
    # The square root lets a sparse crowd be seen beside a dense one.
    heat = (255 * np.sqrt(heat.clip(max=1))).round().astype(np.uint8)
    return Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)


def _coloured(heat: Image.Image) -> Image.Image:
    """`_heat` as RGB of the same size."""
    picture = heat.copy()
    picture.putpalette(colormap(np.linspace(0, 1, 256)).round().astype(np.uint8).tobytes())
    return picture.convert("RGB")


def colormap(values: np.ndarray) -> np.ndarray:
    """[h, w] in [0, 1] -> RGB float32 [h, w, 3] in [0, 255]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["turbo"](values)[..., :3], np.float32) * 255


def _dots(image: Image.Image, points: np.ndarray) -> None:
    """White dots with a dark rim at points [N, 2] (x, y)."""
    radius = max(1.5, min(image.size) / 350)
    draw = ImageDraw.Draw(image)
    for x, y in points:
        draw.ellipse((x - radius - 1, y - radius - 1, x + radius + 1, y + radius + 1), fill=(0, 0, 0))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255))


def captioned(image: Image.Image, text: str, full: float, unit: str = "per 100 x 100 px") -> Image.Image:
    """The image above a strip with the text and the scale: a bar from 0 to ``full`` people ``unit``."""
    size = max(12, min(image.size) // 24)
    font, pad = ImageFont.load_default(size), size // 2
    unit = f"{float(f'{full:.2g}'):,g} {unit}"  # two digits, never 7.8e+02
    widths = [int(font.getlength(word)) + pad for word in (text, "0", unit)]
    bar = 6 * size
    result = Image.new("RGB", (max(image.width, sum(widths) + bar + 4 * pad), image.height + 2 * size))
    result.paste(image)
    draw = ImageDraw.Draw(result)
    middle = image.height + size
    left = result.width - widths[2] - bar - pad
    draw.text((pad, middle), text, font=font, fill=(255, 255, 255), anchor="lm")
    draw.text((left - widths[1], middle), "0", font=font, fill=(170, 170, 170), anchor="lm")
    colors = colormap(np.sqrt(np.linspace(0, 1, bar))).astype(np.uint8)
    result.paste(Image.fromarray(np.repeat(colors[None], size, axis=0)), (left, middle - size // 2))
    draw.text((left + bar + pad, middle), unit, font=font, fill=(170, 170, 170), anchor="lm")
    return result


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
        ValueError: fewer than three vectors, all of them equal, or a group with another number of labels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    vectors = np.asarray(vectors, np.float32)
    if len(vectors) < 3:
        raise ValueError(f"tsne_plot: {len(vectors)} vectors; at least 3 are needed")
    if not np.ptp(vectors, axis=0).any():  # scikit-learn's t-SNE ends in a segmentation fault
        raise ValueError("tsne_plot: all vectors are equal")
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
