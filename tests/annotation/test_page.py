"""The labelling page's answers, without a browser."""

import io
import json
import re
import threading
import time

import layouts
import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image
from werkzeug.test import Client

from dkpnet_ext import webserver
from dkpnet_ext.annotation import page as module
from dkpnet_ext.annotation.page import AnnotatePage
from dkpnet_ext.annotation.store import UNTOUCHED, Labels, Store
from dkpnet_ext.cli import Stopped
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet


@pytest.fixture(scope="module")
def model() -> DKPNet:
    torch.manual_seed(0)
    return alive(DKPNet("hrnet_w18_small", "none", channels=64, min_side=32)).eval()


@pytest.fixture
def page(tmp_path, model) -> AnnotatePage:
    for name in ("a & b.jpg", "street/ü.png"):
        layouts.picture(tmp_path / "my <folder>" / name, (96, 64))
    return AnnotatePage(Store(tmp_path / "my <folder>"), model, "a <small> model")


@pytest.fixture
def client(page) -> Client:
    return Client(page)


NAME = {"name": "street/ü.png"}
DONE = {"points": [[1, 2]], "ignore": [], "done": True}


def test_labels_go_out_and_come_back(client, page):
    answer = client.get("/labels", query_string=NAME).json
    assert (answer["width"], answer["height"], answer["points"], answer["done"]) == (96, 64, [], False)
    change = {"base": answer["version"], "points": [[1, 2.5]], "ignore": [], "done": True}
    response = client.post("/labels", query_string=NAME, json=change)
    assert response.json == {"version": Labels([[1.0, 2.5]], [], True).version}
    assert Store(page.store.folder).get("street/ü.png").points == [[1, 2.5]]

    refused = client.post("/labels", query_string=NAME, json=change | {"points": []})
    assert refused.status_code == 409
    assert refused.json["points"] == [[1, 2.5]] and refused.json["version"] == response.json["version"]
    assert refused.json["error"] == "street/ü.png: somebody else changed it"
    assert Store(page.store.folder).get("street/ü.png").points == [[1, 2.5]]


def test_the_list_says_who_is_where(client):
    def rows(client_id, name):
        return client.get("/pictures", query_string={"client": client_id, "name": name}).json

    assert rows("one", "a & b.jpg")[0] == {"name": "a & b.jpg", "heads": 0, "done": False, "elsewhere": False}
    assert [row["elsewhere"] for row in rows("two", "street/ü.png")] == [True, False]
    assert [row["elsewhere"] for row in rows("one", "street/ü.png")] == [False, True]


def test_browsers_that_are_gone_are_forgotten(client, page, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS", 5)
    for number in range(20):
        client.get("/pictures", query_string={"client": str(number), "name": "a & b.jpg"})
    assert len(page.seen) == 5
    monkeypatch.setattr(module, "AWAY", -1)
    assert not any(row["elsewhere"] for row in client.get("/pictures", query_string={"client": "x"}).json)


def test_pictures_as_browsers_show_them(client, page, tmp_path, monkeypatch):
    plain = client.get("/picture", query_string={"name": "a & b.jpg"})
    assert plain.data == page.store.pictures["a & b.jpg"].read_bytes() and plain.mimetype == "image/jpeg"

    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "my <folder>" / "turned.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "my <folder>" / "scan.tif")
    client = Client(AnnotatePage(Store(page.store.folder), page.model, "x"))
    size = client.get("/labels", query_string={"name": "turned.jpg"}).json
    shown = Image.open(io.BytesIO(client.get("/picture", query_string={"name": "turned.jpg"}).data))
    assert shown.size == (size["width"], size["height"]) == (40, 60) and not shown.getexif()
    scan = client.get("/picture", query_string={"name": "scan.tif"})
    assert scan.mimetype == "image/jpeg" and Image.open(io.BytesIO(scan.data)).size == (60, 40)
    monkeypatch.setattr(module, "MAX_VIEW", 30)  # one that is too large is shown smaller
    scan = client.get("/picture", query_string={"name": "scan.tif"})
    assert Image.open(io.BytesIO(scan.data)).size == (30, 20)


def test_proposals_are_those_of_the_model(client, page, model):
    path = page.store.pictures["a & b.jpg"]
    answer = client.get("/proposals", query_string={"name": "a & b.jpg"}).json
    points = np.array(answer["points"]).reshape(-1, 2)
    assert len(points) == round(model.count(path)) > 0
    assert points == pytest.approx(model.locate(path)[:, :2], abs=0.051)
    assert answer["radius"] == 1.5 * model.out_stride


@pytest.mark.parametrize(
    ("method", "path", "name", "data", "status"),
    [
        ("GET", "/labels", "../secret.jpg", b"", 400),
        ("GET", "/picture", "/etc/passwd", b"", 400),
        ("GET", "/picture", "", b"", 400),
        ("GET", "/proposals", "nothing.jpg", b"", 400),
        ("GET", "/../page.py", "", b"", 404),
        ("GET", "/annotate.html", "", b"", 404),
        ("DELETE", "/labels", "a & b.jpg", b"", 404),
        ("POST", "/labels", "../new.jpg", b"{}", 400),
        ("POST", "/labels", "a & b.jpg", b"", 400),
        ("POST", "/labels", "a & b.jpg", b"[" * 100_000, 400),
        ("POST", "/labels", "a & b.jpg", b'{"base": "x", "points": [[1, 1e400]], "ignore": [], "done": true}', 400),
        ("POST", "/labels", "a & b.jpg", b'{"base": ["x"], "points": [], "ignore": [], "done": true}', 409),
        ("POST", "/labels", "a & b.jpg", bytes(8_000_001), 413),
    ],
)
def test_what_is_refused(client, page, method, path, name, data, status):
    response = client.open(path, method=method, query_string={"name": name}, data=data)
    assert response.status_code == status and "\n" not in response.json["error"]
    assert page.store.labels == {}


def test_only_the_page_itself_may_change_labels(client, page):
    change = {"base": page.store.get("a & b.jpg").version, "points": [], "ignore": [], "done": True}
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        response = client.post("/labels", query_string={"name": "a & b.jpg"}, json=change, headers=headers)
        assert response.status_code == 403
    assert client.get("/labels", query_string=NAME, headers={"Host": "evil.example"}).status_code == 403
    assert page.store.labels == {}


def test_a_picture_that_became_unreadable(client, page):
    page.store.pictures["a & b.jpg"].write_bytes(b"no picture")
    for path in ("/labels", "/picture", "/proposals"):
        response = client.get(path, query_string={"name": "a & b.jpg"})
        assert response.status_code == 400 and "a & b.jpg: not a picture" in response.json["error"]


def test_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    assert "my &lt;folder&gt;" in response.text and "a &lt;small&gt; model" in response.text
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    for file in ("annotate.css", "annotate.js", "labels.js", "view.js"):
        content = client.get(f"/{file}")
        assert content.status_code == 200 and not re.search(r"https?://", content.text)
    assert json.dumps(client.get("/pictures").json)


def test_the_end_waits_for_what_is_being_answered(client, page, monkeypatch):
    """Ctrl-C while the model looked for heads aborted the process: its thread still computed when the interpreter went away."""
    began, go_on = threading.Event(), threading.Event()

    def count(*_):
        began.set()
        go_on.wait(60)
        raise UserError("too late")

    monkeypatch.setattr(module, "count_pixels", count)
    asking = threading.Thread(target=client.get, args=("/proposals",), kwargs={"query_string": NAME})
    assert page.finished(0)
    asking.start()
    assert began.wait(60) and not page.finished(0.01)
    go_on.set()
    assert page.finished(60)
    asking.join()


def test_a_stopped_server_waits_for_its_answers(page, monkeypatch):
    """SIGTERM is no Ctrl-C to Werkzeug; at commit 4eb5a94 the end did not wait then, and could abort in compiled code."""
    waited = []

    def stop(server):
        raise Stopped

    monkeypatch.setattr(page, "finished", waited.append)
    monkeypatch.setattr(webserver.BaseWSGIServer, "serve_forever", stop)
    with pytest.raises(Stopped):
        webserver.run(page, "127.0.0.1", 0)
    assert waited == [webserver.LAST]


def test_a_page_of_another_folder_writes_nothing(client, page):
    """The server was started again for another folder, and the pictures' names repeat."""
    assert f'data-folder="{page.mark}"' in client.get("/").text
    answer = client.post("/labels", query_string=NAME | {"folder": "x"}, json={"base": UNTOUCHED.version, **DONE})
    assert answer.status_code == 400 and "of another folder" in answer.json["error"]
    assert page.store.get(NAME["name"]) == UNTOUCHED
    answer = client.post("/labels", query_string=NAME | {"folder": page.mark}, json={"base": UNTOUCHED.version, **DONE})
    assert answer.status_code == 200


def test_nothing_is_proposed_to_a_browser_that_went_on(client, page, monkeypatch):
    """At commit 4eb5a94 the model counted every picture that was passed, one after the other."""
    counted = []
    monkeypatch.setattr(module, "count_pixels", lambda *_: counted.append(1))
    with page.counting:
        asking = threading.Thread(
            target=client.get, args=("/proposals",), kwargs={"query_string": NAME | {"client": "me"}}
        )
        asking.start()
        while "me" not in page.seen:
            time.sleep(0.01)
        client.get("/labels", query_string={"name": "a & b.jpg", "client": "me"})
    asking.join()
    assert not counted
