"""The engines that are not PyTorch: each runs a graph of `graph.onnx_file` on tensors, in any number of threads at a time."""

from __future__ import annotations

import importlib
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...device import Precision
from ...errors import UserError
from .trunk import Trunk

# ONNX Runtime's providers by device, the fastest first; what is not built in is passed over.
PROVIDERS = {
    "cuda": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "cpu": ("CPUExecutionProvider",),
}


class OnnxRuntime:
    """A graph in ONNX Runtime, in float32: on the CPU, or on a GPU through TensorRT or CUDA, whichever is built in.

    Args:
        path: the graph; device: where x lies and the features are to be.
        threads: on the CPU, of one call; calls: how many of them may run at a time without waiting for each other.

    Raises:
        UserError: no provider for this device; another precision than float32.
    """

    package, extra = "onnxruntime", "onnx"

    def __init__(self, path: Path, device: torch.device, precision: Precision, threads: int, calls: int = 1) -> None:
        if precision != "fp32":
            raise UserError(f"engine onnxruntime: computes in fp32, not {precision}; use openvino or torch")
        runtime = importlib.import_module(self.package)
        available = runtime.get_available_providers()
        providers = [name for name in PROVIDERS.get(device.type, ()) if name in available]
        if not providers:
            raise UserError(
                f"engine onnxruntime: built without a provider for {device.type}; pip install onnxruntime-gpu, or use "
                "--engine torch"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors; warnings are about nodes that a GPU leaves to the CPU
        options.enable_mem_pattern = False  # one would be kept for every image size
        # Threads that wait for work do not burn the core that another process wants.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        arguments = [{"device_id": str(device.index or 0)} if device.type == "cuda" else {} for _ in providers]
        self.device, self.providers = device, providers
        self.session = runtime.InferenceSession(
            str(path), options, providers=list(zip(providers, arguments, strict=True))
        )
        self.options = runtime.RunOptions()
        self.options.only_execute_path_to_fetches = True  # the head is not run for a tile

    def __call__(self, x: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """x float32 -> the outputs of these names and shapes, written by the engine where they lie: no copy on any device."""
        index, binding = self.device.index or 0, self.session.io_binding()
        if x.is_cuda:  # ONNX Runtime has a stream of its own
            torch.cuda.current_stream(x.device).synchronize()
        binding.bind_input("x", x.device.type, index, np.float32, tuple(x.shape), x.data_ptr())
        outputs = {name: x.new_empty(shape) for name, shape in shapes.items()}
        for name, out in outputs.items():
            binding.bind_output(name, x.device.type, index, np.float32, tuple(out.shape), out.data_ptr())
        self.session.run_with_iobinding(binding, self.options)
        binding.synchronize_outputs()
        return outputs


_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINO:
    """A graph in OpenVINO on the CPU, in float32 or bfloat16. The arguments are `OnnxRuntime`'s.

    Raises:
        UserError: a GPU; fp16.
    """

    package, extra = "openvino", "openvino"

    def __init__(self, path: Path, device: torch.device, precision: Precision, threads: int, calls: int = 1) -> None:
        if device.type != "cpu":
            raise UserError(f"engine openvino: runs on the CPU, not on {device.type}; use --engine torch")
        if precision not in _HINTS:
            raise UserError(f"engine openvino: computes in fp32 or bf16, not {precision}")
        openvino = importlib.import_module(self.package)
        self.device, self.providers = device, ["CPU"]
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads * calls,
            "NUM_STREAMS": calls,
            "CACHE_DIR": str(path.parent / "openvino"),
        }
        # All outputs of a graph are computed, so the names that are wanted together become a graph of their own.
        graph = core.read_model(str(path))
        self.compile = lambda names: core.compile_model(
            openvino.Model([graph.output(name).node for name in names], graph.get_parameters()), "CPU", options
        )
        self.compiled: dict[tuple[str, ...], Any] = {}
        self.compiling = threading.Lock()
        self.idle: defaultdict[tuple[str, ...], deque[Any]] = defaultdict(deque)  # requests serve one thread at a time

    def __call__(self, x: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """x float32 -> the outputs of these names and shapes."""
        names = tuple(shapes)
        with self.compiling:
            if names not in self.compiled:
                self.compiled[names] = self.compile(names)
            idle = self.idle[names]
            request = idle.pop() if idle else self.compiled[names].create_infer_request()
        request.infer({"x": x.numpy()}, share_inputs=True)
        # Copies: the request's memory is its next caller's.
        outputs = {name: torch.from_numpy(request.get_output_tensor(j).data.copy()) for j, name in enumerate(names)}
        idle.append(request)
        return outputs


RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVINO]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVINO}


class Engine(nn.Module):
    """Takes a backbone's place in a model: a trunk that another runtime runs.

    It computes with as many threads as PyTorch has in the calling thread, see `torch.set_num_threads`.

    Args:
        trunk: what is replaced; exact: the model on the trunk in PyTorch, for what needs exact float32 (`tiling.reach`).
        start: makes the runtime for (threads, calls), see `OnnxRuntime`.
    """

    def __init__(self, trunk: Trunk, start: Callable[[int, int], OnnxRuntime | OpenVINO], exact: nn.Module) -> None:
        super().__init__()
        self.name, self.multiple = trunk.name, trunk.multiple
        self.reductions, self.channels = trunk.reductions, trunk.channels
        self.features, self.whole = trunk.features, trunk.whole
        self.exact = (exact,)  # in a tuple: no part of this module, which has no parameters
        self.start, self.threads, self.starting = start, torch.get_num_threads(), threading.Lock()
        self.process = os.getpid()
        self.runtimes = {self.threads: start(self.threads, 1)}

    @property
    def runtime(self) -> OnnxRuntime | OpenVINO:
        """The calling thread's."""
        threads = torch.get_num_threads()
        if threads not in self.runtimes:
            with self.starting:
                if threads not in self.runtimes:
                    self.runtimes[threads] = self.start(threads, max(1, self.threads // threads))
        return self.runtimes[threads]

    def forward(self, x: Tensor) -> list[Tensor]:
        """As `Trunk.forward`.

        Raises:
            ValueError: x on another device than the engine's.
            RuntimeError: in a forked process, where the runtime's threads are missing, so that it would wait for ever.
        """
        sizes = zip(self.features, self.channels, self.reductions, strict=True)
        return list(self._run(x, {name: self._map(x, c, r) for name, c, r in sizes}).values())

    def counted(self, x: Tensor) -> dict[str, Tensor] | None:
        """What `Trunk.whole` names, of images that are counted in one piece; None where the head is not in the graph."""
        if not self.whole:
            return None
        shapes = {name: (x.shape[0], width) for name, width in self.whole.items()}
        return self._run(x, shapes | {"output": self._map(x, self.whole["output"], self.reductions[0])})

    @staticmethod
    def _map(x: Tensor, channels: int, reduction: int) -> tuple[int, ...]:
        return x.shape[0], channels, x.shape[2] // reduction, x.shape[3] // reduction

    def _run(self, x: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        if os.getpid() != self.process:
            raise RuntimeError(
                "a model on another runtime cannot count in a forked process: call for_inference there, or use spawn"
            )
        runtime = self.runtime
        if x.device.type != runtime.device.type:
            raise ValueError(
                f"the engine runs on {runtime.device.type}, x is on {x.device.type}: move the model before "
                "for_inference, not after it"
            )
        return runtime(x.detach().float().contiguous(), shapes)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            "a model on another runtime cannot be pickled: pickle the model, and call for_inference where it is read"
        )

    def __deepcopy__(self, memo: dict) -> Engine:
        return self  # it has no state
