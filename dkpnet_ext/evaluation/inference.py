"""Counts and attention vectors of whole images, one image at a time, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.images import to_tensor
from ..device import Precision, autocast
from ..models.locating import locate, to_picture
from .metrics import BOX_RADII, GAME_LEVELS, RADII, box_radii, game_errors, matched_points

if TYPE_CHECKING:
    from ..data.domains import Item
    from ..models import CrowdCounter
    from ..models.calibration import Assessment


class Predicted(NamedTuple):
    """What is predicted for n images, float64."""

    counts: np.ndarray  # [n]
    game: np.ndarray  # [n, levels], see `game_errors`
    matched: (
        np.ndarray
    )  # [n, RADII and BOX_RADII] heads found at their place, see `matched_points`; NaN where not known
    assessed: Sequence[Assessment] = ()  # [n], of a model that is calibrated, where asked for


def predict_counts(
    model: CrowdCounter,
    items: Sequence[Item],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    nine_patch: bool = False,
    progress: bool = False,
) -> np.ndarray:
    """Predicted count of every item, float64 [n]: `predict_items` without the rest."""
    how = {"device": device, "precision": precision, "nine_patch": nine_patch, "progress": progress}
    return predict_items(model, items, **how).counts  # type: ignore[arg-type]


def predict_items(
    model: CrowdCounter,
    items: Sequence[Item],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    nine_patch: bool = False,
    points: bool = False,
    assess: bool = False,
    progress: bool = False,
) -> Predicted:
    """Predicted count of every item, its GAME errors, and how many of its heads are found at their place.

    The items are counted as they are cached: at the size that was chosen when they were loaded. The model is moved to
    ``device`` and keeps its mode.

    Args:
        nine_patch: evaluate as the authors' released code does, see `nine_patch_count`; GAME is NaN then.
        points: locate the heads, too, and match them within `RADII` pixels of the original image and, where heads have
            boxes, within `BOX_RADII`; not with nine patches.
        assess: give each count its interval and say whether the image is like the training images, where the model is
            calibrated.
    """
    model.to(device)
    counts, errors, matched, assessed = [], [], [], []
    with autocast(device, precision):
        for item in shown(items, "counting", progress):
            image = to_tensor(item.read())
            found = np.full(len(RADII) + len(BOX_RADII), np.nan)
            if nine_patch:
                counts.append(nine_patch_count(model, image))
                errors.append(np.full(GAME_LEVELS, np.nan))
            else:
                density = model.density(image, as_is=True).double().cpu()
                counts.append(float(density.sum()))
                size = (image.shape[1], image.shape[2])
                errors.append(game_errors(density, item.points, size, model.out_stride))
                if points:
                    heads = to_picture(locate(density, model.out_stride)[0], size, size)
                    reaches = [radius * item.scale for radius in RADII]
                    reaches += [] if item.sizes is None else box_radii(item.sizes)
                    found[: len(reaches)] = [matched_points(heads, item.points, reach) for reach in reaches]
            matched.append(found)
            if assess and (said := model.assess(image, counts[-1])) is not None:
                assessed.append(said)
    return Predicted(
        np.array(counts, np.float64),
        np.array(errors, np.float64).reshape(-1, GAME_LEVELS),
        np.array(matched, np.float64).reshape(-1, len(RADII) + len(BOX_RADII)),
        assessed,
    )


@torch.inference_mode()
def nine_patch_count(model: CrowdCounter, image: Tensor) -> float:
    """Count as the authors' released code does: nine overlapping patches, each an image of its own.

    The image is resized to multiples of 32 and cut into 3 x 3 patches of half its height and width, a quarter apart.
    Of each patch its middle half counts, at the image's edges also what lies outside it.

    Args:
        image: uint8 [3, H, W].
    """
    height, width = (-(-side // 32) * 32 for side in image.shape[-2:])
    pixels = image.to(model.pixel_mean.device).unsqueeze(0) / 255
    if image.shape[-2:] != (height, width):
        pixels = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    rows, columns = height // 2, width // 2
    corners = [(i * rows // 2, j * columns // 2) for i in range(3) for j in range(3)]
    with model.evaluating():
        patches = torch.cat([pixels[:, :, y : y + rows, x : x + columns] for y, x in corners])
        density = model(patches).density[:, 0].double()

    def counted(length: int, position: int) -> slice:
        return slice(0 if position == 0 else length // 4, length if position == 2 else 3 * length // 4)

    return sum(
        float(density[n, counted(density.shape[1], n // 3), counted(density.shape[2], n % 3)].sum()) for n in range(9)
    )


def attention_vectors(
    model: CrowdCounter,
    items: Sequence[Item],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    progress: bool = False,
) -> np.ndarray:
    """Attention y of every item as a whole image in evaluation mode, float32 [n, K].

    Raises:
        ValueError: a model without attention.
    """
    model.to(device)
    vectors = []
    with autocast(device, precision):
        for item in shown(items, "attention", progress):
            vectors.append(model.attend(item.read(), as_is=True).cpu().numpy())
    return np.array(vectors, np.float32)


def shown(values: Iterable, what: str, progress: bool, unit: str = "image") -> Iterable:
    """Iterate, with a progress bar where wanted."""
    from tqdm.auto import tqdm

    return tqdm(values, desc=what, unit=unit, leave=False, disable=not progress)
