"""Engines count what PyTorch counts, in tiles, with attention, in threads; `auto` measures once and takes no wrong one."""

from __future__ import annotations

import copy
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from counters import alive

from dkpnet_ext import info
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import DKPNet, MultiBranch, blocks, engines, load_model, tiling
from dkpnet_ext.models.engines import choice, graph, runtimes
from dkpnet_ext.models.mcnn import MCNN
from dkpnet_ext.ops import native

for package in ("onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package, reason="an engine's package is not installed")

NAMES = ("onnxruntime", "openvino")
SIZES = [(45, 70), (64, 96), (101, 33), (17, 18), (16, 16)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this file's own; `auto` measures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DKPNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv(choice.VARIABLE, raising=False)
        yield


def build(kind: str):
    torch.manual_seed(0)
    backbone, domains = "tf_efficientnet_lite0", ("A", "B")
    if kind == "starter":
        return load_model()
    if kind == "fpn, InVA":
        return DKPNet(
            backbone, "inva", num_sub=2, channels=16, domains=domains, neck="fpn", out_stride=8, link="exp"
        ).eval()
    if kind == "paper's neck, InVA":
        return alive(DKPNet(backbone, "inva", num_sub=2, channels=16, domains=domains)).eval()
    if kind == "multi-branch":
        return alive(MultiBranch(backbone, channels=16, domains=domains)).eval()
    return MCNN("se", density_scale=100.0).eval()


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8)


def same(found, expected):
    """Two results of `examine`."""
    scale = float(expected.density.abs().sum().clamp_min(1e-3))
    assert found.density.shape == expected.density.shape
    assert float((found.density - expected.density).abs().sum()) <= 1e-4 * scale
    for name in ("attention", "mu", "logvar", "domain_logits"):
        values = getattr(found, name), getattr(expected, name)
        assert (values[0] is None) == (values[1] is None)
        if values[0] is not None:
            torch.testing.assert_close(*values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["starter", "fpn, InVA", "multi-branch", "MCNN"])
def test_engines_are_the_model(kind, monkeypatch):
    """Untiled at odd sizes, in a batch, and in tiles of 64 pixels."""
    model = build(kind)
    fast = {name: copy.deepcopy(model).for_inference(name) for name in ("torch", *NAMES)}
    batch = torch.from_numpy(np.stack([image((60, 90), seed) for seed in range(3)])).permute(0, 3, 1, 2)
    for name, candidate in fast.items():
        for size in SIZES:
            same(candidate.examine(image(size), as_is=True), model.examine(image(size), as_is=True))
        with torch.inference_mode():
            same(candidate(batch), model(batch))
        if name != "torch":
            assert isinstance(candidate.backbone, runtimes.Engine)
            copied = copy.deepcopy(candidate)
            same(copied.examine(image((64, 96)), as_is=True), model.examine(image((64, 96)), as_is=True))
    large = image((300, 460))
    expected = model.examine(large, as_is=True)
    monkeypatch.setattr(tiling, "LIMIT", 200 * 200)
    monkeypatch.setattr(tiling, "TILE", 128)
    for candidate in fast.values():
        same(candidate.examine(large, as_is=True), expected)


def test_no_graph_is_exported_twice(monkeypatch):
    """Neither for another engine nor in another process (the file is found by what it was made from)."""
    build("paper's neck, InVA").for_inference("onnxruntime")
    other = build("paper's neck, InVA")
    with torch.no_grad():
        other.attention.centers.add_(1)  # no part of the trunk
    monkeypatch.setattr(graph, "_export", None)
    other.for_inference("openvino")
    changed = build("paper's neck, InVA")
    with torch.no_grad():
        next(changed.backbone.parameters())[0, 0, 0, 0] += 1e-3
    with pytest.raises(TypeError):  # the exporter, which is None now
        changed.for_inference("openvino")


@pytest.mark.parametrize("name", ["torch", *NAMES])
def test_eight_threads_count_what_one_does(name):
    """Sizes differ, so that no two calls can share a buffer unseen."""
    model = build("starter").for_inference(name)
    images = [image((64 + 8 * (i % 5), 80 + 8 * (i % 7)), i) for i in range(40)]
    serial = [model.count(each, as_is=True) for each in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(lambda each: model.count(each, as_is=True), images)) == pytest.approx(serial, rel=1e-6)


def resident() -> float:
    """MiB of memory in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_steady(name):
    """Of 2,000 images in 20 sizes the last 1,000 take no more memory."""
    model = build("starter").for_inference(name)
    images = [image((32 + 16 * (i % 4), 48 + 16 * (i % 5)), i) for i in range(20)]
    used = []
    for _ in range(2):
        for i in range(1000):
            model.count(images[i % 20], as_is=True)
        used.append(resident())
    assert used[1] - used[0] < 8, f"{used} MiB after 1,000 and 2,000 images"


def processor_time(*functions, rounds: int = 7) -> list[float]:
    """Seconds of each one's fastest turn; they take turns, so that a busy machine changes little."""
    fastest = [float("inf")] * len(functions)
    for turn in range(rounds + 1):
        for i, function in enumerate(functions):
            start = time.process_time()
            function()
            if turn:  # the first one warms up
                fastest[i] = min(fastest[i], time.process_time() - start)
    return fastest


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_engine_costs_little_more_than_its_runtime(one_thread):
    """A regression check by a ratio, far from the measured one (1.02: bench/results/engines.md)."""
    import onnxruntime

    model, pixels = build("starter").for_inference("onnxruntime"), torch.from_numpy(image((384, 512))).permute(2, 0, 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = graph.onnx_file(model.backbone.exact[0].backbone)
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).random((1, 3, 384, 512), np.float32)
    bare, ours = processor_time(lambda: session.run(None, {"x": x}), lambda: model.count(pixels, as_is=True))
    assert ours < 1.3 * bare, f"{ours / bare:.2f} times as long as ONNX Runtime on the trunk alone"


@pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
def test_pytorch_takes_no_slow_path_at_one_thread(one_thread):
    """At one thread PyTorch sends 1x1 convolutions to a loop over `im2col`; ours never."""
    pixels = torch.from_numpy(image((96, 128))).permute(2, 0, 1)
    slow = {}
    for kind, model in (("eager", build("starter")), ("ours", build("starter").for_inference("torch"))):
        with torch.profiler.profile() as profile:
            model.count(pixels, as_is=True)
        slow[kind] = sum("_slow_conv2d_forward" in event.name for event in profile.events())
    assert slow["eager"] > 10 and slow["ours"] <= 1  # the last convolution, to one channel


def test_auto_measures_once_and_says_so(monkeypatch):
    model = build("starter").for_inference()
    assert model.choice.engine == min(model.choice.milliseconds, key=model.choice.milliseconds.get)
    assert set(model.choice.milliseconds) == {"torch", *NAMES} and not model.choice.passed_over
    assert f"fp32, {torch.get_num_threads()} threads, cpu: {model.choice.engine} (" in info.report()
    monkeypatch.setattr(choice, "_measure", None)  # not called again
    again = build("starter").for_inference()
    assert again.choice == model.choice
    assert isinstance(again.backbone, runtimes.Engine) == (model.choice.engine != "torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(TypeError):  # another number of threads is another question
            build("starter").for_inference()
    finally:
        torch.set_num_threads(threads)


def test_a_damaged_note_is_measured_anew(monkeypatch):
    expected = build("starter").for_inference().choice
    for path in graph.folder().glob("*.json"):
        path.write_text("{")
    assert build("starter").for_inference().choice.setting == expected.setting


@pytest.mark.parametrize("wrong", [lambda x: 1.01 * x, lambda x: x * float("nan")], ids=["1 % off", "NaN"])
def test_an_engine_that_counts_wrongly_is_not_taken(monkeypatch, wrong):
    """By name it is refused, `auto` passes it over even if it is the fastest."""
    run = runtimes.OnnxRuntime.__call__
    monkeypatch.setattr(
        runtimes.OnnxRuntime, "__call__", lambda self, *a: {n: wrong(x) for n, x in run(self, *a).items()}
    )
    with pytest.raises(UserError, match=r"engine onnxruntime: counts \S+ other than PyTorch on a probe image"):
        build("starter").for_inference("onnxruntime")
    for path in graph.folder().glob("*.json"):
        path.unlink()
    chosen = build("starter").for_inference().choice
    assert chosen.engine != "onnxruntime" and "probe image" in chosen.passed_over["onnxruntime"]
    for path in graph.folder().glob("*.json"):
        path.unlink()


@pytest.mark.parametrize("earlier", [False, True])
def test_an_engine_that_does_not_load_is_passed_over(monkeypatch, tmp_path, earlier):
    """Installed, but its libraries are missing; measured before or not. At commit 4eb5a94 `predict` ended in a traceback."""
    monkeypatch.setenv("DKPNET_CACHE", str(tmp_path))
    if earlier:
        monkeypatch.setattr(choice, "_measure", lambda *_: choice.Choice("onnxruntime", {}, {}, {}))
        load_model().for_inference()
        monkeypatch.undo()
        monkeypatch.setenv("DKPNET_CACHE", str(tmp_path))

    def fail(name):
        raise ImportError("DLL load failed while importing onnxruntime_pybind11_state")

    monkeypatch.setattr(runtimes, "importlib", SimpleNamespace(import_module=fail))
    model = load_model().for_inference()
    assert model.choice.engine == "torch"
    assert "cannot run here (ImportError: DLL load failed" in model.choice.passed_over["onnxruntime"]
    assert model.count(image((64, 96))) >= 0
    assert [json.loads(path.read_text())["engine"] for path in graph.folder().glob("*.json")] == ["torch"], "remembered"
    with pytest.raises(UserError, match="engine onnxruntime: cannot run here"):
        load_model().for_inference("onnxruntime")


def test_operators_that_count_wrongly_are_not_taken(monkeypatch):
    """`auto` checks our own loops as it checks an engine."""
    right = blocks.ops.inverted_residual
    monkeypatch.setattr(blocks.ops, "inverted_residual", lambda *arguments: 1.01 * right(*arguments))
    for path in graph.folder().glob("*.json"):
        path.unlink()
    chosen = build("starter").for_inference().choice
    assert chosen.engine != "torch" and "probe image" in chosen.passed_over["torch"]
    for path in graph.folder().glob("*.json"):
        path.unlink()


def test_bfloat16_rounds_and_no_more():
    model = build("starter")
    pixels = image((200, 300))
    expected = model.examine(pixels, as_is=True).density
    with torch.autocast("cpu", torch.bfloat16):
        eager = model.examine(pixels, as_is=True).density
    allowed = 0.02 + 2 * float((eager - expected).abs().sum() / expected.sum())
    for name in ("torch", "openvino"):
        found = copy.deepcopy(model).for_inference(name, "bf16").examine(pixels, as_is=True).density
        difference = float((found - expected).abs().sum() / expected.sum())
        assert 1e-5 < difference < allowed, name
    fast = copy.deepcopy(model).for_inference("openvino", "bf16")  # its reach is measured in float32
    assert tiling.reach(fast) < 320


def test_what_cannot_run_is_one_line(monkeypatch):
    model = build("starter")
    for engine, precision, message in (
        ("tensorrt", "fp32", "engine 'tensorrt': unknown; choose one of auto, torch, onnxruntime, openvino"),
        ("onnxruntime", "bf16", "engine onnxruntime: computes in fp32, not bf16"),
        ("openvino", "fp16", "engine openvino: computes in fp32 or bf16, not fp16"),
    ):
        with pytest.raises(UserError, match=message):
            copy.deepcopy(model).for_inference(engine, precision)
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"engine openvino: not installed; pip install 'dkpnet_ext\[openvino\]'"):
        copy.deepcopy(model).for_inference("openvino")
    assert copy.deepcopy(model).for_inference().choice.engine == "torch"
    monkeypatch.setenv(choice.VARIABLE, "fast")
    with pytest.raises(UserError, match="engine 'fast': unknown"):
        copy.deepcopy(model).for_inference()


def test_a_model_that_cannot_be_traced_is_counted_by_pytorch(monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(torch.export, "export", fail)
    torch.manual_seed(1)  # a graph that the cache does not hold
    model = alive(DKPNet("tf_efficientnet_lite0", "none", channels=16)).eval()
    with pytest.raises(UserError, match="cannot be exported for an engine"):
        copy.deepcopy(model).for_inference("openvino")
    chosen = model.for_inference().choice
    assert chosen.engine == "torch" and set(chosen.passed_over) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_stays_in_its_process(name, monkeypatch):
    """At commit 3418349 OpenVINO waited for ever after a fork, and pickle's error named an object of the runtime."""
    model = build("starter").for_inference(name)
    with pytest.raises(TypeError, match="pickle the model, and call for_inference where it is read"):
        pickle.dumps(model)
    monkeypatch.setattr(runtimes.os, "getpid", lambda: 0)
    with pytest.raises(RuntimeError, match="cannot count in a forked process: call for_inference there"):
        model.count(image((64, 64)))


def test_a_model_is_not_moved_after_for_inference():
    model = build("starter").for_inference("onnxruntime").to("meta")
    with pytest.raises(ValueError, match="move the model before for_inference"):
        model.backbone(torch.zeros(1, 3, 32, 32, device="meta"))


@pytest.mark.parametrize(
    "built_in, expected",
    [
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
            ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
        ),
        (["CUDAExecutionProvider"], ["CUDAExecutionProvider"]),
    ],
)
def test_on_a_gpu_onnx_runtime_gets_its_providers_by_name(monkeypatch, tmp_path, built_in, expected):
    """No GPU here: ONNX Runtime is asked for its providers and made with them; what runs is a stand-in."""
    import onnxruntime

    asked = {}

    def session(path, options, providers):
        asked["providers"] = providers

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*built_in, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    runtime = runtimes.OnnxRuntime(tmp_path / "x.onnx", torch.device("cuda", 1), "fp32", 2)
    assert runtime.providers == expected
    assert asked["providers"] == [(name, {"device_id": "1"}) for name in expected]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UserError, match="built without a provider for cuda; pip install onnxruntime-gpu"):
        runtimes.OnnxRuntime(tmp_path / "x.onnx", torch.device("cuda", 1), "fp32", 2)
    with pytest.raises(UserError, match="engine openvino: runs on the CPU, not on cuda"):
        runtimes.OpenVINO(tmp_path / "x.onnx", torch.device("cuda", 1), "fp32", 2)


def test_the_commands_take_an_engine(monkeypatch, tmp_path, capsys):
    """predict counts the same with each; regions and resizing stay."""
    import sys

    from PIL import Image

    from dkpnet_ext import predict

    monkeypatch.chdir(tmp_path)
    Image.fromarray(image((120, 160))).save("photo.png")
    half = {"type": "Polygon", "coordinates": [[[0, 0], [80, 0], [80, 120], [0, 120]]]}
    feature = {"type": "Feature", "properties": {"name": "left"}, "geometry": half}
    with open("regions.geojson", "w") as file:
        json.dump({"type": "FeatureCollection", "features": [feature]}, file)
    found = {}
    for name in ("torch", *NAMES):
        arguments = ["predict", "photo.png", "--engine", name, "--regions", "regions.geojson", "--output", name]
        monkeypatch.setattr(sys, "argv", arguments)
        predict.main()
        (entry,) = json.loads((tmp_path / name / "predictions.json").read_text())
        found[name] = [entry["count"], entry["regions"]["left"], entry["counted_size"]]
    for name in NAMES:
        assert found[name][:2] == pytest.approx(found["torch"][:2], rel=1e-4)
        assert found[name][2] == found["torch"][2] == [256, 341]
    assert engines.ENGINES == ("auto", "torch", *NAMES)
