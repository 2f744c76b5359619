"""Our reader of MATLAB files against scipy's writer."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
import scipy.io

from dkpnet_ext.data import matlab


def written(compress: bool = False, **variables: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compress)
    return file.getvalue()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(5, 2), (1, 2), (1, 1), (0, 2), (0, 0), (2, 3, 4)])
def test_numbers(kind, shape, compress):
    values = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    content = written(compress, before="text", points=values, after=1.5)
    read = matlab.load(content, "points")
    assert read.shape == shape
    assert np.array_equal(read, values)
    assert matlab.load(content, "after") == 1.5


def test_cells_and_structs():
    cell = np.empty((1, 2), object)
    cell[0, 0] = {"location": np.array([[1.5, 2.5]]), "a_rather_long_field_name": 7.0}
    cell[0, 1] = np.array([[3.0]])
    first, second = matlab.load(written(cells=cell), "cells")
    assert first[0]["location"].tolist() == [[1.5, 2.5]]
    assert first[0]["a_rather_long_field_name"] == 7
    assert second == 3


def test_text_in_structs():
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = {"name": "höhe_1.png", "none": ""}, "b"
    first, second = matlab.load(written(cells=cell), "cells")
    assert first == [{"name": "höhe_1.png", "none": ""}] and second == "b"


def test_other_variables_are_named():
    with pytest.raises(KeyError) as error:
        matlab.load(written(b=1.0, a="x"), "points")
    assert error.value.args[0] == ["b", "a"]


def test_big_endian():
    """As MATLAB wrote it on older machines."""
    body = (
        np.array([6, 8, 6, 0], ">u4").tobytes()
        + np.array([5, 8, 1, 2], ">i4").tobytes()
        + np.array([1 << 16 | 1], ">u4").tobytes() + b"p\0\0\0"
        + np.array([9, 16], ">u4").tobytes() + np.array([1.5, -2.0], ">f8").tobytes()
    )  # fmt: skip
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + np.array([14, len(body)], ">u4").tobytes() + body
    assert matlab.load(content, "p").tolist() == [[1.5, -2.0]]
    assert scipy.io.loadmat(io.BytesIO(content))["p"].tolist() == [[1.5, -2.0]]


def test_compressed_bomb(monkeypatch):
    """Zeros take a thousandth of their size: more than the limit is not unpacked."""
    monkeypatch.setattr(matlab, "_MOST_BYTES", 1 << 20)
    packed = zlib.compress(bytes((1 << 20) + 1), 9)
    content = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + np.array([15, len(packed)], "<u4").tobytes() + packed
    with pytest.raises(ValueError, match="more than 1 MB"):
        matlab.load(content, "p")


def test_one_wrong_byte():
    """Whatever byte is wrong, the answer is an array or a ValueError or a KeyError (scipy ends the process)."""
    cell = np.empty((1, 1), object)
    cell[0, 0] = {"location": np.array([[1.0, 2.0]]), "number": np.array([[1]], np.uint16)}
    content = written(image_info=cell)
    for position in range(len(content)):
        for value in (0, 1, 2, 6, 14, 15, 127, 128, 255):
            damaged = bytearray(content)
            damaged[position] = value
            try:
                matlab.load(bytes(damaged), "image_info")
            except (ValueError, KeyError):
                pass


def test_deeply_nested():
    cell: object = np.array([[1.0]])
    for _ in range(20):
        outer = np.empty((1, 1), object)
        outer[0, 0] = cell
        cell = outer
    with pytest.raises(ValueError, match="nested too deeply"):
        matlab.load(written(cells=cell), "cells")
