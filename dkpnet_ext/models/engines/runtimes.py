"""The engines that are not PyTorch: each runs a graph of `graph.onnx_file` on tensors, in any number of threads at a time."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Sequence
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
        path: the graph; device: where x lies and the features are to be; threads: on the CPU.

    Raises:
        UserError: no provider for this device; another precision than float32.
    """

    package, extra = "onnxruntime", "onnx"

    def __init__(self, path: Path, device: torch.device, threads: int, precision: Precision) -> None:
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

    def __call__(self, x: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """x float32 -> features of these shapes, written by the engine where they lie: no copy on any device."""
        index, binding = self.device.index or 0, self.session.io_binding()
        if x.is_cuda:  # ONNX Runtime has a stream of its own
            torch.cuda.current_stream(x.device).synchronize()
        binding.bind_input("x", x.device.type, index, np.float32, tuple(x.shape), x.data_ptr())
        outputs = [x.new_empty(shape) for shape in shapes]
        for j, out in enumerate(outputs):
            binding.bind_output(f"features{j}", x.device.type, index, np.float32, tuple(out.shape), out.data_ptr())
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return outputs


_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINO:
    """A graph in OpenVINO on the CPU, in float32 or bfloat16. The arguments are `OnnxRuntime`'s.

    Raises:
        UserError: a GPU; fp16.
    """

    package, extra = "openvino", "openvino"

    def __init__(self, path: Path, device: torch.device, threads: int, precision: Precision) -> None:
        if device.type != "cpu":
            raise UserError(f"engine openvino: runs on the CPU, not on {device.type}; use --engine torch")
        if precision not in _HINTS:
            raise UserError(f"engine openvino: computes in fp32 or bf16, not {precision}")
        openvino = importlib.import_module(self.package)
        self.device, self.providers = device, ["CPU"]
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "CACHE_DIR": str(path.parent / "openvino"),
        }
        self.compiled = core.compile_model(str(path), "CPU", options)
        self.idle: deque[Any] = deque()  # a request serves one thread at a time

    def __call__(self, x: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """x float32 -> features of these shapes."""
        try:
            request = self.idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        request.infer({"x": x.numpy()}, share_inputs=True)
        # Copies: the request's memory is its next caller's.
        outputs = [torch.from_numpy(request.get_output_tensor(j).data.copy()) for j in range(len(shapes))]
        self.idle.append(request)
        return outputs


RUNTIMES: dict[str, type[OnnxRuntime] | type[OpenVINO]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVINO}


class Engine(nn.Module):
    """Takes a backbone's place in a model: a trunk that another runtime runs.

    Args:
        trunk: what is replaced; exact: the model on the trunk in PyTorch, for what needs exact float32 (`tiling.reach`).
    """

    def __init__(self, trunk: Trunk, runtime: OnnxRuntime | OpenVINO, exact: nn.Module) -> None:
        super().__init__()
        self.runtime, self.name, self.multiple = runtime, trunk.name, trunk.multiple
        self.reductions, self.channels = trunk.reductions, trunk.channels
        self.exact = (exact,)  # in a tuple: no part of this module, which has no parameters

    def forward(self, x: Tensor) -> list[Tensor]:
        """As `Trunk.forward`.

        Raises:
            ValueError: x on another device than the engine's.
        """
        if x.device.type != self.runtime.device.type:
            raise ValueError(
                f"the engine runs on {self.runtime.device.type}, x is on {x.device.type}: move the model before "
                "for_inference, not after it"
            )
        sizes = [
            (x.shape[0], c, x.shape[2] // r, x.shape[3] // r)
            for c, r in zip(self.channels, self.reductions, strict=True)
        ]
        return self.runtime(x.detach().float().contiguous(), sizes)

    def __deepcopy__(self, memo: dict) -> Engine:
        return self  # it has no state
