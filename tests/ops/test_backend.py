"""The choice of a backend: predicates, forcing, falling back, and what the compiled module says of itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings

import pytest
import torch
from PIL import Image

from dkpnet_ext import _version
from dkpnet_ext.ops import backend, native, reweight
from dkpnet_ext.ops.backend import can_run, choose, use_backend

X, Y = torch.ones(1, 2, 3, 3), torch.ones(1, 2)


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True)


def test_every_refusal_has_a_reason():
    for name in backend.BACKENDS:
        for device in ("cpu", "cuda", "mps"):
            reason = can_run(name, "reweight", device)
            assert reason is None or (reason and "\n" not in reason)
    assert can_run("reference", "reweight", "mps") is None
    assert "cuda tensors" in can_run("cuda", "reweight", "cpu")
    assert "cpu tensors" in can_run("cpp", "reweight", "cuda")
    assert "float64" in can_run("triton", "reweight", "cuda", torch.float64)
    assert "int32" in can_run("cpp", "reweight", "cpu", torch.int32)


def test_unknown_names_list_the_known_ones():
    for call in (lambda: can_run("metal", "reweight", "cpu"), lambda: use_backend("metal").__enter__()):
        with pytest.raises(ValueError, match="'metal'.*cuda, triton, cpp, reference"):
            call()


def test_forced_backend_that_cannot_run_says_why():
    with (
        use_backend("cuda"),
        pytest.raises(RuntimeError, match="reweight cannot run.*'cuda'.*on cuda tensors, not on cpu"),
    ):
        reweight(X, Y)


def test_context_manager_nests_and_restores():
    before = backend.forced()
    with use_backend("reference"):
        with use_backend("cpp"):
            assert backend.forced() == "cpp"
        assert backend.forced() == "reference"
    assert backend.forced() == before
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert backend.forced() == before


def test_forced_forward_keeps_its_backend_in_backward(monkeypatch):
    if native.missing:
        pytest.skip(native.missing)
    x, y = X.clone().requires_grad_(), Y.clone().requires_grad_()
    with use_backend("cpp"):
        out = reweight(x, y)
    seen = []
    original = native.module.reweight_backward
    monkeypatch.setattr(native.module, "reweight_backward", lambda **a: (seen.append(1), original(**a)))
    out.sum().backward()
    assert seen == [1]


def test_falling_back_is_said_once(monkeypatch):
    monkeypatch.setattr(native, "missing", "no compiler was found")
    monkeypatch.setattr(backend, "_warned", set())
    with pytest.warns(UserWarning, match="reweight on cpu runs on 'reference'. cpp: no compiler was found"):
        assert torch.equal(reweight(X, Y), X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reweight(X, Y)


def test_order_of_the_automatic_choice(monkeypatch):
    monkeypatch.setattr(native, "missing", None)
    monkeypatch.setattr(native, "cuda_refusal", lambda index: None)
    monkeypatch.setattr(backend, "_TRITON_INSTALLED", True)
    monkeypatch.setattr(backend, "_warned", set())
    assert choose("reweight", "cpu", torch.float32) == "cpp"
    assert choose("reweight", "cuda", torch.float32) == "cuda"
    with pytest.warns(UserWarning, match="cuda: too wide"):
        limit = {"cuda": "too wide"}.get
        assert choose("reweight", "cuda", torch.float32, limit) == "triton"
    with use_backend("cuda"), pytest.raises(RuntimeError, match="'cuda': too wide"):
        choose("reweight", "cuda", torch.float32, limit)
    monkeypatch.setattr(native, "cuda_refusal", lambda index: "no toolkit")
    monkeypatch.setattr(backend, "_TRITON_INSTALLED", False)
    with pytest.warns(UserWarning, match="'reference'. cuda: no toolkit. triton: the package triton is not installed"):
        assert choose("reweight", "cuda", torch.float32) == "reference"


def test_environment_variable_forces():
    code = "from dkpnet_ext.ops import backend; print(backend.forced())"
    assert python(code, DKPNET_BACKEND="reference").stdout.strip() == "reference"
    wrong = python(code, DKPNET_BACKEND="metal")
    assert wrong.returncode != 0 and "unknown backend 'metal': choose one of cuda, triton" in wrong.stderr


def test_a_wrong_environment_variable_is_one_line_in_a_command():
    command = [sys.executable, "-m", "dkpnet_ext.info"]
    done = subprocess.run(command, env=os.environ | {"DKPNET_BACKEND": "metal"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: DKPNET_BACKEND: unknown backend 'metal'")
    assert "Traceback" not in done.stderr


def test_a_backend_that_cannot_run_is_one_line_in_a_command(tmp_path):
    """At commit 3418349: a traceback."""
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    command = [
        sys.executable,
        "-m",
        "dkpnet_ext.predict",
        str(tmp_path / "photo.png"),
        "--engine",
        "torch",
        "--output",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, env=os.environ | {"DKPNET_BACKEND": "cuda"}, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    line = next(line for line in done.stderr.splitlines() if "cannot run on the backend 'cuda'" in line)
    assert line.startswith("error: ") and line.endswith("it runs on cuda tensors, not on cpu; unset DKPNET_BACKEND")


class FakeModule:
    """A module whose kernels run on GPU 0 and not on GPU 1."""

    def __init__(self):
        self.build_info = {"cuda_archs": "80-real 90-real"}
        self.asked: list[int] = []

    def device(self, index: int) -> contextlib.nullcontext:
        self.asked.append(index)
        return contextlib.nullcontext()

    def cuda_probe(self) -> str:
        return "" if self.asked[-1] == 0 else "no kernel image is available for execution on the device"


def test_a_gpu_that_the_kernels_are_not_built_for_is_asked_once_and_refused(monkeypatch):
    fake = FakeModule()
    monkeypatch.setattr(native, "module", fake)
    monkeypatch.setattr(native, "cuda_missing", None)
    monkeypatch.setattr(backend, "_TRITON_INSTALLED", True)
    monkeypatch.setattr(backend, "_warned", set())
    for name, value in (("is_available", True), ("current_device", 1), ("get_device_name", "Tesla T4")):
        monkeypatch.setattr(torch.cuda, name, lambda *a, value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    monkeypatch.setattr(torch.cuda, "device", fake.device)
    native._probe.cache_clear()
    try:
        assert choose("reweight", torch.device("cuda", 0), torch.float32) == "cuda"
        with pytest.warns(
            UserWarning, match="reweight on cuda runs on 'triton'. cuda: its kernels do not run on cuda:1"
        ):
            assert choose("reweight", torch.device("cuda", 1), torch.float32) == "triton"
        reason = can_run("cuda", "reweight", "cuda")
        assert "Tesla T4, sm_75 (no kernel image" in reason and "built for 80-real 90-real" in reason
        assert fake.asked == [0, 1]
    finally:
        native._probe.cache_clear()


def test_stale_or_absent_module_has_a_reason(tmp_path):
    code = "from dkpnet_ext.ops import native; print(native.module); print(native.missing)"
    (tmp_path / "_dkpnet_ext.py").write_text("__version__ = '0.0.0'")
    old = python(code, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.getcwd()}").stdout.splitlines()
    assert old[0] == "None" and f"version 0.0.0, the package of {_version.__version__}" in old[1]
    (tmp_path / "_dkpnet_ext.py").write_text("raise ImportError('not here')")
    absent = python(code, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.getcwd()}").stdout.splitlines()
    assert absent[0] == "None" and "cannot be imported (not here)" in absent[1]


def test_module_tells_how_it_was_built():
    if native.missing:
        pytest.skip(native.missing)
    info = native.module.build_info
    assert native.module.__version__ == _version.__version__
    assert info["compiler"] and info["cpu_in_use"] in info["cpu_instruction_sets"]
    assert info["cuda"] == (not info["cuda_missing"]) == bool(info["cuda_archs"])
    assert set(native.DTYPES.values()) == {0, 1, 2, 3}
