"""The one place where a picture file is decoded: upright, 8-bit RGB, or one line that says why not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import UserError

# Formats by content, with the suffixes that fit. Others that Pillow knows (EPS, PDF ...) start foreign
# programs. A folder is searched by suffix; a file given by name is decoded by content, whatever its suffix.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),  # phones' MPO opens as JPEG: the first is the photo
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def read_image(path: str | Path) -> Image.Image:
    """Decode a picture file to an upright RGB image of 8 bits.

    EXIF orientation is applied; 16-bit pixels are scaled to 8; CMYK, grayscale and palettes become RGB; an
    animation gives its first frame.

    Raises:
        UserError: no such file, not a picture, truncated, or more than 179 million pixels (Pillow's limit
            against decompression bombs).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"image {path}: {'is a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise UserError(f"image {path}: the file is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Pillow warns at half its limit and about odd metadata; neither matters to the pixels.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(SUFFIXES)) as image:
                return to_rgb(image)
    except UserError as error:
        raise UserError(f"image {path}: {error}") from None
    except Image.DecompressionBombError:
        raise UserError(f"image {path}: more than 179 million pixels; scale it down or cut it") from None
    except MemoryError:
        raise UserError(f"image {path}: not enough memory to decode it; scale it down or cut it") from None
    except Image.UnidentifiedImageError:
        raise UserError(f"image {path}: not a picture ({', '.join(SUFFIXES)} are read)") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"image {path}: damaged ({reason})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image -> upright RGB of 8 bits (see `read_image`)."""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata says nothing about the pixels
        pass
    if image.mode == "F":
        raise UserError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits: I;16, I;16B, and plain I in some decoders
        image = Image.fromarray(np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8))
    if image.mode == "P":  # a palette with transparency converts cleanly only by way of RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


def to_tensor(image: Any) -> Tensor:
    """What people hold in their hands -> uint8 [3, H, W], RGB.

    Args:
        image: a path (decoded by `read_image`), a PIL image, a uint8 array [H, W, 3] or [H, W] (gray), or a
            uint8 tensor [3, H, W].

    Raises:
        UserError: a path that cannot be decoded.
        ValueError, TypeError: an array or tensor of another shape or dtype.
    """
    if isinstance(image, str | Path):
        image = read_image(image)
    elif isinstance(image, Image.Image):
        image = to_rgb(image)
    elif not isinstance(image, np.ndarray | Tensor):
        raise TypeError(f"image is a {type(image).__name__}; a path, PIL image, array or tensor is possible")
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8:
            raise TypeError(f"image tensor is {image.dtype}; uint8 is expected")
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"image tensor is {tuple(image.shape)}; [3, H, W] is expected")
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8:
        raise TypeError(f"image array is {array.dtype}; uint8 is expected")
    if array.ndim == 2:
        array = np.broadcast_to(array[:, :, None], (*array.shape, 3))
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"image array is {array.shape}; [H, W, 3] or [H, W] is expected")
    # One copy to planar order, which also detaches read-only and memory-mapped arrays.
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), order="C"))
