"""Picture files that cannot be counted, in every place that takes one."""

import io
import os
import struct
import zlib

import layouts
import numpy as np
import pytest
from faults import Fault, answered
from PIL import Image

from dkpnet_ext.data.images import BadFile, inspect_image, read_image, to_tensor
from dkpnet_ext.errors import UserError


def encoded(form: str, size=(64, 48), mode="RGB", **options) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_that_says(width: int, height: int) -> bytes:
    """A PNG of 1 pixel whose header states another size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 4)) + chunk(b"IEND", b"")
    )


ZEROS = zlib.compress(bytes(200_000_000))
JPEG, PNG = encoded("JPEG"), encoded("PNG")
ANIMATED = io.BytesIO()
Image.new("RGB", (64, 48)).save(ANIMATED, "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")])
FLOATS = io.BytesIO()
Image.fromarray(np.random.default_rng(0).random((48, 64), np.float32)).save(FLOATS, "TIFF")


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


def several(form: str) -> bytes:
    """A file of two frames or pages."""
    return encoded(form, save_all=True, append_images=[Image.new("RGB", (64, 48), "red")])


HIGH_WIDE = struct.pack(">HH", 48, 64)  # in a JPEG's frame header
CONTENT = [
    Fault("a JPEG cut off and closed by an end marker", JPEG[: len(JPEG) // 2] + b"\xff\xd9", "cut off"),
    Fault("a JPEG cut off and filled with zeros", JPEG[: len(JPEG) // 2] + bytes(9000), "cut off"),
    Fault("a JPEG that says ten times its height", changed(JPEG, HIGH_WIDE, struct.pack(">HH", 480, 64)), "cut off"),
    Fault("a JPEG of height 0", changed(JPEG, HIGH_WIDE, struct.pack(">HH", 0, 64)), "px|picture|unreadable|cut off"),
    Fault("a JPEG that says 65500 x 65500", changed(JPEG, HIGH_WIDE, b"\xff\xdc" * 2), "megapixels"),
    Fault("a JPEG without its scan", JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", "cut off|unreadable|picture"),
    Fault("a JPEG behind HTML", b"<html>" + JPEG, "not a picture"),
    Fault("a progressive JPEG without its last scans", encoded("JPEG", progressive=True)[:-1000], "cut off"),
    Fault("a PNG with compressed text of 200 MB", PNG[:33] + chunk(b"zTXt", b"a\0\0" + ZEROS) + PNG[33:], "unread|cut"),
    Fault(
        "a PNG with a profile of 200 MB", PNG[:33] + chunk(b"iCCP", b"a\0\0" + ZEROS) + PNG[33:], "unread|cut|picture"
    ),
    Fault("a PNG of negative width", PNG[:16] + b"\x80\0\0\1" + PNG[20:], "picture|unreadable|megapixels|cut"),
    Fault("an animated PNG", several("PNG"), "animated"),
    Fault("an animated WebP", several("WEBP"), "animated"),
    Fault("a TIFF of two pages", several("TIFF"), "several pages"),
    Fault("a TIFF whose directory is its own next", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "picture|unreadable|cut off"),
    Fault("a PPM of negative width", b"P6 -64 48 255\n" + bytes(9216), "picture|unreadable"),
    Fault("a PPM of maximum 0", b"P6 64 48 0\n" + bytes(9216), "picture|unreadable"),
    Fault("a PFM", b"PF\n64 48\n-1.0\n" + bytes(4 * 9216), "picture|floating-point"),
    Fault("an icon", encoded("ICO"), "not a picture"),
    Fault("a TGA", encoded("TGA"), "not a picture"),
    Fault("a Photoshop file", b"8BPS\0\1" + bytes(100), "not a picture"),
    Fault(
        "a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n", "not a picture"
    ),
    Fault("an empty file", b"", "empty file"),
    Fault("text", b"this is no picture\n", "not a picture"),
    Fault("HTML", b"<!DOCTYPE html><html><body>404</body></html>", "not a picture"),
    Fault("zeros", bytes(5000), "not a picture"),
    Fault("a JPEG cut in half", JPEG[: len(JPEG) // 2], "cut off"),
    Fault("a JPEG's first 100 bytes", JPEG[:100], "picture|unreadable|cut off"),
    Fault("a JPEG's first 4 bytes", JPEG[:4], "picture|unreadable|cut off"),
    Fault("a PNG cut in half", PNG[: len(PNG) // 2], "cut off"),
    Fault("a PNG's header only", PNG[:33], "cut off|unreadable|not a picture"),
    Fault("a PNG with a wrong checksum", PNG[:60] + b"\xff\xff\xff" + PNG[63:], "cut off|unreadable"),
    Fault("a PNG that says 60000 x 60000", png_that_says(60000, 60000), "megapixels"),
    Fault("a PNG that says 20000 x 20000", png_that_says(20000, 20000), "megapixels"),
    Fault("a PNG that says 0 x 0", png_that_says(0, 0), "px|picture|unreadable|cut off"),
    Fault("a PNG that says 640 x 480 and has one pixel", png_that_says(640, 480), "cut off"),
    Fault("a picture of 1 x 1", encoded("PNG", (1, 1)), "too small"),
    Fault("a picture of 8 x 400", encoded("PNG", (8, 400)), "too small"),
    Fault("an animated GIF", ANIMATED.getvalue(), "animated"),
    Fault("floating-point pixels", FLOATS.getvalue(), "floating-point"),
    Fault("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\nshowpage\n", "not a picture"),
    Fault("PDF", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", "not a picture"),
    Fault("SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"/>', "not a picture"),
    Fault("a zip archive", b"PK\x03\x04" + bytes(100), "not a picture"),
    Fault("a video", b"\x00\x00\x00\x20ftypisom" + bytes(100), "not a picture"),
    Fault("a TIFF cut in half", encoded("TIFF")[:2000], "cut off|unreadable|picture"),
    Fault("a WebP cut in half", encoded("WEBP")[:800], "cut off|unreadable|picture"),
    Fault("a BMP cut in half", encoded("BMP")[:3000], "cut off|unreadable|picture"),
    Fault("a GIF cut in half", encoded("GIF")[:1000], "cut off|unreadable|picture"),
    Fault("a PPM cut in half", encoded("PPM")[:3000], "cut off|unreadable|picture"),
]
PLACES = [
    Fault("no such picture", "none.jpg", "no such image"),
    Fault("a folder", "folder.jpg", "folder"),
    Fault("a pipe", "pipe.jpg", "not a file|not a regular file"),
    Fault("a device", "/dev/zero", "not a file|not a regular file"),
    Fault("a link to nothing", "broken.jpg", "no such image"),
    Fault("an empty name", "", "image|folder"),
    Fault("a name with a zero byte", "a\0b.jpg", "image|name"),
    Fault("a name of 300 characters", "x" * 300 + ".jpg", "image|name"),
]
u8, rng = np.uint8, np.random.default_rng(0)
VALUES = [
    Fault("an array of one dimension", np.zeros(5, u8), "shape|5"),
    Fault("an array of two channels", np.zeros((48, 64, 2), u8), "shape|48"),
    Fault("an array of five channels", np.zeros((48, 64, 5), u8), "shape|48"),
    Fault("a batch", np.zeros((2, 48, 64, 3), u8), "shape|48"),
    Fault("an empty array", np.zeros((0, 64, 3), u8), "shape|0"),
    Fault("floats in 0 to 255", rng.random((48, 64, 3)) * 255, "uint8|float"),
    Fault("signed integers", np.zeros((48, 64, 3), np.int64), "uint8|int64"),
    Fault("words", np.array([["a", "b"]]), "uint8|dtype"),
    Fault("a number", 5, "int"),
    Fault("None", None, "None"),
    Fault("a dictionary", {"image": 1}, "dict"),
    Fault("bytes", b"\x00\x01", "bytes|picture"),
]
TABLE = [*CONTENT, *PLACES, *VALUES]


@pytest.mark.parametrize("fault", CONTENT, ids=lambda fault: fault.name)
def test_content(fault, tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(fault.given)
    answered(lambda: (inspect_image(path), to_tensor(path)), fault.answer, (UserError, BadFile))


@pytest.mark.parametrize("fault", PLACES, ids=lambda fault: fault.name)
def test_place(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo("pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    answered(lambda: to_tensor(fault.given), fault.answer)


@pytest.mark.parametrize("fault", VALUES, ids=lambda fault: fault.name)
def test_value(fault):
    answered(lambda: to_tensor(fault.given), fault.answer, (ValueError, TypeError, UserError))


def test_a_whole_picture_is_read(tmp_path):
    path = layouts.picture(tmp_path / "good.jpg")
    assert to_tensor(path).shape == (3, 48, 64)
    assert np.asarray(read_image(path)).shape == (48, 64, 3)
