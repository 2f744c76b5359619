"""A careful reader of MATLAB files (version 5, which MATLAB calls -v6 and -v7): numbers, cells, structs and their text.

`scipy.io.loadmat` reads such files too, but one wrong byte can make it end the whole process with a segmentation
fault, and annotations come from anywhere. Here every length is checked and every fault is a `ValueError`.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _TEXT, _NUMBERS = 1, 2, 4, range(6, 16)
_LOGICAL, _COMPLEX = 0x200, 0x800  # flags
_MOST_BYTES = 1 << 28  # of one variable, uncompressed; 20,000 heads take 320 kB
_MOST_NESTED = 16


class _Bytes:
    """Data elements one after the other."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data, self.order, self.position = data, order, 0

    def more(self) -> bool:
        return len(self.data) - self.position >= 8

    def element(self) -> tuple[int, memoryview]:
        """The next element's type and bytes."""
        if not self.more():
            raise ValueError("it ends too early")
        kind, size = (int(word) for word in np.frombuffer(self.data, self.order + "u4", 2, self.position))
        start = self.position + 8
        if kind >> 16:  # a small element: its size shares the first word, its data are the second
            kind, size, start = kind & 0xFFFF, kind >> 16, self.position + 4
            if size > 4:
                raise ValueError("it is damaged")
            self.position += 8
        else:
            padding = 0 if kind == _COMPRESSED else -size % 8
            self.position = start + size + padding
        if start + size > len(self.data):
            raise ValueError("it ends too early")
        return kind, self.data[start : start + size]

    def numbers(self) -> np.ndarray:
        kind, data = self.element()
        if kind not in _TYPES:
            raise ValueError("it is damaged")
        return np.frombuffer(data, self.order + _TYPES[kind], len(data) // int(_TYPES[kind][1]))


def load(content: bytes, name: str) -> Any:
    """The variable ``name`` of a MATLAB file's ``content``.

    Numbers come as an array of their shape (logical ones as booleans), a cell array as the list of its cells, a struct
    array as the list of its elements, each a dict (both in MATLAB's order, by columns); text, inside of those only, as str.

    Raises:
        KeyError: there is no such variable; its argument is the list of those there are.
        ValueError: the file is damaged or of another kind; says which.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if content[:19] == b"MATLAB 7.3 MAT-file":
        raise ValueError("it is of MATLAB's version 7.3: save it again with -v7")
    if order is None:
        raise ValueError("it does not begin like one")
    file = _Bytes(memoryview(content)[128:], order)
    names = []
    while file.more():
        kind, data = file.element()
        if kind == _COMPRESSED:
            unpack = zlib.decompressobj()
            try:
                data = memoryview(unpack.decompress(data, _MOST_BYTES))
            except zlib.error:
                raise ValueError("it is damaged") from None
            if unpack.unconsumed_tail:
                raise ValueError(f"a variable takes more than {_MOST_BYTES >> 20} MB")
            kind, data = _Bytes(data, order).element()
        if kind == _MATRIX:
            found, value = _matrix(data, order, only=name)
            if found == name:
                return value
            names.append(found)
    raise KeyError(names)


def _matrix(data: memoryview, order: str, only: str | None = None, depth: int = 0) -> tuple[str, Any]:
    """One array: its name and its value, which is not looked at if ``only`` another name is wanted."""
    if len(data) == 0:
        return "", np.zeros((0, 0))
    if depth > _MOST_NESTED:
        raise ValueError("it is nested too deeply")
    part = _Bytes(data, order)
    flags = part.numbers()
    shape = [int(length) for length in part.numbers()]
    name = bytes(part.element()[1]).decode("latin-1")
    if len(flags) == 0 or len(shape) < 2 or min(shape) < 0:
        raise ValueError("it is damaged")
    if only is not None and name != only:
        return name, None
    kind, count = int(flags[0]) & 0xFF, math.prod(shape)
    if kind in _NUMBERS:
        numbers = part.numbers()
        if len(numbers) != count:
            raise ValueError("it is damaged")
        if int(flags[0]) & _COMPLEX:
            raise ValueError(f"'{name or only}' holds complex numbers")
        numbers = numbers.astype(bool) if int(flags[0]) & _LOGICAL else numbers
        return name, numbers.reshape(shape, order="F")
    if kind == _TEXT and depth:
        coded, letters = part.element()
        wide = "utf-16-be" if order == ">" else "utf-16-le"
        codes = {4: wide, 16: "utf-8", 17: wide}
        return name, bytes(letters).decode(codes.get(coded, "latin-1"), errors="replace")
    if kind not in (_CELL, _STRUCT):
        raise ValueError(f"'{name or only}' is neither numbers nor a cell or struct")

    fields = []
    if kind == _STRUCT:
        length = int(part.numbers()[:1].sum())
        text = bytes(part.element()[1]).decode("latin-1")
        fields = [text[i : i + length].split("\0")[0] for i in range(0, len(text), max(length, 1))]
    elements = count * (len(fields) if kind == _STRUCT else 1)
    if 8 * elements > len(data):  # before a loop over a damaged count
        raise ValueError("it ends too early")
    values: list[Any] = []
    for _ in range(elements):
        kind_of_element, element = part.element()
        if kind_of_element != _MATRIX:
            raise ValueError("it is damaged")
        values.append(_matrix(element, order, depth=depth + 1)[1])
    if kind == _CELL:
        return name, values
    width = max(len(fields), 1)
    return name, [dict(zip(fields, values[i : i + width], strict=True)) for i in range(0, elements, width)]
