"""Which engine counts: the one that was asked for, or the fastest that was found right, remembered for this machine."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from ..._version import __version__
from ...device import Precision, autocast
from ...errors import UserError
from ...files import OutputError, write_atomically, writing
from ...memory import keep_freed_memory
from ...ops import native
from ..blocks import fuse_blocks, read_bytes
from ..convolutions import use_fast_convolutions
from ..folding import fold_batch_norms
from ..fpn import FPNHead
from ..network import Network
from .graph import folder, identity, installed, onnx_file
from .runtimes import RUNTIMES, Engine
from .trunk import FPNTail, Trunk, use_fast_head

EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
ENGINES: tuple[EngineName, ...] = ("auto", "torch", "onnxruntime", "openvino")
VARIABLE = "DKPNET_ENGINE"  # what `auto` stands for, where it is set
TOLERANCE = 1e-4  # of the heads, float32 against PyTorch's float32
_PROBES = ((1, 3, 768, 1024), (2, 3, 100, 150))  # sizes of images; the first is timed
_ROUNDS = 5


class Choice(NamedTuple):
    """What was found on this machine for one model."""

    engine: str
    milliseconds: dict[str, float]  # of the probe image, by engine
    passed_over: dict[str, str]  # engine -> why
    setting: dict[str, Any]  # model, threads, precision, processor, versions


def install(model: Network, engine: EngineName = "auto", precision: Precision = "fp32") -> Choice | None:
    """Let an engine run the model's convolutions, in place.

    Args:
        model: in evaluation mode, batch norms not yet folded, on its device.
        engine: ``auto`` takes ``$DKPNET_ENGINE``, else the fastest engine whose counts of the probe images are PyTorch's;
            it is measured once for a model, machine, number of threads and precision, and remembered in the cache.
        precision: arithmetic of the convolutions.

    Returns:
        of ``auto``, what was measured, now or earlier.

    Raises:
        UserError: an engine that is not installed, cannot run here, or counts something else; an unknown name.
    """
    if engine == "auto":
        engine = cast(EngineName, os.environ.get(VARIABLE) or "auto")
    if engine not in ENGINES:
        raise UserError(f"engine {engine!r}: unknown; choose one of {', '.join(ENGINES)}")
    with suppress(Exception):  # torch.fx cannot trace every backbone that timm has, and says so in many ways
        model.backbone = fold_batch_norms(model.backbone)
    built = choice = None
    if engine == "auto":
        engine, choice = _fastest(model, precision)
        try:
            built = None if engine == "torch" else _built(model, engine, precision)
        except (UserError, OutputError):  # what was measured earlier does not run any more
            engine, choice = _fastest(model, precision, anew=True)
            built = None if engine == "torch" else _built(model, engine, precision)
    elif engine != "torch":
        built = _built(model, engine, precision)
    _use(model, built)
    return choice


def remembered() -> list[Choice]:
    """What `auto` found on this machine, the newest first."""
    found = []
    for path in sorted(folder().glob("*.json"), key=lambda path: -path.stat().st_mtime):
        with suppress(OSError, ValueError, TypeError):
            choice = Choice(**json.loads(path.read_text(encoding="utf-8")))
            if choice.setting["processor"] == _processor():
                found.append(choice)
    return found


def _fastest(model: Network, precision: Precision, anew: bool = False) -> tuple[EngineName, Choice]:
    """The fastest engine, by an earlier measurement or, if there is none or it is asked for ``anew``, by one now."""
    present = [name for name, runtime in RUNTIMES.items() if find_spec(runtime.package) is not None]
    if not present:
        return "torch", Choice("torch", {}, dict.fromkeys(RUNTIMES, "not installed"), {})
    trunk, device = Trunk(model), model.pixel_mean.device
    setting = {
        "model": f"{model.backbone_name} {identity(trunk)[:8]}",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {name: installed(name) for name in ("torch", "onnxruntime", "openvino", "onnx", "onnxscript")}
        | {"dkpnet_ext": __version__},
        "kernels": None if native.module is None else native.module.build_info["fingerprint"],
    }
    key = hashlib.blake2b(json.dumps(setting, sort_keys=True).encode(), digest_size=12).hexdigest()
    path = folder() / f"{key}.json"
    choice = None if anew else _read(path)
    if choice is None:
        choice = _measure(model, present, precision, setting)
        with suppress(OutputError), writing(path):  # a cache that cannot be written: it is measured anew the next time
            folder().mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(choice._asdict(), indent=2) + "\n")
    return cast(EngineName, choice.engine), choice


def _read(path: Path) -> Choice | None:
    with suppress(OSError, ValueError, TypeError):
        choice = Choice(**json.loads(path.read_text(encoding="utf-8")))
        return choice if choice.engine == "torch" or choice.engine in RUNTIMES else None
    return None


def _measure(model: Network, present: list[str], precision: Precision, setting: dict[str, Any]) -> Choice:
    """Time every engine that counts the probe images right, in turns; the fastest turn counts, as others disturb the rest."""
    passed_over = {name: "not installed" for name in RUNTIMES if name not in present}
    candidates: dict[str, Network] = {"torch": copy.deepcopy(model)}
    _use(candidates["torch"], None)
    for name in present:
        try:
            built = _built(model, name, precision)
        except (UserError, OutputError) as error:
            passed_over[name] = str(error)
            continue
        candidates[name] = _variant(model, built)
    found = _too_far(model, candidates["torch"], precision)
    if found is not None and len(candidates) > 1:
        del candidates["torch"]
        passed_over["torch"] = f"our operators count {found:.1e} other than PyTorch on a probe image"
    fastest = dict.fromkeys(candidates, float("inf"))
    for _ in range(_ROUNDS):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            _count(candidate, _probe(0), precision)
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    milliseconds = {name: round(1000 * seconds, 2) for name, seconds in fastest.items()}
    return Choice(min(fastest, key=lambda name: fastest[name]), milliseconds, passed_over, setting)


def _use(model: Network, built: Engine | Trunk | None) -> None:
    """Change a model in place: an engine for its trunk, or PyTorch with our convolutions; channels innermost in memory."""
    head: Any = model.pooling_head
    on_cpu = model.pixel_mean.device.type == "cpu"
    if built is not None:
        model.backbone = built
        if isinstance(head, FPNHead):
            model.head = head = FPNTail(head)
    elif on_cpu:
        keep_freed_memory()  # arrays that the next image needs again are not given back to the system in between
    if on_cpu and native.missing is None:  # PyTorch's own 1x1 convolutions have a slow path at one thread
        with suppress(Exception):  # as in `install`
            if built is None:
                fuse_blocks(model)
                read_bytes(model)
                use_fast_convolutions(model.backbone)
            if isinstance(head, FPNHead):
                use_fast_head(head)
    model.to(memory_format=torch.channels_last)


def _variant(model: Network, built: Engine | Trunk) -> Network:
    """The model with another engine: its other modules are shared."""
    variant = copy.copy(model)
    variant._modules = dict(model._modules)
    _use(variant, built)
    return variant


def _built(model: Network, engine: str, precision: Precision) -> Engine:
    """An engine that counts the probe images as PyTorch does. Raises `UserError`."""
    trunk = Trunk(model)
    runtime = RUNTIMES[engine]
    if find_spec(runtime.package) is None:
        raise UserError(f"engine {engine}: not installed; pip install 'dkpnet_ext[{runtime.extra}]'")
    start = functools.partial(runtime, onnx_file(trunk), model.pixel_mean.device, precision)
    try:
        built = Engine(trunk, start, exact=_variant(model, trunk))
        found = _too_far(model, _variant(model, built), precision)
    except (UserError, OutputError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a runtime whose libraries do not load, a damaged graph: each has its own errors
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"engine {engine}: cannot run here ({type(error).__name__}: {reason})") from None
    if found is not None:
        raise UserError(f"engine {engine}: counts {found:.1e} other than PyTorch on a probe image; use --engine torch")
    return built


def _too_far(model: Network, variant: Network, precision: Precision) -> float | None:
    """What a variant counts other than its model on a probe image, if that is more than rounding."""
    for number in range(len(_PROBES)):
        images = _probe(number)
        truth = _count(model, images)
        allowed = TOLERANCE
        if precision != "fp32":  # as far off as PyTorch is in this precision, and once more
            allowed = 0.01 + 2 * _difference(_count(model, images, precision), truth)
        found = _difference(_count(variant, images, precision), truth)
        if not found <= allowed:  # NaN is not, either
            return found
    return None


@torch.inference_mode()
def _count(model: Network, images: Tensor, precision: Precision = "fp32") -> Tensor:
    """Density of a batch, float64 on the CPU, the head in float32."""
    with autocast(model.pixel_mean.device, precision):
        return model(images.to(model.pixel_mean.device)).density.double().cpu()


def _difference(density: Tensor, truth: Tensor) -> float:
    """Sum of what the two maps differ by, relative to the heads; of nearly none to one."""
    return float((density - truth).abs().sum() / truth.abs().sum().clamp_min(1))


def _probe(number: int) -> Tensor:
    """Smooth noise with fine noise on it, uint8."""
    batch, channels, height, width = _PROBES[number]
    drawn: dict[str, Any] = {"generator": torch.Generator().manual_seed(number), "device": "cpu"}
    coarse = torch.rand(batch, channels, height // 8 + 1, width // 8 + 1, **drawn)
    coarse = coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :height, :width]
    fine = torch.rand(batch, channels, height, width, **drawn)
    return (255 * (0.7 * coarse + 0.3 * fine)).to(torch.uint8)


@functools.cache
def _processor() -> str:
    """The processor's name and number of cores."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores"
