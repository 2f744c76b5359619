"""The build: CUDA code without spills, what wheel and sdist hold, a wheel that works elsewhere, words where tools are missing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dkpnet_ext import _version

ROOT = Path(__file__).resolve().parents[2]


def load_ptxas():
    spec = importlib.util.spec_from_file_location("ptxas", ROOT / "bench" / "ptxas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ptxas = load_ptxas()
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on PATH")


@pytest.mark.skipif(ptxas.find_nvcc() is None, reason="no nvcc on PATH or in CUDA_HOME")
def test_cuda_compiles_without_spills():
    entries = ptxas.report(ptxas.find_nvcc())
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "ptxas.json").write_text(json.dumps(entries, indent=1))
    for stem in ("variational", "reweight", "head", "density"):
        for arch in ("sm_80", "sm_90"):
            assert any(e["source"] == f"{stem}.cu" and e["arch"] == arch for e in entries), f"{stem} {arch}"
    assert not [e for e in entries if e["spill_stores"] or e["spill_loads"]]


def small_clone(folder: Path) -> Path:
    """The sources with one operator only, which compile in seconds: a stem is its files, CMake finds them by name."""
    shutil.copytree(
        ROOT, folder,
        ignore=shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "tests", "bench", "docs", "__pycache__"),
    )  # fmt: skip
    for source in (folder / "python").glob("*.cpp"):
        if source.stem not in ("module", "density"):
            for path in [
                *(folder / "csrc").rglob(f"{source.stem}*.cpp"),
                *(folder / "csrc").rglob(f"{source.stem}*.cu"),
            ]:
                path.unlink()
            source.unlink()
    return folder


def build(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    """`python -m build --wheel` of a small clone, by default on a PATH without nvcc."""
    source = small_clone(tmp_path / "source")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "DKPNET_", "PYTHONPATH"))}
    folders = [p for p in env["PATH"].split(os.pathsep) if not (Path(p) / "nvcc").exists()]
    env |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), *folders])} | environment
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", str(tmp_path / "dist"), str(source)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_without_a_compiler_the_rest_is_installed_and_it_is_said(tmp_path):
    done = build(tmp_path, CXX=str(tmp_path / "no-such-compiler"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installing WITHOUT the compiled module" in done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "dkpnet_ext/ops/reference.py" in names and not any(n.startswith("_dkpnet_ext.") for n in names)


@pytest.mark.parametrize("part", ["CPP", "CUDA"])
def test_what_is_required_and_missing_is_an_error(tmp_path, part):
    tools = {"CXX": str(tmp_path / "no-such-compiler")} if part == "CPP" else {}
    done = build(tmp_path, **{f"DKPNET_REQUIRE_{part}": "1"}, **tools)
    assert done.returncode != 0
    assert "the compiled module is required, but its build failed" in done.stdout + done.stderr
    if part == "CUDA":
        assert "CUDA is required, but no CUDA toolkit was found" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without a CUDA toolkit, as cibuildwheel's images have none."""
    if shutil.which("cmake") is None:
        pytest.skip("no cmake on PATH")
    folder = tmp_path_factory.mktemp("wheel")
    done = build(folder, DKPNET_REQUIRE_CPP="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "built WITHOUT its CUDA kernels: no CUDA toolkit was found" in " ".join((done.stdout + done.stderr).split())
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.tar.gz")
    return path


def test_twine_accepts_wheel_and_sdist(wheel, sdist):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dkpnet_ext").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert {"dkpnet_ext/py.typed", "dkpnet_ext/assets/starter/model.safetensors", "dkpnet_ext/ops/head.py"} <= package
    assert package <= names
    others = names - package
    (module,) = [name for name in others if name.startswith("_dkpnet_ext.") and name.endswith(".so")]
    assert {name.split("/")[0] for name in others - {module}} == {f"dkpnet_ext-{_version.__version__}.dist-info"}


def test_wheel_works_from_another_folder(tmp_path, wheel):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import torch, dkpnet_ext.ops as ops; from dkpnet_ext.ops import native, backend\n"
        "assert native.missing is None and 'no CUDA toolkit' in native.cuda_missing, native.missing\n"
        "with backend.use_backend('cpp'):\n"
        "    print(ops.density(torch.tensor([[4.0, 4.0]]), torch.tensor([0, 1]), (8, 8), sigma=0.1).sum().item())\n"
        "print(ops.__file__)"
    )
    other = tmp_path / "elsewhere"
    other.mkdir()
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    ran = subprocess.run([sys.executable, "-c", code], cwd=other, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    total, path = ran.stdout.split()
    assert total == "1.0" and path.startswith(str(tmp_path / "site"))


def test_sdist_has_all_that_the_build_needs(tmp_path, sdist):
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (root,) = (tmp_path / "unpacked").iterdir()
    for name in ("CMakeLists.txt", "setup.py", "pyproject.toml", "dkpnet_ext/__init__.py"):
        assert (root / name).is_file(), name
    for folder in ("csrc", "python"):
        have = {p.relative_to(root) for p in (root / folder).rglob("*") if p.is_file()}
        want = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file()}
        assert have == want


def build_as_pip_does(clone: Path, scratch: Path, number: int) -> Path:
    """Build a wheel with build tools in an environment that is deleted afterwards; return the module in it, unpacked."""
    import pybind11

    tools = scratch / f"build-env-{number}"
    shutil.copytree(Path(pybind11.__file__).parent, tools / "site" / "pybind11")
    (tools / "bin").mkdir()
    (tools / "bin" / "ninja").symlink_to(shutil.which("ninja"))
    env = os.environ | {
        "PYTHONPATH": str(tools / "site"), "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "DKPNET_CUDA_ARCHS": "90", "DKPNET_REQUIRE_CPP": "1",
    }  # fmt: skip
    out = scratch / f"dist-{number}"
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", str(out), str(clone)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(tools)
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(scratch / f"site-{number}")
    return next((scratch / f"site-{number}").glob("_dkpnet_ext*.so"))


def build_info(module: Path) -> dict[str, str]:
    code = "import json, _dkpnet_ext; print(json.dumps(_dkpnet_ext.build_info))"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=module.parent, text=True))


@needs_cmake
@pytest.mark.skipif(shutil.which("ninja") is None, reason="no ninja on PATH")
def test_every_build_in_one_clone_is_of_the_sources_as_they_are(tmp_path):
    clone = small_clone(tmp_path / "clone")
    first = build_as_pip_does(clone, tmp_path, 1)
    again = build_as_pip_does(clone, tmp_path, 2)
    source = clone / "python" / "module.cpp"
    mark = 'module.attr("changed") = true;\n  module.doc()'
    source.write_text(source.read_text().replace("module.doc()", mark))
    assert "changed" in source.read_text()
    (clone / "dkpnet_ext" / "export.py").rename(clone / "dkpnet_ext" / "renamed.py")
    third = build_as_pip_does(clone, tmp_path, 3)
    infos = [build_info(module) for module in (first, again, third)]
    assert infos[0] == infos[1]  # the CUDA kernels, where there is a toolkit, are in the second wheel as in the first
    assert infos[2] == infos[0] | {"fingerprint": infos[2]["fingerprint"]} and infos[2] != infos[0]
    assert b"changed" in third.read_bytes()
    assert not (third.parent / "dkpnet_ext" / "export.py").exists()


@needs_cmake
@pytest.mark.skipif(ptxas.find_nvcc() is None, reason="no nvcc on PATH or in CUDA_HOME")
def test_what_the_build_left_out_is_said_at_import(tmp_path):
    clone = small_clone(tmp_path / "clone")
    (clone / "csrc" / "cuda" / "density.cu").write_text("this is no CUDA")
    module = build_as_pip_does(clone, tmp_path, 1)
    assert "its build with CUDA failed" in build_info(module)["cuda_missing"]
    code = "import dkpnet_ext.ops"
    ran = subprocess.run([sys.executable, "-c", code], cwd=module.parent, capture_output=True, text=True)
    assert "there are no compiled CUDA kernels: its build with CUDA failed" in ran.stderr
