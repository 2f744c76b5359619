"""What is installed, what can run here, and why not: `python -m dkpnet_ext.info`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from .cli import parse, run_command
from .errors import say

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "triton",
    "numpy",
    "pillow",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "av",
)
OPERATORS = ("variational", "reweight", "head", "density", "transport", "bayesian")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def report() -> str:
    """The whole text that the command prints."""
    import torch

    from ._version import __version__
    from .ops import backend, native
    from .ops.transport import limit

    lines = [f"dkpnet_ext {__version__}, Python {platform.python_version()}, {platform.platform()}", ""]
    lines += [f"{package:<12} {_version(package)}" for package in PACKAGES]
    lines += ["", f"{'cpu':<12} {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            lines.append(
                f"{f'cuda:{index}':<12} {gpu.name}, sm_{gpu.major}{gpu.minor}, "
                f"{gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
            )
    else:
        lines.append(f"{'cuda':<12} no usable GPU (torch is built for CUDA {torch.version.cuda})")
    lines += ["", "compiled module _dkpnet_ext:"]
    build = {"missing": native.missing} if native.module is None else native.module.build_info
    lines += [f"  {key}: {value}" for key, value in build.items() if value]
    lines += [
        "",
        f"backend x operator (float32; forced: {backend.forced() or 'none, the first that can run is taken'})",
    ]
    lines += ["| backend | device | " + " | ".join(OPERATORS) + " |", "|---" * (2 + len(OPERATORS)) + "|"]
    reasons: dict[str, int] = {}
    limits = dict.fromkeys(("transport", "bayesian"), limit(torch.float32))  # the others have every form in float32
    for device, names in backend.ORDER.items():
        gpu_missing = "no usable GPU" if device == "cuda" and not torch.cuda.is_available() else None
        for name in names:
            cells = []
            for op in OPERATORS:
                reason = (
                    (limits[op](name) if op in limits else None) or backend.can_run(name, op, device) or gpu_missing
                )
                cells.append("yes" if reason is None else f"no ({reasons.setdefault(reason, len(reasons) + 1)})")
            lines.append(f"| {name} | {device} | {' | '.join(cells)} |")
    lines += [f"({number}) {reason}" for reason, number in reasons.items()]
    lines += ["", "engines that --engine auto found the fastest here (milliseconds of one 1024 x 768 image):"]
    return "\n".join([*lines, *(_engines() or ["  none yet: the first predict, evaluate or demo measures"])])


def _engines() -> list[str]:
    from .models.engines import remembered

    lines = []
    for choice in remembered():
        setting = choice.setting
        where = f"{setting['model']}, {setting['precision']}, {setting['threads']} threads, {setting['device']}"
        times = ", ".join(
            f"{name} {time:.0f}" for name, time in sorted(choice.milliseconds.items(), key=lambda t: t[1])
        )
        lines.append(f"  {where}: {choice.engine} ({times})")
        lines += [f"    passed over: {name}: {reason}" for name, reason in choice.passed_over.items()]
    return lines


def main() -> None:
    """Parse, call, print."""
    parse(lambda: None, "info", description=__doc__)
    for line in report().splitlines():
        say(line)


if __name__ == "__main__":
    run_command(main)
