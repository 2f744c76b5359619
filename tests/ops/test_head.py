"""head: values, gradients, layouts, errors, life inside compile and export, and what its kernels compile to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from dkpnet_ext.ops import backend as backends
from dkpnet_ext.ops import head, native
from dkpnet_ext.ops.backend import use_backend

from .conftest import runs_the_interpreter

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
NAMES = ("neck_weight", "neck_bias", "weight1", "bias1", "weight2", "bias2", "weight3", "bias3")
needs_cpp = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

# Output size; (channels, height, width) of the branches.
USUAL = (21, 33), ((40, 21, 33), (80, 11, 17), (160, 6, 9))
CASES = {
    "usual": USUAL,
    "all coarser": ((13, 22), ((18, 7, 11), (36, 4, 6))),
    "one branch at the output's size": ((9, 14), ((24, 9, 14),)),
    "one coarser branch": ((17, 19), ((7, 3, 2),)),
    "two at the output's size, the first one not first": ((12, 10), ((5, 6, 5), (16, 12, 10), (3, 12, 10))),
    "several parts, more than one chunk of channels": ((40, 43), ((131, 40, 43), (8, 20, 22))),
    "one pixel": ((1, 1), ((4, 1, 1), (6, 1, 1))),
    "finer than the output": ((5, 6), ((4, 9, 13), (8, 5, 6))),
}


def make(
    case=USUAL, batch=2, channels=48, widths=(64, 32), dtype=torch.float32, device="cpu",
    layout=torch.contiguous_format, attention=True, seed=0,
):  # fmt: skip
    """(branches, attention, parameters, size), every tensor a leaf that needs a gradient; parameters in float32."""
    size, shapes = case
    generator = torch.Generator().manual_seed(seed)
    total, (hidden1, hidden2) = sum(shape[0] for shape in shapes), widths

    def draw(*shape, scale=1.0, dtype=torch.float32, layout=torch.contiguous_format):
        values = torch.randn(shape, generator=generator) * scale
        return values.to(device, dtype).contiguous(memory_format=layout).requires_grad_()

    branches = [draw(batch, *shape, dtype=dtype, layout=layout) for shape in shapes]
    weights = torch.rand(batch, channels, generator=generator).to(device).requires_grad_()
    parameters = [
        draw(channels, total, scale=total**-0.5), draw(channels), draw(hidden1, channels, scale=2 * channels**-0.5),
        draw(hidden1), draw(hidden2, hidden1, scale=2 * hidden1**-0.5), draw(hidden2),
        draw(1, hidden2, scale=hidden2**-0.5), draw(1),
    ]  # fmt: skip
    return branches, weights if attention else None, parameters, size


def literal(branches, attention, parameters, size):
    """The paper's text: upsample, concatenate, neck, attention, 1x1 convolutions."""
    neck_weight, neck_bias, weight1, bias1, weight2, bias2, weight3, bias3 = parameters

    def conv(x, weight, bias):
        return F.conv2d(x, weight[:, :, None, None], bias)

    features = [F.interpolate(b, size=size, mode="bilinear", align_corners=False) for b in branches]
    x = conv(torch.cat(features, dim=1), neck_weight, neck_bias)
    if attention is not None:
        x = x * attention[:, :, None, None]
    return conv(F.relu(conv(F.relu(conv(x, weight1, bias1)), weight2, bias2)), weight3, bias3)


def copies(case, dtype):
    """The same values as leaves of one dtype."""
    branches, attention, parameters, size = case

    def cast(t):
        return t.detach().to(dtype).requires_grad_()

    return (
        [cast(b) for b in branches],
        None if attention is None else cast(attention),
        [cast(p) for p in parameters],
        size,
    )


def results(function, case, seed=1):
    """{name: tensor} of the density and every gradient."""
    branches, attention, parameters, size = case
    density = function(branches, attention, parameters, size)
    upstream = torch.randn(density.shape, generator=torch.Generator().manual_seed(seed)).to(density)
    inputs = {f"branch {j}": branch for j, branch in enumerate(branches)}
    inputs |= dict(zip(NAMES, parameters, strict=True)) | ({} if attention is None else {"attention": attention})
    grads = torch.autograd.grad(density, list(inputs.values()), upstream)
    return {"density": density.detach()} | {f"grad of {name}": g for name, g in zip(inputs, grads, strict=True)}


def run(backend):
    def function(branches, attention, parameters, size):
        with use_backend(backend):
            return head(branches, attention, *parameters, size)

    return function


def check_errors(backend, case, dtype, rule, seed=1):
    got, plain = results(run(backend), case, seed), results(run("reference"), copies(case, dtype), seed)
    truth = results(literal, copies(case, torch.float64), seed)
    assert got["density"].shape == (len(case[0][0]), 1, *case[3])
    for name, exact in truth.items():
        # Gradients have the dtype of what they belong to: float32 parameters of half-precision features.
        rule.add(name, got[name].to(dtype), plain[name], exact)


def check_rule(rule):
    rule.check(lambda name: 3 if name.startswith("grad") else 2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_errors_against_float64(backend, device, name, layout, dtype, error_rule):
    # In 16 bits a hidden unit near zero may round to either side of its ReLU's kink, which is by far the largest error
    # of a gradient: enough pixels that this befalls plain PyTorch as well.
    height, width = CASES[name][0]
    # The density of one pixel is one number an image. Of two images its error is luck: on an Intel CPU 2.3 times plain
    # PyTorch's, of 64 images 1.01 times.
    few = dtype == torch.float32 and height * width > 1
    batch = 2 if few else min(64, 2 + 3000 // (height * width))
    for attention in (True, False):
        case = make(CASES[name], batch, dtype=dtype, device=device, layout=layout, attention=attention)
        # bias3's gradient is one number: of a single draw its rounding, ours and plain PyTorch's, is luck.
        for seed in range(1, 9 if dtype == torch.float32 and height * width < 400 else 2):
            check_errors(backend, case, dtype, error_rule, seed)
    check_rule(error_rule)


@pytest.mark.parametrize("batch", [1, 3, 32, 257])
def test_batches(backend, device, batch, error_rule):
    check_errors(
        backend, make(((7, 9), ((18, 7, 9), (36, 4, 5))), batch=batch, device=device), torch.float32, error_rule
    )
    check_rule(error_rule)


def test_empty_batch(backend, device):
    outcome = results(run(backend), make(batch=0, device=device))
    assert outcome["density"].shape == (0, 1, 21, 33)
    assert all((grad == 0).all() for grad in outcome.values())


@needs_cpp
@pytest.mark.parametrize("widths", [(16, 16), (48, 80), (128, 128)])
def test_other_hidden_widths(widths, error_rule):
    check_errors("cpp", make(widths=widths), torch.float32, error_rule)
    check_rule(error_rule)


@needs_cpp
def test_widths_and_branches_beyond_the_kernels():
    odd = make(widths=(24, 10))
    many = make(((6, 8), ((2, 6, 8), *((2, 3, 4),) * 9)))
    for case, reason in ((odd, "16, 32"), (many, "8 branches"), (copies(odd, torch.float64), "no float64")):
        with pytest.raises(RuntimeError, match=f"cpp.*{reason}"):
            run("cpp")(*case)
    for case in (odd, many):
        branches, attention, parameters, size = case
        backends._warned.clear()
        with pytest.warns(UserWarning, match="head on cpu runs on 'reference'.*cpp"):
            density = head(branches, attention, *parameters, size)
        torch.testing.assert_close(density, literal(*case), rtol=1e-4, atol=1e-4)


@needs_cpp
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    shapes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=3),
    at_size=st.booleans(), batch=st.integers(1, 3),
)  # fmt: skip
def test_any_shape(size, shapes, at_size, batch):
    if at_size:
        shapes = [*shapes, (5, *size)]
    case = make((size, shapes), batch=batch, channels=16, widths=(16, 16))
    branches, attention, parameters, _ = case
    torch.testing.assert_close(run("cpp")(*case), literal(branches, attention, parameters, size), rtol=1e-4, atol=1e-4)


def test_strided_and_expanded_inputs(backend, device):
    (fine, coarse), attention, parameters, size = make(((9, 14), ((16, 9, 14), (24, 5, 7))), device=device)
    wide = torch.randn(2, 40, 18, 14, device=device)
    views = [
        [wide[:, 8:24, ::2], coarse],
        [fine.transpose(2, 3).contiguous().transpose(2, 3), coarse[:, :, ::2]],
        [fine[:1].expand(2, -1, -1, -1), coarse[:, :, :1, :1].expand(-1, -1, 5, 7)],
        [wide.flatten()[1 : 1 + fine.numel()].view(fine.shape), coarse],  # not at a multiple of 16 bytes
    ]
    for branches in views:
        branches = [branch.detach().requires_grad_() for branch in branches]
        strided = branches, attention.detach()[:1].expand(2, -1).requires_grad_(), parameters, size
        got, expected = results(run(backend), strided), results(run("reference"), copies(strided, torch.float64))
        for name, value in expected.items():
            torch.testing.assert_close(got[name].double(), value, rtol=1e-3, atol=1e-4, msg=name)


def test_same_bits_twice(backend, device):
    case = make(CASES["several parts, more than one chunk of channels"], device=device)
    first, second = results(run(backend), case), results(run(backend), case)
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_cpp
def test_number_of_threads_changes_no_bit():
    case = make(CASES["several parts, more than one chunk of channels"])
    threads, outcomes = torch.get_num_threads(), []
    branches, attention, parameters, size = case
    products = [torch.randn(2, 20, 22, 64)]
    fine_weight, bias = torch.randn(2, 131, 64) / 12, torch.randn(2, 64)
    tail = [p.detach() for p in parameters[4:]]
    fine, grad = branches[0].detach(), torch.randn(2, 1, *size)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            outcomes.append(
                torch.ops.dkpnet.head_backward(grad, fine, fine_weight, products, bias, *tail, *size, "cpp")
            )
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *outcomes))


def test_nan_reaches_the_density(backend, device):
    branches, attention, parameters, size = make(device=device)
    with torch.no_grad():
        branches[0][0, 0, 3, 4] = torch.nan
    density = run(backend)(branches, attention, parameters, size)
    assert density.isnan().nonzero().tolist() == [[0, 0, 3, 4]]


def double_case():
    case = make(((3, 4), ((2, 3, 4), (3, 2, 2))), batch=2, channels=5, widths=(4, 3), seed=3)
    branches, attention, parameters, size = copies(case, torch.float64)

    def function(*tensors):
        with use_backend("reference"):
            return head(tensors[:2], tensors[2], *tensors[3:], size)

    return function, (*branches, attention, *parameters)


def test_gradcheck_of_the_reference():
    function, inputs = double_case()
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


def test_second_derivative_is_one_clear_error(backend, device):
    branches, attention, parameters, size = make(device=device)
    density = run(backend)(branches, attention, parameters, size)
    (grad,) = torch.autograd.grad(density.square().sum(), branches[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*use_backend\('reference'\)"):
        grad.sum().backward()


def test_partial_gradients(backend, device):
    """Frozen parameters, frozen features: the rest still gets what it gets with everything trained."""
    branches, attention, parameters, size = make(device=device)
    full = results(run(backend), (branches, attention, parameters, size))
    upstream = torch.randn(full["density"].shape, generator=torch.Generator().manual_seed(1)).to(device)
    frozen = [p.detach() for p in parameters]
    (grad,) = torch.autograd.grad(run(backend)(branches, attention.detach(), frozen, size), branches[1], upstream)
    assert torch.equal(grad, full["grad of branch 1"])
    frozen = [b.detach() for b in branches]
    (grad,) = torch.autograd.grad(run(backend)(frozen, attention, parameters, size), parameters[0], upstream)
    assert torch.equal(grad, full["grad of neck_weight"])


def tail_arguments(device, layout=torch.contiguous_format):
    (fine, coarse), _, parameters, size = make(((5, 7), ((6, 5, 7), (4, 3, 4))), device=device, layout=layout)
    fine_weight = torch.randn(2, 6, 64, device=device, requires_grad=True)
    products = [torch.randn(2, 3, 4, 64, device=device, requires_grad=True)]
    bias = torch.randn(2, 64, device=device, requires_grad=True)
    return fine, fine_weight, products, bias, *parameters[4:], *size


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_opcheck(backend, device, layout):
    arguments = tail_arguments(device, layout)
    torch.library.opcheck(torch.ops.dkpnet.head.default, (*arguments, backend))
    *tensors, height, width = arguments
    detached = [[p.detach() for p in t] if isinstance(t, list) else t.detach() for t in tensors] + [height, width]
    grad = torch.randn(2, 1, 5, 7, device=device)
    torch.library.opcheck(torch.ops.dkpnet.head_backward.default, (grad, *detached, backend))
    torch.library.opcheck(
        torch.ops.dkpnet.head_downsample.default, (torch.randn(2, 5, 7, 64, device=device), 3, 4, backend)
    )


def test_features_dtype_decides_under_autocast(backend, device):
    for dtype in (torch.float32, torch.bfloat16):
        branches, attention, parameters, size = make(dtype=dtype, device=device)
        expected = run(backend)(branches, attention, parameters, size)
        for name in (backend, "reference"):
            with torch.autocast(device, dtype=torch.bfloat16):
                density = run(name)(branches, attention, parameters, size)
            assert density.dtype == dtype
            if name == backend:
                assert torch.equal(density, expected)


class Head(torch.nn.Module):
    def __init__(self, parameters, size):
        super().__init__()
        self.tensors = torch.nn.ParameterList(parameters)
        self.size = size

    def forward(self, branches, attention):
        # One by one: torch 2.10 cannot trace a ParameterList that is unpacked.
        tensors = [self.tensors[i] for i in range(len(self.tensors))]
        return head(branches, attention, *tensors, self.size)


def test_compile(backend, device):
    branches, attention, parameters, size = make(device=device)
    module = Head(parameters, size)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs = [*branches, attention, *module.parameters()]
    with use_backend(backend):
        outcomes = [torch.autograd.grad(f(branches, attention).square().sum(), inputs) for f in (module, compiled)]
    for eager, traced in zip(*outcomes, strict=True):
        torch.testing.assert_close(traced, eager)


def test_export(backend, device):
    branches, attention, parameters, size = make(device=device)
    module = Head([p.detach() for p in parameters], size)
    with use_backend(backend), torch.no_grad():
        program = torch.export.export(module, (branches, attention))
        expected = module(branches, attention)
    assert any(node.target is torch.ops.dkpnet.head.default for node in program.graph.nodes), program.graph
    torch.testing.assert_close(program.module()(branches, attention), expected)


def peak_bytes(function) -> int:
    """The most that a call holds at a time beyond what was there before (CPU)."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@needs_cpp
def test_inference_memory():
    """At most 5 % of the literal form's, which holds the upsampled branches and K channels at full size."""
    case = make(((100, 100), ((40, 100, 100), (80, 50, 50), (160, 25, 25))), channels=512, batch=1)
    with torch.inference_mode():
        ours, theirs = peak_bytes(lambda: run("cpp")(*case)), peak_bytes(lambda: literal(*case))
    assert theirs > 4 * 512 * 100 * 100
    assert ours <= 0.05 * theirs


def test_saved_activations(backend, device):
    """What training keeps beyond the features: at most 15 % of the literal form."""
    case = make(((48, 48), ((40, 48, 48), (80, 24, 24), (160, 12, 12))), channels=512, batch=4, device=device)
    given_tensors = {t.untyped_storage().data_ptr() for t in (*case[0], case[1], *case[2])}

    def saved(function):
        kept = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            function(*case)
        return sum(size for pointer, size in kept.items() if pointer not in given_tensors)

    assert saved(run(backend)) <= 0.15 * saved(literal)


def test_errors_are_one_clear_line():
    branches, attention, parameters, size = make()
    wrong = {
        "at least one branch": ((), attention, parameters, size),
        "branch 1 is": ((branches[0], branches[1][:1]), attention, parameters, size),
        r"no C, H or W of 0": ((branches[0][:, :0],), attention, parameters, size),
        "share one floating point dtype": ((branches[0], branches[1].half()), attention, parameters, size),
        "share one floating": ((branches[0].long(),), attention, parameters, size),
        r"size must be \(H, W\)": (branches, attention, parameters, (0, 3)),
        r"attention must be \[2, 48\]": (branches, attention[:, :5], parameters, size),
        r"neck_weight must be \[48, 280\]": (branches, attention, [parameters[0][:, :9], *parameters[1:]], size),
        "must be matrices": (branches, attention, [parameters[0].flatten(), *parameters[1:]], size),
        r"weight3 must be \[1, 32\]": (branches, attention, [*parameters[:6], parameters[6][0], parameters[7]], size),
        "bias3 must be floating": (branches, attention, [*parameters[:7], torch.ones(1, dtype=torch.long)], size),
        "attention is on meta": (branches, attention.to("meta"), parameters, size),
    }
    for message, (b, a, p, s) in wrong.items():
        with pytest.raises((ValueError, TypeError), match=message) as caught:
            head(b, a, *p, s)
        assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cuda_graph(name, dtype):
    """Forward and backward in a graph: no host synchronisation, and the same bits as outside."""
    case = make(dtype=dtype, device="cuda")
    branches, attention, parameters, size = case
    leaves = [*branches, attention, *parameters]

    def step():
        density = run(name)(branches, attention, parameters, size)
        return density, *torch.autograd.grad(density, leaves, torch.ones_like(density))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            expected = step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    assert all(map(torch.equal, captured, expected))


# ---- Triton without a GPU --------------------------------------------------------------------------------------------


@runs_the_interpreter
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU instead")
def test_triton_under_the_interpreter():
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    command += ["-k", "interpreted_triton"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "DKPNET_BACKEND": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed", result.stdout).group(1)) == 8, result.stdout


@pytest.mark.skipif(not INTERPRETED, reason="run by test_triton_under_the_interpreter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "name, layout",
    [
        ("fine and coarse", torch.contiguous_format), ("fine and coarse", torch.channels_last),
        ("all coarser", torch.contiguous_format), ("two parts", torch.contiguous_format),
    ],
)  # fmt: skip
def test_interpreted_triton(name, layout, dtype, error_rule):
    cases = {
        "fine and coarse": ((9, 14), ((40, 9, 14), (8, 5, 7))),
        "all coarser": ((7, 6), ((18, 3, 4), (6, 2, 2))),
        "two parts": ((24, 22), ((5, 24, 22),)),
    }
    check_errors("triton", make(cases[name], dtype=dtype, layout=layout, channels=8), dtype, error_rule)
    check_rule(error_rule)


@pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("kernel", ["forward", "backward", "downsample"])
def test_triton_compiles_for_sm_90(kernel):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from dkpnet_ext.ops.triton import head as kernels

    function = getattr(kernels, f"{kernel}_kernel")
    features, parameters = ("density", "grad_density", "grad_hidden", "grad", "out", "fine", "fine_weight"), (
        "bias", "weight2", "bias2", "weight3", "bias3", "partials",
    )  # fmt: skip
    constants = {
        "H1": 64, "H2": 32, "PIXELS": kernels.PIXELS, "PART": kernels.PART, "DEPTH": kernels.DEPTH,
        "DOT": triton.language.bfloat16, "CHANNELS": 64, "COLUMNS": kernels.COLUMNS,
    }  # fmt: skip
    signature = dict.fromkeys(function.arg_names, "i32")
    signature |= {name: "*bf16" for name in features if name in signature}
    signature |= {name: "*fp32" for name in parameters if name in signature}
    if "products" in signature:
        signature |= {"products": ("*bf16", "*bf16"), "heights": ("i32", "i32"), "widths": ("i32", "i32")}
    constants = {name: value for name, value in constants.items() if name in signature}
    signature |= dict.fromkeys(constants, "constexpr")
    divisible = {}  # as at run time: PyTorch's allocations are aligned
    for i, name in enumerate(function.arg_names):
        if name == "products":
            divisible |= {(i, j): [["tt.divisibility", 16]] for j in range(2)}
        elif isinstance(signature[name], str) and signature[name].startswith("*"):
            divisible[(i,)] = [["tt.divisibility", 16]]
    indexed = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(function, signature, indexed, divisible)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]
    assert ".local" not in compiled.asm["ptx"]  # local arrays
    assert ("mma" in compiled.asm["ptx"]) == (kernel != "downsample")  # tensor cores


# ---- CUDA without a GPU ----------------------------------------------------------------------------------------------


def test_cuda_kernels_compile_without_spills(tmp_path):
    nvcc = shutil.which("nvcc", path=os.environ["CUDA_HOME"] + "/bin" if "CUDA_HOME" in os.environ else None)
    nvcc = nvcc or shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no CUDA toolkit (nvcc)")
    sources = Path(__file__).resolve().parents[2] / "csrc"
    command = [nvcc, "-std=c++17", "-O3", "--expt-relaxed-constexpr", f"-I{sources}", "-Xptxas", "-v", "-c"]
    command += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in (80, 90)]
    command += [str(sources / "cuda" / "head.cu"), "-o", str(tmp_path / "head.o")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", result.stderr)
    kernels = 9  # forward and backward in three dtypes, downsample in three
    assert spills == [("0", "0")] * 2 * kernels, result.stderr
