"""The local server of `python -m dkpnet_ext.annotate`: it sends pictures and labels, and stores changed labels.

The page itself is in `assets/annotate`; `Store` keeps the labels. The page asks for pictures by name and gets only
those that the store found.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path
from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from ..counting.pictures import count_pixels
from ..data.images import BadFile, decode, inspect_image
from ..errors import UserError
from ..models import CrowdCounter
from ..webserver import Page, encode, json_response
from .store import Conflict, Labels, Store, checked

MAX_UPLOAD = 8_000_000  # bytes of one picture's labels; 100,000 heads take about 2 MB
MAX_VIEW = 8192  # px; a larger picture is shown smaller, and labelled in its own pixels all the same
AWAY = 30  # seconds after which a browser that asks no more has left its picture
CLIENTS = 200  # browsers that are remembered
KEPT = 32  # pictures whose proposals are kept
DECODING = 2  # pictures in memory at a time
_FILES = {"annotate.css": "text/css", **dict.fromkeys(("annotate.js", "labels.js", "view.js"), "text/javascript")}


class AnnotatePage(Page):
    """The WSGI application.

    Args:
        store: the labels; model: on its device, in evaluation mode; name: what the page calls it.
        host: the name under which the page is asked for, besides localhost and any address in numbers.
    """

    def __init__(self, store: Store, model: CrowdCounter, name: str, host: str = "localhost") -> None:
        super().__init__(host, MAX_UPLOAD, inline=False)
        self.store, self.model, self.name = store, model, name
        self.decoding = threading.BoundedSemaphore(DECODING)
        self.counting = threading.Lock()  # one picture at a time: each takes all cores
        self.proposed: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.sizes: dict[str, tuple[int, int]] = {}  # (width, height) of pictures that were decoded
        self.seen: OrderedDict[str, tuple[str, float]] = OrderedDict()  # browser -> its picture, when it asked last
        # A page that stays open while the server is started again for another folder may not write into that one.
        self.mark = hashlib.blake2b(os.fsencode(store.folder.resolve()), digest_size=8).hexdigest()

    def answer(self, request: Request) -> Response:
        """Find what a request asks for. Raises `UserError` and Werkzeug's exceptions."""
        name, client = request.args.get("name", ""), request.args.get("client", "")[:40]
        if request.args.get("folder", self.mark) != self.mark:
            raise UserError("this page is of another folder than the server is now; reload it")
        match request.method, request.path.strip("/"):
            case "GET", "":
                return self.html(
                    "annotate/annotate.html", folder=self.store.folder.resolve().name, model=self.name, mark=self.mark
                )
            case "GET", file if file in _FILES:
                content = files("dkpnet_ext").joinpath("assets", "annotate", file).read_bytes()
                return Response(content, mimetype=_FILES[file], headers={"Cache-Control": "no-cache"})
            case "GET", "pictures":
                self._met(client, name)
                return json_response(self.list_pictures(client))
            case "GET", "picture":
                return self.picture(self._path(name))
            case "GET", "labels":
                self._met(client, name)
                return json_response(self.labels(name))
            case "POST", "labels":
                return self.change(name, request.get_data())
            case "GET", "proposals":
                self._met(client, name)
                return json_response(self.proposals(name, client))
        raise NotFound

    def _path(self, name: str) -> Path:
        path = self.store.pictures.get(name)
        if path is None:
            raise UserError(f"{name}: no such picture in this folder")
        return path

    def _met(self, client: str, name: str) -> None:
        """Remember which picture a browser shows."""
        if client:
            self.seen[client] = (name, time.monotonic())
            self.seen.move_to_end(client)
            if len(self.seen) > CLIENTS:
                self.seen.popitem(last=False)

    def list_pictures(self, client: str) -> list[dict[str, Any]]:
        """Every picture: heads, whether it is finished, whether another browser shows it now."""
        now = time.monotonic()
        elsewhere = {name for who, (name, at) in list(self.seen.items()) if who != client and now - at < AWAY}
        rows = []
        for name in self.store.pictures:
            labels = self.store.get(name)
            rows.append({"name": name, "heads": labels.heads, "done": labels.done, "elsewhere": name in elsewhere})
        return rows

    def picture(self, path: Path) -> Response:
        """A picture as browsers show it: its own file if that is what they decode, else as JPEG."""
        try:
            info = inspect_image(path)
            plain = path.suffix.lower() in (".jpg", ".jpeg", ".png") and set(info.notes) <= {"grayscale"}
            if plain and max(info.size) <= MAX_VIEW:
                kind = "image/png" if path.suffix.lower() == ".png" else "image/jpeg"
                return Response(path.read_bytes(), mimetype=kind, headers={"Cache-Control": "no-cache"})
            with self.decoding:
                image = decode(path)
                image.thumbnail((MAX_VIEW, MAX_VIEW))
                return Response(encode(image, "JPEG"), mimetype="image/jpeg", headers={"Cache-Control": "no-cache"})
        except BadFile as bad:
            raise UserError(f"{path.name}: {bad}") from None
        except OSError as error:
            raise UserError(f"{path.name}: cannot be read ({error.strerror})") from None

    def labels(self, name: str) -> dict[str, Any]:
        """A picture's labels, their version, and its size in pixels."""
        path = self._path(name)
        try:
            if (known := self.sizes.get(name)) is None:
                with self.decoding:  # all of it: what training cannot read shall not be labelled
                    known = self.sizes[name] = decode(path).size
        except BadFile as bad:
            raise UserError(f"{name}: {bad}") from None
        width, height = known
        return {"name": name, "width": width, "height": height, **_spoken(self.store.get(name))}

    def change(self, name: str, content: bytes) -> Response:
        """New labels of a picture; status 409 and the present ones if somebody else changed them meanwhile."""
        self._path(name)
        try:
            asked = json.loads(content)
            base = asked["base"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError("a change is JSON with base, points, ignore and done") from None
        try:
            return json_response({"version": self.store.put(name, checked(asked), base)})
        except Conflict as conflict:
            return json_response({"error": str(conflict), **_spoken(conflict.labels)}, 409)

    def proposals(self, name: str, client: str = "") -> dict[str, Any]:
        """Heads that the model sees, in pixels; `radius`: how near a labelled head is the same one.

        No heads for a browser that shows another picture by the time that it is its turn.
        """
        path = self._path(name)
        with self.counting:
            if client in self.seen and self.seen[client][0] != name:
                return {"points": [], "radius": 0}
            if name not in self.proposed:
                self.proposed[name] = self._propose(name, path)
                if len(self.proposed) > KEPT:
                    self.proposed.popitem(last=False)
            return self.proposed[name]

    def _propose(self, name: str, path: Path) -> dict[str, Any]:
        try:
            found = count_pixels(self.model, decode(path))
        except BadFile as bad:
            raise UserError(f"{name}: {bad}") from None
        cell = found.stride * found.size[1] / found.counted[1]  # of the density, in pixels of the picture
        return {"points": found.located()[:, :2].round(1).tolist(), "radius": 1.5 * cell}


def _spoken(labels: Labels) -> dict[str, Any]:
    return {**labels._asdict(), "version": labels.version}
