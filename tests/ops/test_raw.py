"""The raw operators, torch.ops.dkpnet.*: arguments that lie are errors, never memory that is not theirs."""

from __future__ import annotations

import pytest
import torch

from dkpnet_ext.ops import native

RAW = torch.ops.dkpnet
pytestmark = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


INT = torch.int64
VARIATIONAL = dict(
    mu=zeros(3, 8), logvar=zeros(3, 8), centers=zeros(2, 2, 8), prior_logvar=zeros(2, 8), labels=zeros(3, dtype=INT),
    seed=zeros(1, dtype=INT), eps=None, num_samples=2, dropout=0.1, batch_offset=0, backend="cpp",
)  # fmt: skip
VARIATIONAL_BACKWARD = dict(
    dz=zeros(2, 3, 8), dkl=zeros(3), dlse=zeros(3), dlogdet2=zeros(3),
    **{name: VARIATIONAL[name] for name in ("mu", "logvar", "centers", "prior_logvar", "labels", "seed", "eps")},
    selected=zeros(3, 2, dtype=INT), probabilities=zeros(2, 3, 2), batch_offset=0, backend="cpp",
)  # fmt: skip
TAIL = dict(
    fine=zeros(2, 5, 4, 6), fine_weight=zeros(2, 5, 64), products=[zeros(2, 2, 3, 64)], bias=zeros(2, 64),
    weight2=zeros(32, 64), bias2=zeros(32), weight3=zeros(1, 32), bias3=zeros(1), height=4, width=6, backend="cpp",
)  # fmt: skip
BLOCK = dict(
    x=zeros(1, 4, 5, 6), expand=zeros(1, 4, 16), expand_bias=zeros(16), taps=zeros(9, 16), taps_bias=zeros(16),
    project=zeros(16, 8), project_bias=zeros(8), expand_window=[1, 1, 0, 0, 0, 0], window=[3, 1, 1, 1, 1, 1],
    out_channels=4, activation="relu6", residual=True, backend="cpp",
)  # fmt: skip
IMAGE = dict(
    x=zeros(1, 3, 8, 8, dtype=torch.uint8), expand=zeros(3, 9, 16), expand_bias=zeros(16), taps=zeros(9, 16),
    taps_bias=zeros(16), project=zeros(16, 8), project_bias=zeros(8), expand_window=[3, 2, 0, 1, 0, 1],
    window=[3, 1, 1, 1, 1, 1], out_channels=4, activation="relu6", residual=False, backend="cpp", table=zeros(3, 256),
)  # fmt: skip
POINTWISE = dict(
    x=zeros(1, 4, 6, 6), weight=zeros(4, 8), bias=zeros(8), coarse=zeros(1, 5, 3, 3), out_channels=5, activation="none",
    out_dtype=torch.float32, backend="cpp",
)  # fmt: skip
RIGHT = {
    "variational": VARIATIONAL,
    "variational_backward": VARIATIONAL_BACKWARD,
    "reweight": dict(x=zeros(2, 3, 4, 5), attention=zeros(2, 3), backend="cpp"),
    "reweight_backward": dict(grad=zeros(2, 3, 4, 5), x=zeros(2, 3, 4, 5), attention=zeros(2, 3), backend="cpp"),
    "head": TAIL,
    "head_backward": dict(grad=zeros(2, 1, 4, 6), **TAIL),
    "head_downsample": dict(grad=zeros(2, 4, 6, 64), rows=2, columns=3, backend="cpp"),
    "density": dict(
        points=zeros(3, 2), offsets=torch.tensor([0, 3]), sigmas=None, sigma=4.0, truncate=1.75, height=8, width=8,
        stride=4, backend="cpp",
    ),
    "inverted_residual": BLOCK,
    "projection": POINTWISE,
    "knn_sigma": dict(points=zeros(3, 2), offsets=torch.tensor([0, 3]), k=3, beta=0.3, default=4.0),
}  # fmt: skip
BIG = 2**40
WRONG = {
    "variational": [
        ("num_samples", 0), ("dropout", 1.0), ("seed", None), ("seed", zeros(0, dtype=INT)), ("eps", zeros(2, 2, 8)),
        ("eps", zeros(1, 3, 8)), ("eps", zeros(2, 3, 8).double()), ("labels", zeros(2, dtype=INT)),
        ("prior_logvar", zeros(1, 8)), ("centers", zeros(2, 2, 9)), ("logvar", zeros(3, 8).double()),
    ],
    "variational_backward": [
        ("dz", zeros(1, 3, 8)), ("dkl", zeros(2)), ("dlse", zeros(3).double()), ("dlogdet2", zeros(3, 1)),
        ("selected", zeros(3, 1, dtype=INT)), ("selected", torch.full((3, 2), 2)), ("selected", torch.full((3, 2), -1)),
        ("probabilities", zeros(9, 3, 2)), ("probabilities", zeros(2, 3, 1)), ("seed", None),
    ],
    "reweight": [("attention", zeros(2, 2)), ("attention", zeros(2, 3).double()), ("x", zeros(2, 3, 4))],
    "reweight_backward": [("grad", zeros(2, 3, 4, 4)), ("grad", zeros(2, 3, 4, 5).half()), ("attention", zeros(1, 3))],
    "head": [
        ("height", 400), ("width", 60), ("height", 0), ("fine_weight", zeros(2, 4, 64)), ("fine_weight", zeros(1, 5, 64)),
        ("products", [zeros(1, 2, 3, 64)]), ("products", [zeros(2, 2, 3, 32)]), ("products", [zeros(2, 0, 3, 64)]),
        ("products", [zeros(2, 2, 3, 64).half()]), ("products", [zeros(2, 2, 3, 64)] * 9), ("bias", zeros(1, 64)),
        ("weight2", zeros(32, 48)), ("weight2", zeros(32, 64).double()), ("bias2", zeros(31)), ("weight3", zeros(32)),
        ("bias3", zeros(0)),
    ],
    "head_backward": [("grad", zeros(2, 1, 4, 5)), ("grad", zeros(2, 1, 4, 6).half()), ("height", 40)],
    "head_downsample": [("rows", 0), ("columns", -1), ("rows", 40000), ("grad", zeros(2, 4, 6, 63)), ("grad", zeros(4, 6, 64))],
    "density": [
        ("offsets", torch.tensor([0, BIG])), ("offsets", torch.tensor([-BIG, 3])), ("offsets", torch.tensor([0, 4, 3])),
        ("sigmas", zeros(2)), ("sigmas", zeros(3).double()), ("sigma", 0.0), ("truncate", float("nan")), ("height", 0),
        ("width", BIG), ("stride", 0), ("points", zeros(3, 3)), ("points", zeros(3, 2).double()),
    ],
    "inverted_residual": [
        ("x", zeros(1, 3, 5, 6)), ("x", zeros(4, 5, 6)), ("x", zeros(1, 4, 5, 6).half()), ("expand", zeros(1, 4, 32)),
        ("expand", None), ("expand_bias", None), ("expand_bias", zeros(8)), ("taps", zeros(25, 16)), ("taps", zeros(9, 12)),
        ("taps_bias", zeros(15)), ("project", zeros(16, 4)), ("project", zeros(8, 8, 2, dtype=torch.bfloat16)),
        ("project_bias", zeros(4)), ("expand_window", []), ("expand_window", [3, 1, 1, 1, 1, 1]), ("window", [3, 1]),
        ("window", [3, 3, 1, 1, 1, 1]), ("window", [3, 1, 3, 1, 1, 1]), ("window", [3, 1, 0, 0, 0, 0]), ("out_channels", 0),
        ("out_channels", 9), ("activation", "gelu"),
    ],
    "projection": [
        ("x", zeros(4, 6, 6)), ("x", zeros(1, 3, 6, 6)), ("x", zeros(1, 4, 6, 6).half()), ("x", zeros(1, 4, 5, 6)),
        ("weight", zeros(4, 16)), ("weight", zeros(2, 8, 2, dtype=torch.bfloat16)), ("weight", zeros(4, 8).double()),
        ("bias", zeros(5)), ("coarse", zeros(1, 5, 3, 2)), ("coarse", zeros(1, 5, 3, 3).bfloat16()), ("out_channels", 0),
        ("out_channels", 9), ("activation", "gelu"), ("out_dtype", torch.bfloat16),
    ],
    "knn_sigma": [("offsets", torch.tensor([0, BIG])), ("k", 0), ("points", zeros(3, 1))],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        ("table", None), ("table", zeros(3, 255)), ("table", zeros(2, 256)), ("table", zeros(3, 256).half()),
        ("x", zeros(1, 3, 8, 8)), ("residual", True), ("expand", None),
    ],
    ids=lambda change: change[0],
)  # fmt: skip
def test_bytes_and_their_table_go_together(change):
    RAW.inverted_residual(**IMAGE)
    with pytest.raises((ValueError, TypeError, RuntimeError), match="inverted_residual"):
        RAW.inverted_residual(**IMAGE | dict([change]))


@pytest.mark.parametrize("name", RIGHT)
def test_right_arguments_run(name):
    getattr(RAW, name)(**RIGHT[name])


@pytest.mark.parametrize(
    "name, change", [(name, change) for name, changes in WRONG.items() for change in changes],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
def test_a_lie_is_one_line(name, change):
    with pytest.raises((ValueError, TypeError, RuntimeError)) as caught:
        getattr(RAW, name)(**RIGHT[name] | dict([change]))
    assert "\n" not in str(caught.value) and name.split("_")[0] in str(caught.value)


@pytest.mark.parametrize("name", [name for name in RIGHT if "backend" in RIGHT[name]])
@pytest.mark.parametrize("backend", ["cuda", "", "metal"])
def test_a_backend_that_cannot_run_is_refused(name, backend):
    with pytest.raises((ValueError, RuntimeError), match="backend"):
        getattr(RAW, name)(**RIGHT[name] | {"backend": backend})


@pytest.mark.parametrize("name", ["variational_forward", "reweight_backward", "head_forward", "density_forward"])
def test_the_compiled_module_names_what_is_missing(name):
    function = getattr(native.module, name)
    with pytest.raises(TypeError, match=f"{name}: missing argument"):
        function(threads=1)
    with pytest.raises(TypeError):
        function(1, 2, 3)


def test_the_compiled_module_refuses_unknown_names_and_dtypes():
    given = dict(dtype=0, batch=0, channels=0, pixels=0, channels_last=False, x=0, attention=0, out=0)
    native.module.reweight_forward(**given, threads=1)
    with pytest.raises(TypeError, match="unknown argument"):
        native.module.reweight_forward(**given, threads=1, outs=0)
    with pytest.raises(ValueError, match="no dtype has the number 4"):
        native.module.reweight_forward(**given | {"dtype": 4}, threads=1)
