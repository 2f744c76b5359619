"""Pictures side by side: their order, their threads, and that ours takes no more of the processor than a plain loop."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dkpnet_ext.counting.prediction import predict_files
from dkpnet_ext.counting.video import read_frames
from dkpnet_ext.counting.workers import MOST, Workers
from dkpnet_ext.data.images import read_image
from dkpnet_ext.models import load_model
from dkpnet_ext.plots import overlay


@pytest.fixture
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 7, 20], indirect=True)
def test_results_come_in_order_and_few_are_begun(model, threads):
    begun, seen, shares = [], [], set()

    def work(i):
        begun.append(i)
        time.sleep(0.002 * (i % 3))
        shares.add((threading.get_ident(), torch.get_num_threads()))
        return i * i

    with Workers(model) as workers:
        assert workers.number == min(threads, MOST)
        for item, square in workers.each(work, range(30)):
            assert square == item * item and len(begun) - len(seen) <= workers.number + 1
            seen.append(item)
    assert seen == list(range(30))
    assert {share for _, share in shares} == {threads // min(threads, MOST)} and torch.get_num_threads() == threads
    found = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [threads]  # threads that start afterwards have all of them again


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_one_picture_gets_all_threads_and_a_failure_its_place(model, threads):
    with Workers(model, items=1) as workers:
        assert workers.number == 1
        workers.begin("first", torch.get_num_threads)
        workers.begin("second", lambda: 1 / 0)
        (_, first), (_, second) = workers.finished(0)
        assert first.result() == 4
        with pytest.raises(ZeroDivisionError):
            second.result()


@pytest.fixture(scope="module")
def counter():
    return load_model().for_inference("torch")


def processor_seconds(*functions, rounds=3):
    """Of each one's fastest turn; they take turns, so that a busy machine changes little."""
    fastest = [float("inf")] * len(functions)
    for turn in range(rounds + 1):
        for i, function in enumerate(functions):
            start = time.process_time()
            function()
            if turn:  # the first one warms up
                fastest[i] = min(fastest[i], time.process_time() - start)
    return fastest


def grained(number):
    """A picture of 384 x 512 with the grain of a camera, without which it compresses unlike a photograph."""
    y, x = np.mgrid[:384, :512]
    smooth = np.stack([90 + 60 * np.sin((x + 8 * number) / 40), 90 + 50 * np.cos(y / 50), 80 + (x + y) / 9], -1)
    return (smooth + np.random.default_rng(number).normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_a_folder_takes_less_than_a_plain_loop(counter, threads, tmp_path):
    """Less by a third when it was measured (bench/results/engines.md); the loop is what one writes with Pillow."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        Image.fromarray(grained(i)).save(tmp_path / f"in/{i}.jpg", quality=90)

    def loop():
        for path in sorted((tmp_path / "in").iterdir()):
            image = read_image(path)
            density = counter.density(image, as_is=True)
            overlay(image, density, float(density.sum())).save(tmp_path / "plain.png")

    def ours():
        list(predict_files(counter, [tmp_path / "in"], tmp_path / "out", as_is=True))

    mine, theirs = processor_seconds(ours, loop)
    assert mine < theirs, f"{mine / theirs:.2f} times the processor time of a plain loop"


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_a_video_takes_hardly_more_than_a_plain_loop(counter, threads, tmp_path):
    """The loop draws every frame and writes it with x264's defaults; ours also plots the counts, which weighs in few frames."""
    av = pytest.importorskip("av", reason="PyAV is not installed")

    def encoded(path, pictures):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "20"})
            for picture in pictures:
                if not stream.width:
                    stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode(None))

    def drawn():
        for frame in read_frames(tmp_path / "in.mp4"):
            density = counter.density(frame.pixels, as_is=True)
            yield overlay(frame.pixels, density, float(density.sum()))

    encoded(tmp_path / "in.mp4", (Image.fromarray(grained(i)) for i in range(16)))

    def ours():
        list(predict_files(counter, [tmp_path / "in.mp4"], tmp_path / "out", as_is=True))

    mine, theirs = processor_seconds(ours, lambda: encoded(tmp_path / "plain.mp4", drawn()), rounds=2)
    assert mine < 1.15 * theirs, f"{mine / theirs:.2f} times the processor time of a plain loop"
