"""Shared by the local pages (demo, annotate): a server, checks of the client, limits of size and time, errors as JSON.

A page is a WSGI application that loads nothing from other hosts; its files are in `assets/`.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import logging
import re
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from PIL import Image
from werkzeug.exceptions import Forbidden, HTTPException, RequestEntityTooLarge
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Request, Response

from .errors import UserError, out_of_memory, say

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CLIENTS = 32  # connections at a time; a browser opens six
IDLE, LIFE = 20, 180  # seconds: until a client that sends nothing is dropped, and until any is
LAST = 30  # seconds that the end waits for requests that are being answered


class Page:
    """A WSGI application that only its own page may ask; a subclass says what it answers.

    Args:
        host: the name under which the page is asked for, besides localhost and any address in numbers.
        max_upload: bytes of a request.
        inline: whether the page holds its script and style itself; else both are files of this server.
    """

    def __init__(self, host: str, max_upload: int, inline: bool) -> None:
        self.max_upload = max_upload
        self.hosts = {"localhost", host.lower(), socket.gethostname().lower()}
        source = "'unsafe-inline'" if inline else "'self'"
        # Nothing from elsewhere: a page that asked for it would be refused by the browser.
        self.policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src {source}; script-src {source}"
        )
        self.answering = 0  # requests
        self.changed = threading.Condition()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        self._change_answering(1)
        try:
            return self._respond(environ, start_response)
        finally:
            self._change_answering(-1)

    def _change_answering(self, more: int) -> None:
        with self.changed:
            self.answering += more
            self.changed.notify_all()

    def finished(self, seconds: float) -> bool:
        """Wait until no request is being answered; False if that takes longer."""
        with self.changed:
            return self.changed.wait_for(lambda: not self.answering, seconds)

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        request.max_content_length = self.max_upload
        try:
            self.check_sender(request)
            response = self.answer(request)
        except RequestEntityTooLarge:
            response = json_response({"error": self.too_large()}, 413)
        except UserError as error:
            response = json_response({"error": str(error)}, 400)
        except HTTPException as error:
            response = json_response({"error": f"{request.method} {request.path}: {error.name}"}, error.code or 500)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            response = json_response({"error": "not enough memory for this picture; scale it down"}, 503)
        return response(environ, start_response)

    def answer(self, request: Request) -> Response:
        """Find what a request asks for. Raises `UserError` and Werkzeug's exceptions."""
        raise NotImplementedError

    def too_large(self) -> str:
        """What is said of a request of more than ``max_upload`` bytes."""
        return f"more than {self.max_upload / 1e6:g} MB"

    def html(self, template: str, **values: Any) -> Response:
        """A page of `assets/`, filled in."""
        from jinja2 import Environment, PackageLoader

        environment = Environment(loader=PackageLoader("dkpnet_ext", "assets"), autoescape=True)
        text = environment.get_template(template).render(**values)
        return Response(text, mimetype="text/html", headers={"Content-Security-Policy": self.policy})

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


def json_response(content: Any, status: int = 200) -> Response:
    """An answer as JSON, which no browser keeps."""
    return Response(json.dumps(content), status, mimetype="application/json", headers={"Cache-Control": "no-store"})


def encode(image: Image.Image, kind: str) -> bytes:
    """A picture as the bytes of a ``JPEG`` or ``PNG`` file."""
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return file.getvalue()


def data_url(image: Image.Image, kind: str) -> str:
    """A picture as an address that holds it."""
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encode(image, kind)).decode()}"


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


def serve(page: Page, host: str, port: int) -> BaseWSGIServer:
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


def run(page: Page, host: str, port: int) -> None:
    """Serve the page until Ctrl-C, after a line that says its address. Raises as `serve` does."""
    server = serve(page, host, port)
    say(f"open http://{f'[{host}]' if ':' in host else host}:{server.port} (Ctrl-C ends it)")
    try:
        server.serve_forever()
    finally:
        # A thread that still counts in compiled code while the interpreter goes away would abort the process.
        page.finished(LAST)
