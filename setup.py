"""Hands the compiled module over to CMake (CMakeLists.txt); everything else is in pyproject.toml.

Without a C++ compiler the package installs without `_dkpnet_ext`, without a CUDA toolkit it installs without the
CUDA kernels, and says so. DKPNET_REQUIRE_CPP=1 and DKPNET_REQUIRE_CUDA=1 turn that into an error.
DKPNET_CUDA_ARCHS="90" (or "80 90") overrides the GPU architectures; MAX_JOBS limits the parallel compilations.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext


def required(part: str) -> bool:
    return os.environ.get(f"DKPNET_REQUIRE_{part}", "0") not in ("", "0")


class FreshBuild(build):
    """Build from empty folders.

    pip builds in a temporary environment and deletes it. A kept CMake cache would name its deleted programs, and a kept
    build/lib would put the previous binary, or modules that no longer exist, into the new wheel.
    """

    def run(self) -> None:
        for folder in (self.build_temp, self.build_lib):
            shutil.rmtree(folder, ignore_errors=True)
        super().run()


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        # The module of an earlier build must not stand in for one that fails now (editable installs build in place).
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        # CUDA needs the C++ part, so requiring CUDA requires both.
        failure = ""
        attempts = ["ON"] if required("CUDA") else ["AUTO", "OFF"]
        for cuda in attempts:
            try:
                return self.run_cmake(ext, cuda, failure)
            except (subprocess.CalledProcessError, OSError, ImportError) as error:
                step = f"{' '.join(error.cmd[:2])} ..." if isinstance(error, subprocess.CalledProcessError) else error
                failure = f"{step} failed"
                if cuda == "AUTO":
                    say(f"the build failed ({error}); trying again without CUDA")
        if required("CUDA") or required("CPP"):
            raise SystemExit(f"dkpnet_ext: the compiled module is required, but its build failed: {failure}")
        say(
            f"installing WITHOUT the compiled module: {failure}. A C++17 compiler is needed for the cpp backend, "
            "a CUDA toolkit (nvcc) as well for the cuda backend; the triton and reference backends work without."
        )

    def run_cmake(self, ext: Extension, cuda: str, failure: str) -> None:
        """Build the module; ``failure`` is why the attempt before this one failed, kept in the module's build_info."""
        import pybind11

        source = Path(__file__).resolve().parent
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / f"cmake-{cuda.lower()}"
        shutil.rmtree(build, ignore_errors=True)
        configure = [
            "cmake", "-G", "Ninja", "-S", str(source), "-B", str(build),
            f"-DDKPNET_VERSION={self.distribution.get_version()}",
            f"-DDKPNET_CUDA={cuda}",
            f"-DDKPNET_CUDA_FAILURE={failure}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]  # fmt: skip
        jobs = os.environ.get("MAX_JOBS")
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)] + (["-j", jobs] if jobs else []), check=True)
        (module,) = build.glob("_dkpnet_ext*.so")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(module), str(target))


def say(message: str) -> None:
    print(f"dkpnet_ext: {message}", file=sys.stderr, flush=True)


# optional: without a compiler the file does not exist, and copying it must not fail.
setup(
    ext_modules=[Extension("_dkpnet_ext", sources=[], optional=True)],
    cmdclass={"build": FreshBuild, "build_ext": CMakeBuild},
)
