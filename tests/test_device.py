"""How many threads count a picture."""

import os

import pytest
import torch

from dkpnet_ext import device, load_model


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def system(folder, running, own):
    """A /proc in which so many threads run, of which those of this process have these states."""
    (folder / "loadavg").write_text(f"0.10 0.20 0.30 {running}/345 6789\n")
    for number, state in enumerate(own):
        task = folder / "self" / "task" / str(number)
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{number} (a ) b) {state} 1 2 3\n")
    return folder


@pytest.mark.parametrize(
    "running, own, busy",
    [(1, "R", 0), (2, "R", 1), (2, "RRS", 0), (5, "RSRD", 3), (3, "", 3)],
    ids=["alone", "a neighbour", "own threads", "both", "no tasks"],
)
def test_busy_cores(tmp_path, running, own, busy):
    (tmp_path / "self" / "task").mkdir(parents=True)
    assert device._busy_cores(system(tmp_path, running, own)) == busy


def test_busy_cores_where_the_system_does_not_say(tmp_path):
    assert device._busy_cores(tmp_path) == 0
    (tmp_path / "loadavg").write_text("nothing")
    assert device._busy_cores(tmp_path) == 0


@pytest.mark.parametrize("cores, busy, expected", [(2, 0, 2), (2, 1, 1), (2, 7, 1), (16, 1, 2), (16, 15, 1)])
def test_threads_that_are_free(threads, monkeypatch, cores, busy, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(device, "_busy_cores", lambda: busy)
    with pytest.raises(KeyError), device.free_cores():
        assert torch.get_num_threads() == expected
        raise KeyError
    assert torch.get_num_threads() == 2


def test_a_picture_is_counted_the_same_beside_a_busy_process(threads, monkeypatch):
    picture = torch.randint(0, 256, (3, 200, 300), dtype=torch.uint8)
    model = load_model().for_inference("torch")
    used = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda *args, **options: (used.append(torch.get_num_threads()), forward(*args, **options))[1],
    )
    counts = []
    for busy in (0, 1):
        monkeypatch.setattr(device, "_busy_cores", lambda busy=busy: busy)
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        counts.append(model.count(picture))
    assert used == [2, 1]
    assert counts[0] == pytest.approx(counts[1], rel=1e-5)
