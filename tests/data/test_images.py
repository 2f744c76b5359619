"""Every kind of picture file becomes upright 8-bit RGB, or one line."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dkpnet_ext.data.images import decode, inspect_image, read_image, to_tensor
from dkpnet_ext.errors import UserError

GRADIENT = np.arange(12 * 8 * 3, dtype=np.uint8).reshape(12, 8, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    # What each value tells a viewer to do (EXIF 2.3, tag 0x0112), undone here with numpy.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.repeat(np.repeat(GRADIENT, 4, 0), 4, 1)
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](picture)))
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    words = PngInfo()
    words.add_itxt("XML:com.adobe.xmp", xmp)
    for name, options in {"a.png": {"exif": exif}, "b.png": {"pnginfo": words}, "c.tif": {"exif": exif}}.items():
        stored.save(tmp_path / name, **options)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / name)), picture, name)
        assert inspect_image(tmp_path / name).size == picture.shape[:2], name
        np.testing.assert_array_equal(np.asarray(decode(tmp_path / name, picture.shape[:2])), picture, name)


def test_16_bits_are_scaled(tmp_path):
    values = np.array([[0, 257, 128 * 257], [65535, 256, 40000]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(values).save(tmp_path / name)
        rgb = np.asarray(read_image(tmp_path / name))
        np.testing.assert_array_equal(rgb, np.rint(values / 257).astype(np.uint8)[..., None].repeat(3, 2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_modes(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode in ("CMYK", "YCbCr") else "x.png")
    Image.new("RGB", (9, 5), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (9, 5)
    assert np.asarray(image).min() > 250


def test_animation_gives_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "x.gif"))[0, 0], (255, 0, 0))


def huge_header() -> bytes:
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg() -> bytes:
    out = io.BytesIO()
    Image.fromarray(GRADIENT.repeat(20, 0).repeat(20, 1)).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (jpeg()[:700], "cut off or corrupt"),
        (huge_header(), "178 megapixels"),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, message):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_image(path)
    assert "bad.jpg" in str(error.value) and "\n" not in str(error.value)


def test_missing_file_folder_and_float(tmp_path):
    with pytest.raises(UserError, match="no such image"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(UserError, match="a folder"):
        read_image(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"f.tif: floating-point"):
        read_image(tmp_path / "f.tif")


def test_wrong_suffix_is_read_by_content(tmp_path):
    (tmp_path / "really_a_jpeg.png").write_bytes(jpeg())
    assert read_image(tmp_path / "really_a_jpeg.png").size == (160, 240)


def test_to_tensor_of_everything(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(GRADIENT).save(path)
    expected = torch.from_numpy(GRADIENT).permute(2, 0, 1)
    np.save(tmp_path / "x.npy", GRADIENT)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for image in (path, str(path), Image.fromarray(GRADIENT), GRADIENT, mapped, expected):
        assert torch.equal(to_tensor(image), expected)
    gray = to_tensor(GRADIENT[:, :, 0])
    assert gray.shape == (3, 12, 8) and torch.equal(gray[0], gray[2])


def test_to_tensor_refuses_other_shapes_and_types():
    with pytest.raises(TypeError, match="uint8"):
        to_tensor(GRADIENT.astype(np.float32))
    with pytest.raises(TypeError, match="uint8"):
        to_tensor(torch.zeros(3, 4, 4))
    with pytest.raises(TypeError, match="int"):
        to_tensor(3)
    for bad in (
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(4, 4, 3, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match="expected"):
            to_tensor(bad)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_size_of_16_bits(tmp_path, suffix):
    """Their values are looked at, too, after which a PNG's file is closed."""
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(path)
    assert inspect_image(path).size == (20, 30) and "16-bit" in inspect_image(path).notes
