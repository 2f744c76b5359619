"""The page of `python -m dkpnet_ext.demo`: a picture goes up, its count and density come back.

The page itself is `assets/demo.html`; it draws and asks, everything is computed here. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import functools
import io
import ipaddress
import json
import logging
import re
import secrets
import socket
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

from ..data.images import IMAGE_SUFFIXES, BadFile, open_image, read_image
from ..errors import UserError
from ..models import CrowdCounter, DKPNet
from ..models.attention import VariationalAttention
from ..plots import MAX_SIDE, heat_layer, heat_peak, per_area
from ..synthetic import scenes as synthetic
from .pictures import Counted, count_pixels
from .regions import polygon

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_UPLOAD = 64  # megabytes; the longest photographs are about half of that
MAX_MEGAPIXELS = 64  # of a picture; phones take at most 50, and each takes 3 bytes a pixel and more while it is decoded
MAX_CORNERS = 10_000  # of a region
DECODING = 2  # pictures in memory at a time
CLIENTS = 32  # connections at a time; a browser opens six
IDLE, LIFE = 20, 180  # seconds: until a client that sends nothing is dropped, and until any is
KEPT = 16  # pictures whose regions can still be counted; a density map of 8192 x 8192 px takes 16 MB
EXAMPLES = [(domain, index) for index in (0, 1) for domain in synthetic.DOMAINS]
# Standard deviations, see `Familiar`. Of 60 training images of the packaged model none is beyond 0.40, noise is at 0.8; plain
# white (0.35) and a checkerboard (0.28) are not seen: the words warn of strange pictures, they vouch for none.
UNLIKE = 0.5
_rendering = threading.Lock()

# Nothing from elsewhere: a page that asked for it would be refused by the browser.
_POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


class Familiar(NamedTuple):
    """How near a picture is to those that the model learned from, in its latent space."""

    distance: float  # to the nearest centre, in standard deviations of its prior, root mean square over the dimensions
    domain: str  # name of the nearest data set; "" where the centres are clusters, which have no names

    def words(self) -> str:
        """What the page says."""
        if self.distance > UNLIKE:
            return "unlike the pictures it learned from: the count may be far off"
        return f"like its pictures of {self.domain}" if self.domain else "like the pictures it learned from"


def familiar(model: DKPNet, mu: Tensor) -> Familiar:
    """The centre that is nearest to an image's latent mean, of all domains and sub-components.

    The domains of VA (stage I) are the data sets; those of InVA (stage II) are clusters of attention, which bear no names
    even if they are as many as the data sets.

    Args:
        mu: [d], the image's latent mean.
    """
    attention = model.attention
    assert isinstance(attention, VariationalAttention)
    with torch.no_grad():
        centers, deviations = attention.centers.float().cpu(), (attention.prior_logvar.float().cpu() / 2).exp()
        standard = (centers - mu.float().cpu()) / deviations[:, None]  # [domains, sub-components, d]
        distances = standard.square().mean(-1).sqrt().amin(1)
    nearest = int(distances.argmin())
    named = model.system == "va" and len(model.domains) == len(distances)
    return Familiar(float(distances[nearest]), model.domains[nearest] if named else "")


class DemoPage:
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
        self.model, self.max_upload, self.max_megapixels = model, max_upload, max_megapixels
        self.hosts = {"localhost", host.lower(), socket.gethostname().lower()}
        self.decoding = threading.BoundedSemaphore(DECODING)
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
        self.check_sender(request)
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
                return _json({"count": self.count_region(identity, request.get_data())})
        raise NotFound

    def check_sender(self, request: Request) -> None:
        """Only this page itself may ask. Raises `Forbidden`.

        Another site's page in the same browser can post here (its ``Origin`` tells), and a name of its own that it lets
        point here (DNS rebinding) would let it read answers: only names known to be this machine's are served.
        """
        host = request.headers.get("Host", "").lower()
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            if name not in self.hosts:
                raise Forbidden from None
        origin = request.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise Forbidden

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
            found = count_pixels(self.model, image)
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
            "familiar": "" if found.mu is None else familiar(cast(DKPNet, self.model), found.mu).words(),
            "scale": per_area(heat_peak(found.density), found.density, (width, height)),
            "photo": _data_url(image, "JPEG"),
            "heat": _data_url(heat_layer(found.density), "PNG"),
        }

    def count_region(self, identity: str, content: bytes) -> float:
        """Heads inside a polygon, as JSON [[x, y], ...] in pixels of the picture. Raises `UserError`."""
        counted = self.counted.get(identity)
        if counted is None:
            raise UserError("this picture is no longer kept here; drop it again")
        try:
            corners = json.loads(content)
            if not isinstance(corners, list) or len(corners) > MAX_CORNERS:
                raise ValueError
            ring = polygon(corners)
        except (ValueError, RecursionError):
            raise UserError(f"a region needs 3 to {MAX_CORNERS} corners [x, y] in pixels") from None
        with self.decoding:
            return counted.in_regions({"drawn": [ring]})["drawn"]


@functools.cache
def example(number: int) -> tuple[bytes, int]:
    """A synthetic test scene as JPEG, and the number of its annotated heads."""
    domain, index = EXAMPLES[number]
    with _rendering:  # a browser asks for all at once: better one soon than all late
        pixels, points = synthetic.render(domain, "test", index)
    return _encode(Image.fromarray(pixels), "JPEG"), len(points)


class _Handler(WSGIRequestHandler):
    """One request of one client, who may not keep it open for ever."""

    protocol_version = "HTTP/1.0"  # a connection per request, so that its life has an end
    timeout = IDLE

    def setup(self) -> None:
        super().setup()
        self.end = threading.Timer(LIFE, self._drop)
        self.end.daemon = True
        self.end.start()

    def finish(self) -> None:
        self.end.cancel()
        super().finish()

    def _drop(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log(self, type: str, message: str, *args: Any) -> None:
        """No words about clients that are slow or talk nonsense."""


class _Server(ThreadedWSGIServer):
    """At most `CLIENTS` connections; one more is closed at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.places = threading.BoundedSemaphore(CLIENTS)
        super().__init__(*arguments, **options)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.acquire(blocking=False):
            with suppress(OSError):
                request.settimeout(1)
                request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()


def serve(page: DemoPage, host: str, port: int) -> BaseWSGIServer:
    """Bind the page to an address; ``port`` 0 takes any free one. The caller runs ``serve_forever``.

    Raises:
        UserError: no address; one that is taken, or not this machine's.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line per request
    if not host.strip():
        raise UserError("host: empty, which means every network; say 127.0.0.1 (only this machine) or 0.0.0.0 (all)")
    if not 0 <= port < 1 << 16:
        raise UserError(f"port {port}: 0 to 65535 are possible")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        reason = str(getattr(error, "strerror", None) or "not a name").partition(" (while")[0]
        raise UserError(f"cannot serve on {host} port {port} ({reason}); choose with --host and --port") from None
    with listener:  # the server works on a copy of it
        return _Server(host, listener.getsockname()[1], page, _Handler, fd=listener.fileno())


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
