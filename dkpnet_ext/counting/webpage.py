"""The page of `python -m dkpnet_ext.demo`: a picture goes up, its count, density and nearest domain come back.

The page itself is `assets/demo.html`; it draws and asks, everything is computed here. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import logging
import secrets
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Request, Response

from ..data.images import IMAGE_SUFFIXES, read_image
from ..errors import UserError
from ..models import CrowdCounter, DKPNet
from ..models.attention import VariationalAttention
from ..plots import MAX_SIDE, heat_layer
from ..synthetic import scenes as synthetic
from .regions import count_regions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_UPLOAD = 64  # megabytes; the longest photographs are about half of that
KEPT = 16  # pictures whose regions can still be counted; a density map of 8192 x 8192 px takes 16 MB
EXAMPLES = [(domain, index) for index in (0, 1) for domain in synthetic.DOMAINS]
_rendering = threading.Lock()

# Nothing from elsewhere: a page that asked for it would be refused by the browser.
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


class Counted(NamedTuple):
    """What is kept of a picture for its regions."""

    density: Tensor  # [h, w] on the CPU
    size: tuple[int, int]  # (H, W) of the picture in pixels
    prepared: tuple[int, int]  # (h, w) that it was counted at


def domain_distances(model: DKPNet, mu: Tensor) -> list[tuple[str, float]]:
    """Euclidean distance in the latent space from an image to each domain, nearest first.

    A domain is as near as the nearest of its sub-components' centres. The domains of VA (stage I) are the data sets;
    those of InVA (stage II) are clusters of attention, which bear no names even if they are as many as the data sets.

    Args:
        mu: [d], the image's latent mean.
    """
    attention = model.attention
    assert isinstance(attention, VariationalAttention)
    distances = (attention.centers.float() - mu.float()).norm(dim=-1).amin(dim=1).tolist()
    named = model.system == "va" and len(model.domains) == len(distances)
    names = model.domains if named else [f"cluster {i} of {len(distances)}" for i in range(1, len(distances) + 1)]
    return sorted(zip(names, distances, strict=True), key=lambda pair: pair[1])


class DemoPage:
    """The WSGI application.

    Args:
        model: on its device, in evaluation mode; name: what the page calls it.
        max_upload: bytes of a picture file.
    """

    def __init__(self, model: CrowdCounter, name: str, max_upload: int = MAX_UPLOAD * 10**6) -> None:
        self.model, self.max_upload = model, max_upload
        self.lock = threading.Lock()  # one picture at a time: each takes all cores
        self.counted: OrderedDict[str, Counted] = OrderedDict()
        self.page = _render(name, model, max_upload)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        request = Request(environ)
        request.max_content_length = self.max_upload
        try:
            response = self.answer(request)
        except RequestEntityTooLarge:
            response = _json({"error": _too_large(self.max_upload)}, 413)
        except UserError as error:
            response = _json({"error": str(error)}, 400)
        except HTTPException as error:
            response = _json({"error": f"{request.method} {request.path}: {error.name}"}, error.code or 500)
        return response(environ, start_response)

    def answer(self, request: Request) -> Response:
        """Find what a request asks for. Raises `UserError` and Werkzeug's exceptions."""
        match request.method, *request.path.strip("/").split("/"):
            case "GET", "":
                return Response(self.page, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})
            case "GET", "example", number if number.isdecimal() and int(number) < len(EXAMPLES):
                picture, heads = example(int(number))
                headers = {"X-Annotated": str(heads), "Cache-Control": "max-age=3600"}
                return Response(picture, mimetype="image/jpeg", headers=headers)
            case "POST", "count":
                return _json(self.count(request.get_data(), request.args.get("name") or "picture"))
            case "POST", "region", identity:
                return _json({"count": self.count_region(identity, request.get_json(silent=True))})
        raise NotFound

    def count(self, content: bytes, name: str) -> dict[str, Any]:
        """Count a picture file: all that the page shows of it. Raises `UserError`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(content)
            try:
                image = read_image(path)
            except UserError as error:
                raise UserError(str(error).replace(str(path), Path(name).name)) from None
        size, pixels = (image.height, image.width), self.model.prepare(image)
        prepared = (pixels.shape[1], pixels.shape[2])
        identity = secrets.token_urlsafe(8)
        with self.lock:
            density, near = self.look(pixels)
            self.counted[identity] = Counted(density, size, prepared)
            if len(self.counted) > KEPT:
                self.counted.popitem(last=False)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        # Pixels of the picture that the heat covers: the last cells reach over its edge.
        rows, columns = (
            self.model.out_stride * n * a / b for n, a, b in zip(density.shape, size, prepared, strict=True)
        )
        return {
            "id": identity,
            "count": float(density.double().sum()),
            "width": size[1],
            "height": size[0],
            "cells": [columns, rows],
            "domains": near,
            "photo": _data_url(image, "JPEG"),
            "heat": _data_url(heat_layer(density), "PNG"),
        }

    def look(self, pixels: Tensor) -> tuple[Tensor, list[tuple[str, float]]]:
        """Density [h, w] on the CPU, and `domain_distances` (empty for a model without variational attention)."""
        output = self.model.examine(pixels, as_is=True)
        density = output.density[0, 0].float().cpu()
        if output.mu is None:
            return density, []
        assert isinstance(self.model, DKPNet)
        return density, domain_distances(self.model, output.mu[0])

    def count_region(self, identity: str, corners: Any) -> float:
        """Heads inside a polygon, [[x, y], ...] in pixels of the picture. Raises `UserError`."""
        counted = self.counted.get(identity)
        if counted is None:
            raise UserError("this picture is no longer kept here; drop it again")
        try:
            ring = np.array(corners, np.float64)
        except (TypeError, ValueError):
            ring = np.zeros(0)
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
            raise UserError("a region needs at least three corners [x, y]")
        regions, stride = {"drawn": [ring]}, self.model.out_stride
        return count_regions(counted.density, regions, counted.size, stride, counted.prepared)["drawn"]


@functools.cache
def example(number: int) -> tuple[bytes, int]:
    """A synthetic test scene as JPEG, and the number of its annotated heads."""
    domain, index = EXAMPLES[number]
    with _rendering:  # a browser asks for all at once: better one soon than all late
        pixels, points = synthetic.render(domain, "test", index)
    return _encode(Image.fromarray(pixels), "JPEG"), len(points)


def serve(page: DemoPage, host: str, port: int) -> BaseWSGIServer:
    """Bind the page to an address; ``port`` 0 takes any free one. The caller runs ``serve_forever``.

    Raises:
        UserError: the address is taken, or not this machine's.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line per request
    if not 0 <= port < 1 << 16:
        raise UserError(f"port {port}: 0 to 65535 are possible")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # what follows repeats the address
        raise UserError(f"cannot serve on {host} port {port} ({reason}); choose with --host and --port") from None
    with listener:  # the server works on a copy of it
        return make_server(host, listener.getsockname()[1], page, threaded=True, fd=listener.fileno())


def _render(name: str, model: CrowdCounter, max_upload: int) -> str:
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("dkpnet_ext", "assets"), autoescape=True)
    return environment.get_template("demo.html").render(
        name=name,
        backbone=model.backbone_name,
        device=str(model.pixel_mean.device),
        suffixes=sorted(IMAGE_SUFFIXES),
        examples=[domain for domain, _ in EXAMPLES],
        max_upload=max_upload,
        too_large=_too_large(max_upload),
    )


def _too_large(max_upload: int) -> str:
    return f"the picture's file is larger than {max_upload / 1e6:g} MB; scale it down, or use the command predict"


def _json(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


def _encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file.getvalue()


def _data_url(image: Image.Image, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(_encode(image, kind)).decode()}"
