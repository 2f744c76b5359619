"""Does 8-bit arithmetic count as well? Post-training quantisation of the exported graph, judged on validation images.

    python experiments/quantise.py --data SHA=... SHB=... BRT=... [--test]

Calibrated on training images alone: 40 of each data set, of those that no validation image is among. Two ways: ONNX
Runtime's `quantize_static` (QDQ, weights per channel) and NNCF's `quantize` for OpenVINO, which needs `pip install nncf`.
Prints MAE per data set and processor time per image on one thread, float32 beside 8 bits.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dkpnet_ext.counting.export import export_model
from dkpnet_ext.data import load_domains
from dkpnet_ext.data.domains import split_validation
from dkpnet_ext.models import load_model

Run = Callable[[np.ndarray], float]


def pixels(item) -> np.ndarray:
    """uint8 [1, 3, H, W]"""
    return np.ascontiguousarray(np.array(item.read()).transpose(2, 0, 1)[None])


def onnx_session(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: float(session.run(["density"], {"images": images})[0].sum(dtype=np.float64))


def openvino_session(model) -> Run:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def run(images: np.ndarray) -> float:
        return float(request.infer({"images": images})["density"].sum(dtype=np.float64))

    return run


def quantise_onnx(source: Path, target: Path, calibration: list, method: str) -> Path:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        def __init__(self) -> None:
            self.items = iter(calibration)

        def get_next(self):
            item = next(self.items, None)
            return None if item is None else {"images": pixels(item)}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "Add"],
        calibrate_method=getattr(CalibrationMethod, method),
    )  # fmt: skip
    return target


def quantise_openvino(source: Path, calibration: list):
    import nncf
    import openvino

    dataset = nncf.Dataset(calibration, lambda item: {"images": pixels(item)})
    return nncf.quantize(openvino.Core().read_model(source), dataset, subset_size=len(calibration))


def judge(run: Run, groups: dict[str, list]) -> dict[str, float]:
    """MAE per data set, and milliseconds of processor time per image."""
    found: dict[str, float] = {}
    start = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for name, items in groups.items():
        found[name] = round(float(np.mean([abs(run(pixels(item)) - item.count) for item in items])), 3)
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - start
    return found | {"ms": round(1000 * used / sum(map(len, groups.values())), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--test", action="store_true", help="judge on the test images, once validation has decided")
    args = parser.parse_args()
    model = load_model()
    domains = load_domains(args.data, cache=args.cache, min_side=model.min_side, max_side=model.max_side)
    calibration, groups = [], {}
    for domain in domains:
        training, validation = split_validation(domain.train, 0.1, 0)
        calibration += training[:: max(1, len(training) // 40)][:40]
        groups[domain.name] = domain.test if args.test else validation
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "counter.onnx"
        export_model(model, source)
        runs: dict[str, Callable[[], Run]] = {
            "onnxruntime float32": lambda: onnx_session(source),
            "onnxruntime 8 bits, MinMax": lambda: onnx_session(
                quantise_onnx(source, source.with_name("minmax.onnx"), calibration, "MinMax")
            ),
            "openvino float32": lambda: openvino_session(source),
            "openvino 8 bits, NNCF": lambda: openvino_session(quantise_openvino(source, calibration)),
        }
        for name, build in runs.items():
            print(name, json.dumps(judge(build(), groups)), flush=True)


if __name__ == "__main__":
    main()
