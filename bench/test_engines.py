"""Counting with `for_inference` against what a user could take instead: other runtimes on the exported file, torch.compile, eager.

An image of 1024 x 768, a folder and videos, on one and two threads, alone and beside a busy process that holds one core.
Plain loops decode, count, draw and write one picture after the other, with the same decoder and the same overlay, and write
with Pillow's and x264's defaults. The pictures have the grain of a camera, without which they compress unlike photographs.
About seven minutes on two quiet cores; the tables of bench/results/engines.md are printed by bench/engine_tables.py:

    OMP_NUM_THREADS=2 python -m pytest bench/test_engines.py --benchmark-json=bench/results/cpu-epyc-2-cores/engines.json
    python bench/engine_tables.py bench/results/cpu-epyc-2-cores/engines.json
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_inference import scene

from dkpnet_ext.counting.export import export_model
from dkpnet_ext.counting.prediction import predict_files
from dkpnet_ext.counting.video import read_frames
from dkpnet_ext.data.images import read_image, to_tensor
from dkpnet_ext.models import load_model
from dkpnet_ext.plots import overlay

Run = Callable[[torch.Tensor], torch.Tensor]  # uint8 [1, 3, H, W] -> density [1, 1, h, w]
BUSY = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nwhile True: pass"


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Inside, another process holds one core."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    path = tmp_path_factory.mktemp("export") / "counter.onnx"
    export_model(load_model(), path)
    return path


def inference(function: Callable) -> Run:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return function(images)

    return run


def ours(engine: str, precision: str = "fp32") -> Run:
    model = load_model().for_inference(engine, precision)
    return lambda images: model.examine(images[0], as_is=True).density


def onnxruntime_session(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["density"], {"images": images.numpy()})[0])


def openvino_session(path: Path, threads: int, hint: str) -> Run:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(str(path), "CPU", options).create_infer_request()
    return lambda images: torch.from_numpy(request.infer({"images": images.numpy()})["density"])


@functools.cache
def compiled(threads: int) -> Run:
    """Its kernels are made for a number of threads."""
    model = torch.compile(load_model().to(memory_format=torch.channels_last))
    return inference(lambda images: model(images).density)


def alternatives(exported: Path, threads: int) -> dict[str, Run]:
    model = load_model().to(memory_format=torch.channels_last)
    return {
        "ONNX Runtime": onnxruntime_session(exported, threads),
        "OpenVINO": openvino_session(exported, threads, "f32"),
        "eager": inference(lambda images: model(images).density),
    }


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy neighbour"])
def test_image(compare, tiny, exported, threads, busy):
    images = scene(tiny)
    own = {"ours (auto)": ours("auto"), "ours, PyTorch": ours("torch"), "ours (auto), bfloat16": ours("auto", "bf16")}
    others = alternatives(exported, threads) | {"torch.compile": compiled(threads)}
    others["OpenVINO, bfloat16"] = openvino_session(exported, threads, "bf16")
    truth = float(load_model().double().examine(images[0], as_is=True).density.sum())
    contenders = own | others
    columns = {n: {"error": abs(float(run(images).double().sum()) / truth - 1)} for n, run in contenders.items()}
    aims = [("ours (auto)", name, 0.95) for name in others if "bfloat16" not in name]
    aims += [("ours (auto), bfloat16", "OpenVINO, bfloat16", 0.95), ("ours, PyTorch", "ONNX Runtime", 1 / 1.2)]
    with neighbour(busy):
        compare(
            f"counting an image, {threads} thread{'s' * (threads > 1)}, {'beside a busy process' if busy else 'alone'}",
            f"uint8 {list(images.shape)}; error: relative difference of the counts against eager float64",
            *({name: (lambda run=run: run(images)) for name, run in group.items()} for group in (own, others)),
            device="cpu", columns=columns, aims=aims, rounds=5, graph_calls=0,
        )  # fmt: skip


def grained(images: torch.Tensor, number: int, shift: int) -> np.ndarray:
    """The scene as picture ``number`` of a series, moved by ``shift`` pixels each: uint8 [H, W, 3]."""
    pixels = np.roll(images[0].permute(1, 2, 0).numpy(), shift * number, 1)
    grain = np.random.default_rng(number).normal(0, 4, pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def files_contest(
    compare, row: str, setting: str, folder: Path, plain: Callable, exported: Path, threads: int, busy: bool
):
    """Ours on all files of a folder against a plain loop over each alternative."""
    model = load_model().for_inference()
    runs = alternatives(exported, threads) | {"torch.compile": compiled(threads)}
    others = {f"plain loop, {name}": (lambda run=run: plain(run)) for name, run in runs.items()}
    with neighbour(busy):
        compare(
            f"{row}, {threads} thread{'s' * (threads > 1)}, {'beside a busy process' if busy else 'alone'}",
            setting,
            {"ours (auto)": lambda: list(predict_files(model, [folder], folder.parent / "out"))},
            others,
            device="cpu", columns={}, aims=[("ours (auto)", name, 1.5) for name in others], rounds=2, graph_calls=0,
        )  # fmt: skip


def plain_folder(run: Run, pictures: list[Path], output: Path) -> None:
    for path in pictures:
        image = read_image(path)
        density = run(to_tensor(image)[None])[0, 0]
        overlay(image, density, float(density.sum())).save(output / f"{path.stem}-plain.png")


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy neighbour"])
def test_folder(compare, tiny, exported, tmp_path, threads, busy):
    """Images per second are pictures / seconds."""
    images, count = scene(tiny), 2 if tiny else 4
    (tmp_path / "in").mkdir()
    (tmp_path / "plain").mkdir()
    for i in range(count):
        Image.fromarray(grained(images, i, 40)).save(tmp_path / f"in/{i}.jpg", quality=90)
    pictures = sorted((tmp_path / "in").iterdir())
    files_contest(
        compare, "a folder", f"{count} pictures of {images.shape[3]} x {images.shape[2]}, JPEG in, overlay as PNG out",
        tmp_path / "in", lambda run: plain_folder(run, pictures, tmp_path / "plain"), exported, threads, busy,
    )  # fmt: skip


def plain_video(run: Run, path: Path, target: Path) -> None:
    import av

    with av.open(str(target), "w") as container:
        stream = None
        for frame in read_frames(path):
            assert frame.pixels is not None
            density = run(to_tensor(frame.pixels)[None])[0, 0]
            picture = overlay(frame.pixels, density, float(density.sum()))
            picture = picture.crop((0, 0, picture.width // 2 * 2, picture.height // 2 * 2))
            if stream is None:
                stream = container.add_stream("libx264", rate=25, options={"crf": "20"})
                stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy neighbour"])
@pytest.mark.parametrize("count", [4, 16], ids=["short", "long"])
def test_video(compare, tiny, exported, tmp_path, threads, busy, count):
    """Frames per second are frames / seconds; in the short video starting and ending (a plot) weigh the most."""
    av = pytest.importorskip("av")
    if threads == 1 and count == 16:
        count = 8  # for the time that it takes
    images, count = scene(tiny), 3 if tiny else count
    (tmp_path / "in").mkdir()
    with av.open(str(tmp_path / "in/clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = images.shape[3], images.shape[2], "yuv420p"
        for i in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grained(images, i, 8), format="rgb24")))
        container.mux(stream.encode(None))
    files_contest(
        compare, f"a video of {count} frames",
        f"{count} frames of {images.shape[3]} x {images.shape[2]}, H.264 in, overlay as H.264 out", tmp_path / "in",
        lambda run: plain_video(run, tmp_path / "in/clip.mp4", tmp_path / "plain.mp4"), exported, threads, busy,
    )  # fmt: skip
