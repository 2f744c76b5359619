"""What `predict` is given: each gets its line, and the good picture beside it is counted."""

import os
from pathlib import Path

import layouts
import pytest
import torch
from counters import alive
from faults import Fault, answered

from dkpnet_ext.counting.prediction import predict_files
from dkpnet_ext.models import DKPNet

# What is counted beside ok.png.
FILES = [
    Fault("a missing file", "none.jpg", "no such"),
    Fault("/dev/null", "/dev/null", "not a file"),
    Fault("/dev/zero", "/dev/zero", "not a file"),
    Fault("a pipe", "pipe.png", "not a file"),
    Fault("a link to itself", "loop.png", "loop|symbolic|no such|not a file"),
    Fault("a text", "notes.txt", "not a picture"),
    Fault("an empty video", "empty.avi", "video"),
    Fault("a video without frames", "broken.mp4", "video"),
    Fault("text called a video", "text.mkv", "video"),
    Fault("a missing video", "none.mp4", "no such"),
    Fault("a home folder that is not replaced", "~/none.png", "no such"),
]
# What ends the command.
NOTHING = [
    Fault("an empty folder", "empty", "no picture"),
    Fault("a pattern that fits nothing", "*.heic", "no file fits"),
    Fault("an address", "https://example.org/a.jpg", "an address"),
    Fault("the address of a file", "file:///tmp/a.jpg", "an address"),
    Fault("the number of a camera", "0", "camera"),
]
# The folder for the results.
OUTPUTS = [
    Fault("a file", "ok.png", "cannot be written"),
    Fault("below a file", "ok.png/out", "cannot be written"),
    Fault("a name of 300 characters", "y" * 300, "cannot be written"),
    Fault("a folder that the system has", "/proc/out", "cannot be written"),
]
# predictions.json in that folder.
LISTINGS = [
    Fault("cut off", b"[{", "not a list of this command's results"),
    Fault("an empty file as listing", b"", "not a list of this command's results"),
    Fault("an object", b"{}x", "not a list of this command's results"),
    Fault("numbers as names", b'[{"file": 5, "outputs": []}]', "not a list of this command's results"),
    Fault("UTF-16", "[]".encode("utf-16"), "not a list of this command's results"),
    Fault("deep", b"[" * 100_000, "not a list of this command's results"),
    Fault("a folder as listing", None, "not a list of this command's results"),
]
TABLE = [*FILES, *NOTHING, *OUTPUTS, *LISTINGS]


@pytest.fixture(scope="module")
def model() -> DKPNet:
    torch.manual_seed(0)
    return alive(DKPNet("hrnet_w18_small", num_sub=2, channels=64, domains=("A", "B"), min_side=32)).eval()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working folder."""
    monkeypatch.chdir(tmp_path)
    layouts.picture(tmp_path / "ok.png")
    os.mkfifo("pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty.avi").touch()
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    (tmp_path / "text.mkv").write_text("no video")
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize("fault", FILES, ids=lambda fault: fault.name)
def test_file(fault, model):
    from dkpnet_ext.errors import UserError

    bad, good = predict_files(model, [Path(fault.given), Path("ok.png")], Path("out"))
    assert good.count is not None and bad.count is None

    def raise_it():
        raise UserError(bad.error)

    answered(raise_it, fault.answer)


@pytest.mark.parametrize("fault", NOTHING, ids=lambda fault: fault.name)
def test_nothing_to_count(fault, model):
    answered(lambda: list(predict_files(model, [Path(fault.given)], Path("out"))), fault.answer)


@pytest.mark.parametrize("fault", OUTPUTS, ids=lambda fault: fault.name)
def test_output(fault, model):
    answered(lambda: list(predict_files(model, [Path("ok.png")], Path(fault.given))), fault.answer)


@pytest.mark.parametrize("fault", LISTINGS, ids=lambda fault: fault.name)
def test_listing(fault, model):
    listing = Path("out", "predictions.json")
    listing.parent.mkdir()
    if fault.given is None:
        listing.mkdir()
    else:
        listing.write_bytes(fault.given)
    answered(lambda: list(predict_files(model, [Path("ok.png")], Path("out"))), fault.answer)
