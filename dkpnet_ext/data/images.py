"""The one place where a picture file is opened and decoded: upright, 8-bit RGB, or one line that says why not."""

from __future__ import annotations

import functools
import io
import math
import re
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from ..errors import UserError

# Formats by content, with the suffixes that fit. Others that Pillow knows (EPS, PDF ...) start foreign
# programs. A folder is searched by suffix; a file given by name is decoded by content, whatever its suffix.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),  # of phones; opened as JPEG: the first picture is the photo
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),  # Pillow 11.3 and later
    "HEIF": (".heic", ".heif", ".hif"),  # the optional package pillow-heif
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
MIN_PIXELS = 16  # a side; smaller "images" are icons or tracking pixels
MAX_MEGAPIXELS = 178  # Pillow's own limit against decompression bombs (2 x 89 megapixels)
_32_BITS = "32-bit pixels: save it with 8 or 16 bits"
_GRAY = (128, (128, 128, 128))  # of libjpeg, where there are no data
_ORIENTED = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where a PNG may say how it is turned
_USUAL = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


class BadFile(Exception):
    """One file that cannot be used: ``str()`` is the reason, in one line, without the path."""

    def __init__(self, path: Path, reason: str) -> None:
        # A damaged file's own words may hold anything, a terminal's control codes too.
        super().__init__("".join(c if c.isprintable() else "?" for c in " ".join(reason.split())))
        self.path = path


def require_file(path: Path, missing: str = "no such file") -> None:
    """Raise `BadFile` unless ``path`` is a regular file: a pipe waits for ever, a device may never end."""
    try:
        if path.is_file():
            return
        exists = path.exists()
    except (OSError, ValueError) as error:  # a name too long, a folder that may not be entered, a null byte
        raise BadFile(path, f"unreadable ({getattr(error, 'strerror', None) or error})") from None
    raise BadFile(path, missing if not exists else "a folder" if path.is_dir() else "a pipe or device, not a file")


@functools.cache
def _formats() -> list[str]:
    """What Pillow may try: pillow-heif registers itself, where it is installed."""
    Image.init()
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    return [name for name in (*_USUAL, "AVIF", "HEIF") if name in Image.OPEN]


_open_lock = threading.Lock()  # warnings.catch_warnings is not thread-safe


def open_image(path: Path) -> ImageFile.ImageFile:
    """Open a picture file, its header checked, its pixels not yet decoded. Close it, or use it in a ``with``.

    Raises:
        BadFile: no such file, not a file, empty, of no format in `SUFFIXES`, or more than 178 megapixels.
    """
    require_file(path, "no such image")
    try:
        if path.stat().st_size == 0:
            raise BadFile(path, "empty file (0 bytes)")
        with _open_lock, warnings.catch_warnings():
            # Pillow's notes on 89 to 178 megapixels and on odd metadata; neither matters here.
            warnings.simplefilter("ignore")
            return Image.open(path, formats=_formats())
    except Image.DecompressionBombError:
        raise BadFile(path, f"more than {MAX_MEGAPIXELS} megapixels by its header") from None
    except UnidentifiedImageError:
        with path.open("rb") as file:
            kind = file.read(12)[4:]
        if kind[:4] == b"ftyp" and kind[4:] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis"):
            raise BadFile(path, "HEIC or AVIF: pip install pillow-heif, or save it as JPEG") from None
        raise BadFile(path, f"not a picture ({', '.join(_USUAL)} are read)") from None
    except BadFile:
        raise
    except Exception as error:  # Pillow's plugins raise anything on a broken header
        raise BadFile(path, f"unreadable image ({error})") from None


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says. ``size`` (H, W) is upright: after the EXIF ``orientation`` (1 to 8)."""

    size: tuple[int, int]
    orientation: int
    notes: tuple[str, ...]
    suffix: str  # of its format


def inspect_image(path: Path) -> ImageInfo:
    """Check an image by its header alone (one of 16 bits by its pixels too). Raises `BadFile`."""
    with open_image(path) as image:
        try:
            return _inspect(image, path)
        except BadFile:
            raise
        except Exception as error:  # looking for a second frame parses more of a broken file
            raise BadFile(path, f"unreadable image ({error})") from None


def _inspect(image: ImageFile.ImageFile, path: Path) -> ImageInfo:
    width, height = image.size
    if min(width, height) < MIN_PIXELS:
        raise BadFile(path, f"{width}x{height} px is too small (at least {MIN_PIXELS} px a side)")
    if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
        raise BadFile(path, "animated or several pages: save one frame as a still image")
    if image.mode == "F":
        raise BadFile(path, "floating-point pixels: save it with 8 bits per channel")
    orientation = _orientation(image)
    # Before pixels are decoded, which closes the file.
    size = (width, height) if _is_swapped(image) else (height, width)
    suffixes = SUFFIXES[image.format or ""]
    deep = image.mode.startswith("I") or any("16" in str(tile[3]) for tile in image.tile)
    notes = {
        "grayscale": image.mode in ("1", "L", "LA") or image.mode.startswith("I"),
        "16-bit": deep,
        "CMYK": image.mode == "CMYK",
        "EXIF orientation": orientation != 1,
        "wrong suffix": path.suffix.lower() not in suffixes,
    }
    if deep:
        largest = _largest(image, path)
        notes["12 bits in 16, brightened"] = 255 < largest < 4096
        notes["8 bits in 16, brightened"] = largest < 256
    return ImageInfo(size, orientation, tuple(note for note, holds in notes.items() if holds), suffixes[0])


def _largest(image: ImageFile.ImageFile, path: Path) -> int:
    """The largest value of an image of 16 bits, of which many hold only 8 or 12. Raises `BadFile`."""
    gray = image.mode.startswith("I")
    values = np.asarray(_decode(image, path, raw=True))
    if gray and _beyond_16_bits(values):
        raise BadFile(path, _32_BITS)
    if not gray and values.max() < 16:  # Pillow gives of 16-bit colours only the upper 8 bits
        raise BadFile(path, "16 bits per channel of which 12 are used, so it would be black: save it with 8 bits")
    return int(values.max()) * (1 if gray else 257)


def _beyond_16_bits(values: np.ndarray) -> bool:
    return bool(values.min() < 0 or values.max() > 65535)


def _is_swapped(image: ImageFile.ImageFile) -> bool:
    """Whether height and width of an opened image change places when it is turned; Pillow says a TIFF's as turned already."""
    stored = (image.tag_v2[256], image.tag_v2[257]) if isinstance(image, TiffImageFile) else image.size
    return _orientation(image) >= 5 and image.size == stored


def _orientation(image: ImageFile.ImageFile) -> int:
    # When a PNG has no EXIF before its pixels, Pillow decodes all of them to look for one behind: spare it
    # that where there is none.
    if image.format == "PNG" and not _ORIENTED.intersection(image.info):
        tail = _tail(image, 1 << 16)
        if b"eXIf" not in tail and b"XML:com.adobe.xmp" not in tail:
            return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF is common and does not affect the pixels
        return 1
    return value if value in range(1, 9) else 1


def _tail(image: ImageFile.ImageFile, length: int) -> bytes:
    """The last bytes of an opened image's file."""
    file = cast(IO[bytes], image.fp)
    position = file.tell()
    file.seek(-min(length, file.seek(0, 2)), 2)
    tail = file.read()
    file.seek(position)
    return tail


def decode(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image as people see it: RGB of 8 bits, upright (see `to_rgb`).

    ``size`` (H, W) resizes it; a JPEG much larger than that is decoded at a fraction of its size, which saves
    time and memory. Raises `BadFile`.
    """
    with open_image(path) as image:
        if size is not None:
            height, width = size[::-1] if _is_swapped(image) else size
            image.draft(None, (2 * width, 2 * height))
        picture = _decode(image, path)
    if size is not None and picture.size != (size[1], size[0]):
        picture = resize(picture, size)
    return picture


def resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture at ``size`` (H, W), in the one way that all images are resized."""
    return picture.resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _decode(image: ImageFile.ImageFile, path: Path, raw: bool = False) -> Image.Image:
    zeros = image.format == "JPEG" and _tail(image, 16) == bytes(16)
    try:
        image.load()
        if raw:
            return image
        # Pillow takes zeros for pixels, and leaves gray what is missing before an end marker.
        if zeros or (image.format == "JPEG" and image.getpixel((image.width - 1, image.height - 1)) in _GRAY):
            raise ValueError("perhaps cut off")
        return to_rgb(image)
    except UserError as error:
        raise BadFile(path, str(error)) from None
    except MemoryError:
        raise BadFile(path, "not enough memory to decode it; scale it down or cut it") from None
    except Exception:  # OSError, SyntaxError, struct.error ...: whatever the broken file provokes
        if image.format == "JPEG" and not raw and (whole := _without_end_marker(path)) is not None:
            return whole
        raise BadFile(path, "cut off or corrupt: its pixels cannot be decoded") from None


def _without_end_marker(path: Path) -> Image.Image | None:
    """A JPEG that lacks at most its end marker (some cameras and downloads lose it), else None.

    Its data are completed by two different fillings. Where a pixel is missing, the filling is decoded in its place,
    and the two pictures differ. Of a progressive one all scans must be there, too.
    """
    content = path.read_bytes()
    if content.endswith(bytes(16)):  # what a download laid out and never wrote, or padding
        content = content.rstrip(b"\0")
    content = content.removesuffix(b"\xff\xd9").rstrip(b"\xff")  # the marker may be there, or half of it
    pictures = []
    try:
        for filling in (b"\x00", b"\xa5"):  # their first bits are different codes
            image = Image.open(io.BytesIO(content + filling * 4096 + b"\xff\xd9"), formats=["JPEG"])
            if "progressive" in image.info and not _has_all_scans(content):
                return None
            pictures.append(to_rgb(image))
    except Exception:
        return None
    return pictures[0] if np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1])) else None


def _has_all_scans(content: bytes) -> bool:
    """Whether the scans of a progressive JPEG bring every coefficient of every component to its last bit (ITU T.81, G.1)."""
    missing: set[tuple[int, int]] = set()  # component, coefficient
    position = 2
    while position + 4 <= len(content):
        kind, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        segment = content[position + 4 : position + 2 + length]
        position += 2 + length
        if kind == 0xC2:  # the frame
            missing = {(component, k) for component in segment[6::3] for k in range(64)}
        elif kind == 0xDA:  # a scan: its header, then its data up to a marker
            end = 1 + 2 * segment[0]
            first, last, approximation = segment[end : end + 3]
            if approximation & 15 == 0:
                missing -= {(component, k) for component in segment[1:end:2] for k in range(first, last + 1)}
            marker = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]").search(content, position)
            position = marker.start() if marker else len(content)
    return not missing


def read_image(path: str | Path) -> Image.Image:
    """Decode a picture file to an upright RGB image of 8 bits.

    EXIF orientation is applied; 16-bit pixels are scaled to 8; CMYK, grayscale and palettes become RGB; an
    animation gives its first frame.

    Raises:
        UserError: no such file, not a picture, truncated, or more than 178 million pixels (Pillow's limit
            against decompression bombs).
    """
    try:
        return decode(Path(path))
    except BadFile as bad:
        raise UserError(f"image {path}: {bad}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL image -> upright RGB of 8 bits (see `read_image`). Raises `UserError` for float or 32-bit pixels."""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata does not affect the pixels
        pass
    if image.mode == "F":
        raise UserError("floating-point pixels: save it with 8 bits per channel")
    if image.mode.startswith("I"):  # 16 bits: I;16, I;16B, and plain I in some decoders
        values = np.asarray(image)
        if _beyond_16_bits(values):
            raise UserError(_32_BITS)
        # Sensors of 12 bits, and programs that widen 8, leave the upper bits of 16 empty.
        most = next(most for most in (255, 4095, 65535) if values.max() <= most)
        image = Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))
    if image.mode == "P":  # a palette with transparency converts cleanly only by way of RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


def to_tensor(image: Any) -> Tensor:
    """Anything that is a picture -> uint8 [3, H, W], RGB.

    Args:
        image: a path or a binary file (decoded by `read_image`), a PIL image, a uint8 array [H, W, 3], [H, W, 4]
            (alpha is dropped) or [H, W] (gray), or a uint8 tensor [3, H, W].

    Raises:
        UserError: a path or file that cannot be decoded.
        ValueError, TypeError: an array or tensor of another shape or dtype.
    """
    if isinstance(image, str | Path):
        image = read_image(image)
    elif hasattr(image, "read"):
        image = _from_file(image)
    elif isinstance(image, Image.Image):
        image = to_rgb(image)
    elif not isinstance(image, np.ndarray | Tensor):
        raise TypeError(f"image is a {type(image).__name__}; a path, file, PIL image, array or tensor is possible")
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
    if array.ndim != 3 or array.shape[2] not in (3, 4) or 0 in array.shape:
        raise ValueError(f"image array is {array.shape}; [H, W, 3], [H, W, 4] or [H, W] is expected")
    # One copy to planar order, which also detaches read-only and memory-mapped arrays.
    return torch.from_numpy(np.array(array[:, :, :3].transpose(2, 0, 1), order="C"))


def _from_file(file: IO[bytes]) -> Image.Image:
    try:
        with Image.open(file, formats=_formats()) as image:
            return to_rgb(image)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"image file: it cannot be decoded ({reason})") from None


def limited_size(size: tuple[int, int], min_side: int, max_side: int) -> tuple[int, int]:
    """(H, W), aspect kept: shortest side >= ``min_side``, longest <= ``max_side``; in conflict the latter."""
    scale = max(1.0, min_side / min(size))
    scale = min(scale, max_side / max(size))
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in size)
    return height, width


def mirror(values: np.ndarray, length: int) -> np.ndarray:
    """Mirror coordinates like pixels: floor(v) -> length - 1 - floor(v); the fraction stays, but never rounds up."""
    cell = np.floor(values)
    return (length - 1 - cell) + np.minimum(values - cell, 1 - 2**-10)


def turn_points(points: np.ndarray, orientation: int, size: tuple[int, int]) -> np.ndarray:
    """Points [N, 2] in stored pixels -> in the upright image of ``size`` (H, W)."""
    height, width = size
    x, y = points[:, 0], points[:, 1]
    if orientation >= 5:
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = mirror(x, width)
    if orientation in (3, 4, 7, 8):
        y = mirror(y, height)
    return np.stack([x, y], axis=1)
