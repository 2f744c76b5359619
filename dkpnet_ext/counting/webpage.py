"""The local server of `python -m dkpnet_ext.demo`: it takes a picture and returns its count and density.

The page itself is `assets/demo.html`; it draws; everything is computed here. Nothing is loaded from other hosts.
"""

from __future__ import annotations

import functools
import json
import secrets
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from PIL import Image
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from ..data.images import IMAGE_SUFFIXES, BadFile, open_image, read_image
from ..errors import UserError
from ..models import CrowdCounter
from ..plots import MAX_SIDE, heat_layer, heat_peak, per_area
from ..synthetic import negatives
from ..synthetic import scenes as synthetic
from ..webserver import Page, data_url, encode, json_response
from .ground import ground_layer, read_ground
from .pictures import Counted, count_pixels
from .regions import polygon

MAX_UPLOAD = 64  # megabytes; the longest photographs are about half of that
MAX_MEGAPIXELS = 64  # of a picture; phones take at most 50, and each takes 3 bytes a pixel and more while it is decoded
MAX_CORNERS = 10_000  # of a region
DECODING = 2  # pictures in memory at a time
KEPT = 16  # pictures whose regions can still be counted; a density map of 8192 x 8192 px takes 16 MB
# Drawn scenes of which the packaged model, which learned from photographs, counts 95 to 102 % (a test compares), and a picture
# without people. They were looked for: on most scenes it counts less, at a station's gray camera a quarter.
EXAMPLES = [
    ("square", 54), ("street", 10), ("stadium", 26), ("leaves", 3),
    ("square", 22), ("street", 31), ("stadium", 31), ("street", 8),
]  # fmt: skip
_rendering = threading.Lock()


class DemoPage(Page):
    """The WSGI application.

    Args:
        model: on its device, in evaluation mode; name: what the page calls it.
        max_upload: bytes of a picture file; max_megapixels: of its picture.
        host: the name under which the page is asked for, besides localhost and any address in numbers.
    """

    def __init__(
        self,
        model: CrowdCounter,
        name: str,
        max_upload: int = MAX_UPLOAD * 10**6,
        max_megapixels: float = MAX_MEGAPIXELS,
        host: str = "localhost",
    ) -> None:
        super().__init__(host, max_upload, inline=True)
        self.model, self.name, self.max_megapixels = model, name, max_megapixels
        self.decoding = threading.BoundedSemaphore(DECODING)
        self.lock = threading.Lock()  # one picture at a time: each takes all cores
        self.counted: OrderedDict[str, Counted] = OrderedDict()

    def answer(self, request: Request) -> Response:
        """Find what a request asks for. Raises `UserError` and Werkzeug's exceptions."""
        match request.method, *request.path.strip("/").split("/"):
            case "GET", "":
                return self.page()
            case "GET", "example", number if number in map(str, range(len(EXAMPLES))):
                picture, heads = example(int(number))
                headers = {"X-Annotated": str(heads), "Cache-Control": "max-age=3600"}
                return Response(picture, mimetype="image/jpeg", headers=headers)
            case "POST", "count":
                return json_response(self.count(request.get_data(), request.args.get("name") or "picture"))
            case "POST", "ground", identity:
                return json_response(self.count_ground(identity, request.get_data()))
            case "POST", "region", identity:
                return json_response({"count": self.count_region(identity, request.get_data())})
        raise NotFound

    def page(self) -> Response:
        """The page itself."""
        return self.html(
            "demo.html",
            name=self.name,
            backbone=self.model.backbone_name,
            device=str(self.model.pixel_mean.device),
            suffixes=sorted(IMAGE_SUFFIXES),
            examples=[domain for domain, _ in EXAMPLES],
            max_upload=self.max_upload,
            too_large=self.too_large(),
        )

    def too_large(self) -> str:
        """What is said of a file of more than ``max_upload`` bytes."""
        return (
            f"the picture's file is larger than {self.max_upload / 1e6:g} MB; scale it down, or use the command predict"
        )

    def count(self, content: bytes, name: str) -> dict[str, Any]:
        """Count a picture file: all that the page shows of it. Raises `UserError`."""
        with self.decoding:
            return self._count(self._decode(content, name))

    def _decode(self, content: bytes, name: str) -> Image.Image:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            try:
                with open_image(path) as image:
                    if image.width * image.height > self.max_megapixels * 1e6:
                        raise BadFile(
                            path,
                            f"{image.width}x{image.height} px are more than the {self.max_megapixels:g} megapixels of this "
                            "page; scale it down, or use the command predict",
                        )
                return read_image(path)
            except BadFile as error:
                raise UserError(f"image {Path(name).name}: {error}") from None
            except UserError as error:
                raise UserError(str(error).replace(str(path), Path(name).name)) from None

    def _count(self, image: Image.Image) -> dict[str, Any]:
        identity = secrets.token_urlsafe(8)
        with self.lock:
            found = count_pixels(self.model, image, assess=True)
            self.counted[identity] = found
            if len(self.counted) > KEPT:
                self.counted.popitem(last=False)
        (height, width), (h, w) = found.size, found.counted
        rows, columns = found.density.shape
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        return {
            "id": identity,
            "count": found.heads,
            "width": width,
            "height": height,
            "counted_at": [w, h],
            # Pixels of the picture that the heat covers: its last cells reach over the edge.
            "cells": [found.stride * columns * width / w, found.stride * rows * height / h],
            "familiar": "" if found.assessed is None else found.assessed.words(),
            "intervals": {} if found.assessed is None else found.assessed.intervals,
            "checked": {} if found.assessed is None else found.assessed.pictures,
            "points": found.located()[:, :2].round(1).tolist(),
            "scale": per_area(heat_peak(found.density), found.density, (width, height)),
            "photo": data_url(image, "JPEG"),
            "heat": data_url(heat_layer(found.density), "PNG"),
        }

    def _kept(self, identity: str) -> Counted:
        counted = self.counted.get(identity)
        if counted is None:
            raise UserError("this picture is no longer kept here; drop it again")
        return counted

    def count_region(self, identity: str, content: bytes) -> float:
        """Heads inside a polygon, as JSON [[x, y], ...] in pixels of the picture. Raises `UserError`."""
        counted = self._kept(identity)
        try:
            corners = json.loads(content)
            if not isinstance(corners, list) or len(corners) > MAX_CORNERS:
                raise ValueError
            ring = polygon(corners)
        except (ValueError, RecursionError):
            raise UserError(f"a region needs 3 to {MAX_CORNERS} corners [x, y] in pixels") from None
        with self.decoding:
            return counted.in_regions({"drawn": [ring]})["drawn"]

    def count_ground(self, identity: str, content: bytes) -> dict[str, Any]:
        """People per square metre, see `read_ground`: JSON {"corners": [[x, y], ...], "size": [...]}. Raises `UserError`."""
        counted = self._kept(identity)
        try:
            asked = json.loads(content)
            corners, size = asked["corners"], asked["size"]
        except (ValueError, RecursionError, TypeError, KeyError):
            raise UserError("people per square metre need JSON with corners and size") from None
        ground = read_ground(corners, size)
        with self.decoding:
            found = counted.on_ground(ground)
            layer = ground_layer(found, ground, counted.size)
        return {**found.spoken(), "heat": data_url(layer, "PNG")}


@functools.cache
def example(number: int) -> tuple[bytes, int]:
    """A drawn picture as JPEG, and the number of its heads."""
    kind, index = EXAMPLES[number]
    with _rendering:  # a browser asks for all at once: better one soon than all late
        if kind not in synthetic.DOMAINS:
            return encode(negatives.picture(12345, index), "JPEG"), 0
        pixels, points = synthetic.render(kind, "test", index)
    return encode(Image.fromarray(pixels), "JPEG"), len(points)
