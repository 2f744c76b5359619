"""The Triton kernels of variational, reweight and density: on a GPU where there is one, else interpreted.

TRITON_INTERPRET has to be set before a kernel is decorated, so without a GPU the numerical tests of this file are
skipped in the first process and run by `test_under_the_interpreter` in a second one. The interpreter checks logic, not
races; that every kernel compiles for sm_90, without spilling, is checked separately and needs no GPU.
"""

import os
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dkpnet_ext.ops import density, philox, reference, reweight, use_backend, variational
from dkpnet_ext.ops.triton import density as triton_density
from dkpnet_ext.ops.triton import head as triton_head
from dkpnet_ext.ops.triton import philox as triton_philox
from dkpnet_ext.ops.triton import reweight as triton_reweight
from dkpnet_ext.ops.triton import variational as triton_variational

from .conftest import runs_the_interpreter
from .test_variational import check_kl_near_the_prior

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16] if INTERPRETED else [torch.float32, torch.bfloat16, torch.float16]


def runs_kernels(test):
    return test if INTERPRETED else pytest.mark.gpu(test)


@runs_the_interpreter
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU instead")
def test_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "DKPNET_BACKEND": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(re.search(r"(\d+) passed", result.stdout).group(1)) >= 20, result.stdout


# ---- noise ---------------------------------------------------------------------------------------------------------


@triton.jit
def noise_kernel(seed, element, words, normals, STREAM: tl.constexpr, BLOCK: tl.constexpr):
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(element + here)
    tl.store(words + here, triton_philox.word(tl.load(seed), index, STREAM).to(tl.int64))
    tl.store(normals + here, triton_philox.normal(tl.load(seed), index))


@runs_kernels
@pytest.mark.parametrize("seed, first", [(0, 0), (-1, 1), (123456789012345678, 2**34 + 3)])
def test_noise_is_that_of_the_reference(seed, first):
    seed = torch.tensor([seed], device=DEVICE)
    element = torch.arange(1 << 14, device=DEVICE) + first
    words, normals = torch.zeros_like(element), torch.zeros(len(element), device=DEVICE)
    for stream in (philox.NORMAL_STREAM, philox.DROPOUT_STREAM):
        noise_kernel[(16,)](seed, element, words, normals, STREAM=stream, BLOCK=1024)
        assert torch.equal(words, philox.words(seed, element, stream))
    ulps = normals.view(torch.int32).long() - philox.normals(seed, element).view(torch.int32).long()
    assert ulps.abs().max() <= 2


# ---- variational ---------------------------------------------------------------------------------------------------

# B, d, C, k, N, dropout, explicit eps, first
VARIATIONAL = [
    (1, 1, 1, 1, 1, 0.0, False, 0),
    (3, 7, 2, 2, 1, 0.2, False, 5),
    (5, 64, 5, 1, 2, 0.2, True, 0),
    (33, 40, 2, 2, 1, 0.5, False, 2**33),
    (2, 512, 1, 2, 1, 0.0, False, 1),
    (2, 16, 17, 1, 2, 0.0, False, 1),
    (3, 20, 2, 8, 1, 0.5, False, 0),
]
INPUTS = ("mu", "logvar", "centers", "prior_logvar")
OUTPUTS = ("z", "kl", "lse", "logdet2")


def variational_case(batch, dim, domains, subs, samples, dropout, explicit, first, dtype, scale=1.0):
    """Inputs of the internal forward, in its order."""
    generator = torch.Generator().manual_seed(batch * 1000 + dim)

    def draw(*shape):
        return (torch.randn(*shape, generator=generator) * scale).to(DEVICE, dtype)

    labels = torch.randint(domains, (batch,), generator=generator).to(DEVICE)
    seed = torch.tensor([batch + dim], device=DEVICE)
    eps = draw(samples, batch, dim) if explicit else None
    tensors = draw(batch, dim), draw(batch, dim), draw(domains, subs, dim) / dim**0.5, draw(domains, dim)
    return *tensors, labels, seed, eps, samples, dropout, first


def reference_with_gradients(case, dtype, upstream=None):
    """The reference's outputs in `dtype`, and the four inputs' gradients for upstream gradients of the outputs."""
    tensors = [t.detach().to(dtype).requires_grad_() for t in case[:4]]
    labels, seed, eps, samples, dropout, first = case[4:]
    eps = None if eps is None else eps.to(dtype)
    outputs = reference.variational(
        *tensors, labels, seed=seed, eps=eps, num_samples=samples, dropout=dropout, batch_offset=first
    )
    if upstream is None:
        return outputs, None
    upstream = [u.to(o.dtype) for u, o in zip(upstream, outputs[:4], strict=True)]
    return outputs, torch.autograd.grad(outputs[:4], tensors, upstream)


def triton_backward(case, upstream, selected, probabilities):
    *tensors, labels, seed, eps, _, _, first = case
    return triton_variational.backward(*upstream, *tensors, labels, seed, eps, selected, probabilities, first)


@runs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_variational(dtype, error_rule):
    torch.manual_seed(0)
    for shape in VARIATIONAL:
        check_variational(variational_case(*shape, dtype), dtype, error_rule)
    error_rule.check(lambda name: 3 if name.startswith("gradient") else 2)


def check_variational(case, dtype, error_rule):
    *outputs, selected, probabilities = triton_variational.forward(*case)
    upstream = [torch.randn_like(output) for output in outputs]
    eager, eager_grads = reference_with_gradients(case, dtype, upstream)
    exact, exact_grads = reference_with_gradients(case, torch.float64, upstream)

    assert torch.equal(selected, exact[4])
    for name, ours, plain, truth in zip(OUTPUTS, outputs, eager[:4], exact[:4], strict=True):
        error_rule.add(name, ours, plain, truth)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones_like(probabilities[..., 0]))

    grads = triton_backward(case, upstream, selected, probabilities)
    for name, ours, plain, truth in zip(INPUTS, grads, eager_grads, exact_grads, strict=True):
        error_rule.add(f"gradient of {name}", ours, plain, truth)


@runs_kernels
@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs one program after the other")
def test_variational_same_bits_every_run():
    case = variational_case(33, 8, 2, 2, 1, 0.2, False, 0, torch.float32)
    outputs, again = triton_variational.forward(*case), triton_variational.forward(*case)
    upstream = [torch.randn_like(output) for output in outputs[:4]]
    outputs += triton_backward(case, upstream, *outputs[4:])
    again += triton_backward(case, upstream, *again[4:])
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True))


@runs_kernels
@pytest.mark.parametrize("logvar, prior_logvar, scale", [(30, -30, 1), (-30, 30, 1), (30, 30, 1), (0, 0, 300)])
def test_variational_extremes(logvar, prior_logvar, scale, error_rule):
    """logvar and prior at +-30, z.u at 1e4 and more: finite, and as close to float64 as plain float32."""
    case = list(variational_case(4, 16, 3, 2, 1, 0.0, False, 0, torch.float32, scale))
    case[1], case[3] = torch.full_like(case[1], logvar), torch.full_like(case[3], prior_logvar)
    check_variational(case, torch.float32, error_rule)
    error_rule.check(lambda name: 3 if name.startswith("gradient") else 2)


@runs_kernels
def test_variational_ties_labels_and_empty_batches():
    case = list(variational_case(3, 8, 2, 4, 1, 0.0, False, 0, torch.float32))
    case[2] = case[2][:, :1].expand(2, 4, 8).contiguous()  # four equal centres: the lowest index wins
    *_, selected, _ = triton_variational.forward(*case)
    assert (selected == 0).all()

    case = list(variational_case(3, 8, 2, 2, 1, 0.0, False, 0, torch.float32))
    good = case[4].clone()
    for bad in (-1, 2):
        case[4] = torch.cat([good[:1], good.new_tensor([bad]), good[2:]])
        z, kl, lse, logdet2, selected, probabilities = triton_variational.forward(*case)
        upstream = [torch.ones_like(t) for t in (z, kl, lse, logdet2)]
        for term in (kl, lse, logdet2):
            assert term.isnan().tolist() == [False, True, False]
        assert probabilities[0].isnan().all(1).tolist() == [False, True, False]
        assert z.isfinite().all() and ((selected == 0) | (selected == 1)).all()
        dmu, dlogvar, dcenters, dprior = triton_backward(case, upstream, selected, probabilities)
        for grad in (dmu, dlogvar):
            assert grad.isnan().any(1).tolist() == [False, True, False]
        # To the parameters the image adds nothing: as if its upstream gradients were zero under a valid label.
        case[4] = good
        keep = torch.tensor([1.0, 0.0, 1.0], device=DEVICE)
        quiet = [upstream[0], *(u * keep for u in upstream[1:])]
        expected = triton_backward(case, quiet, selected, probabilities.nan_to_num())[2:]
        torch.testing.assert_close((dcenters, dprior), expected, rtol=0, atol=0)

    empty = variational_case(0, 8, 2, 2, 1, 0.0, False, 0, torch.float32)
    *outputs, selected, probabilities = triton_variational.forward(*empty)
    assert [tuple(t.shape) for t in (*outputs, selected)] == [(1, 0, 8), (0,), (0,), (0,), (0, 2)]
    grads = triton_backward(empty, outputs, selected, probabilities)
    assert all((grad == 0).all() for grad in grads) and grads[2].shape == (2, 2, 8)


@runs_kernels
@pytest.mark.parametrize("difference", [1e-2, 1e-3, 1e-4, 1e-5])
def test_kl_near_the_prior(difference):
    check_kl_near_the_prior("triton", difference, DEVICE)


# ---- reweight ------------------------------------------------------------------------------------------------------


@runs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_reweight(layout, dtype, error_rule):
    torch.manual_seed(0)
    for shape in ((1, 1, 1, 1), (1, 3, 33, 41), (2, 70, 3, 5), (0, 4, 2, 2)):
        x, grad = (torch.randn(shape).to(DEVICE, dtype).contiguous(memory_format=layout) for _ in "xg")
        attention = torch.rand(shape[:2]).to(DEVICE, dtype)
        plain, truth = (
            reweight_reference(x, attention, grad, dtype),
            reweight_reference(x, attention, grad, torch.float64),
        )
        ours = triton_reweight.forward(x, attention), *triton_reweight.backward(grad, x, attention)
        assert [t.stride() for t in ours[:2]] == [x.stride()] * 2
        for name, *tensors in zip(("out", "dx", "dattention"), ours, plain, truth, strict=True):
            error_rule.add(name, *tensors)
    error_rule.check(lambda name: 3 if name.startswith("d") else 2)


def reweight_reference(x, attention, grad, dtype):
    inputs = [x.detach().to(dtype).requires_grad_(), attention.detach().to(dtype).requires_grad_()]
    out = reference.reweight(*inputs)
    return out, *torch.autograd.grad(out, inputs, grad.to(dtype))


# ---- density -------------------------------------------------------------------------------------------------------


@runs_kernels
@pytest.mark.parametrize("size, stride", [((97, 131), 4), ((40, 33), 1), ((50, 50), 3), ((5, 300), 64)])
@pytest.mark.parametrize("adaptive", [False, True])
def test_density(size, stride, adaptive):
    generator = torch.Generator().manual_seed(stride)
    counts = torch.tensor([0, 1, 40, 0, 5])
    points = torch.rand(46, 2, generator=generator) * (torch.tensor(size[::-1]) + 20) - 10  # some outside
    points[3], points[4], points[5] = points[2], torch.nan, torch.inf
    points[6:8] = torch.tensor([[0.0, 0.0], [size[1] - 0.5, size[0] - 0.5]])  # corners
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).to(DEVICE)
    points, sigmas = points.to(DEVICE), (torch.rand(46, generator=generator) * 12).to(DEVICE)
    sigmas[:3] = torch.tensor([0.0, torch.inf, torch.nan])
    sigmas = sigmas if adaptive else None
    ours = triton_density.forward(points, offsets, sigmas, 4.0, 1.75, *size, stride)
    exact = reference.density(
        points, offsets, size, stride=stride, sigma=4.0 if sigmas is None else sigmas, truncate=1.75
    )
    torch.testing.assert_close(ours, exact, rtol=2e-6, atol=1e-8)
    assert torch.equal(ours, triton_density.forward(points, offsets, sigmas, 4.0, 1.75, *size, stride))


@runs_kernels
def test_density_of_nothing():
    offsets = torch.zeros(3, dtype=torch.int64, device=DEVICE)
    nothing = torch.empty(0, 2, device=DEVICE)
    assert (triton_density.forward(nothing, offsets, None, 4.0, 1.75, 20, 30, 4) == 0).all()
    assert triton_density.forward(nothing, offsets[:1], None, 4.0, 1.75, 20, 30, 4).shape == (0, 1, 5, 8)


# ---- through the operators ----------------------------------------------------------------------------------------


@runs_kernels
def test_the_operators_reach_the_kernels():
    points, offsets = torch.tensor([[3.0, 4.0], [9.0, 1.0]], device=DEVICE), torch.tensor([0, 2], device=DEVICE)
    mu, logvar, centers, prior_logvar, labels, seed, *_ = variational_case(3, 6, 2, 2, 2, 0.0, False, 0, torch.float32)
    x = torch.randn(2, 3, 4, 5, device=DEVICE)
    outcomes = []
    for backend in ("triton", "reference"):
        leaves = [t.detach().requires_grad_() for t in (mu, logvar, centers, prior_logvar, x, x[:, :, 0, 0])]
        with use_backend(backend):
            terms = variational(*leaves[:4], labels, seed=seed, num_samples=2, dropout=0.2)
            scaled = reweight(*leaves[4:])
            target = density(points, offsets, (20, 30))
        loss = terms.z.square().sum() + (terms.kl + terms.lse + terms.logdet2).sum() + scaled.square().sum()
        outcomes.append([target, loss, *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*outcomes, rtol=1e-4, atol=1e-5)


# ---- grids ---------------------------------------------------------------------------------------------------------


class Recorder:
    """Stands for a kernel: kernel[grid](...) notes the grid."""

    def __init__(self):
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid):
        self.grids.append(grid)
        return lambda *arguments, **options: None


def check_grids(recorder: Recorder) -> None:
    assert recorder.grids
    for grid in recorder.grids:
        assert 0 < grid[0] < 2**31 and all(0 < side <= 65535 for side in grid[1:]), grid


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", [(1, 70000, 4, 4), (1, 64, 2**13, 2**13), (70000, 3, 2, 2)], ids=str)
def test_grids_of_reweight(monkeypatch, shape, layout):
    recorder = Recorder()
    for kernel in ("forward_kernel", "backward_kernel"):
        monkeypatch.setattr(triton_reweight, kernel, recorder)
    x = torch.empty(shape, device="meta").contiguous(memory_format=layout)
    attention = torch.empty(shape[:2], device="meta")
    triton_reweight.forward(x, attention)
    triton_reweight.backward(x, x, attention)
    check_grids(recorder)


def test_grids_of_variational(monkeypatch):
    recorder = Recorder()
    for kernel in ("forward_kernel", "backward_images_kernel", "backward_parameters_kernel"):
        monkeypatch.setattr(triton_variational, kernel, recorder)
    for batch, dim, domains in ((70000, 8, 2), (2, 70000, 2), (2, 8, 70000)):
        mu, centers = torch.empty(batch, dim, device="meta"), torch.empty(domains, 1, dim, device="meta")
        labels = torch.empty(batch, dtype=torch.int64, device="meta")
        inputs = mu, mu, centers, centers[:, 0], labels, labels[:1], None
        *out, selected, probabilities = triton_variational.forward(*inputs, 1, 0.0, 0)
        triton_variational.backward(*out, *inputs, selected, probabilities, 0)
    check_grids(recorder)


def test_grids_of_head(monkeypatch):
    recorder = Recorder()
    for kernel in ("forward_kernel", "backward_kernel", "downsample_kernel"):
        monkeypatch.setattr(triton_head, kernel, recorder)
    side, meta = 2**13, {"device": "meta"}
    fine, weight = torch.empty(1, 40, side, side, **meta), torch.empty(1, 40, 64, **meta)
    products = [torch.empty(1, side // 2, side // 2, 64, **meta)]
    tail = torch.empty(1, 64, **meta), torch.empty(32, 64, **meta), *(torch.empty(32, **meta) for _ in range(3))
    triton_head.forward(fine, weight, products, *tail, side, side)
    grad_hidden, _ = triton_head.backward(fine[:, :1], fine, weight, products, *tail, side, side)
    triton_head.downsample(grad_hidden, side // 2, side // 2)
    check_grids(recorder)


def test_grids_of_density(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(triton_density, "density_kernel", recorder)
    points, offsets = torch.empty(9, 2, device="meta"), torch.empty(3, dtype=torch.int64, device="meta")
    triton_density.forward(points, offsets, None, 4.0, 1.75, 2**13, 2**13, 1)
    check_grids(recorder)


# ---- compilation ---------------------------------------------------------------------------------------------------

VARIATIONAL_CONSTANTS = {"DROPOUT": True, "BLOCK_C": 8, "BLOCK_K": 2, "BLOCK_D": 128}
FLOAT32 = ("kl", "lse", "logdet2", "probabilities", "dkl", "dlse", "dlogdet2", "partial")
KERNELS = {
    "variational forward": (
        triton_variational.forward_kernel,
        "mu logvar centers prior_logvar labels seed eps z kl lse logdet2 selected probabilities",
        VARIATIONAL_CONSTANTS,
    ),
    "variational backward, images": (
        triton_variational.backward_images_kernel,
        "dz dkl dlse mu logvar centers prior_logvar labels seed eps selected probabilities dmu dlogvar z",
        {"BLOCK_D": 128},
    ),
    "variational backward, parameters": (
        triton_variational.backward_parameters_kernel,
        "dkl dlse dlogdet2 mu logvar centers prior_logvar labels selected probabilities z dcenters dprior_logvar",
        {"ROWS": 32, "COLUMNS": 32},
    ),
    "reweight forward": (triton_reweight.forward_kernel, "x attention out", {}),
    "reweight backward": (triton_reweight.backward_kernel, "grad x attention dx partial", {}),
    "density": (
        triton_density.density_kernel,
        "points offsets sigmas out",
        {"TILE": triton_density.TILE, "HEADS": triton_density.HEADS},
    ),
}
VARIANTS = {
    "variational forward": [{"eps": None}, {"seed": None, "DROPOUT": False}],
    "variational backward, images": [{"eps": None}, {"seed": None}],
    "reweight forward": [
        {"pixel_step": 1, "CHANNELS": 1, "PIXELS": 1024},
        {"channel_step": 1, "CHANNELS": 64, "PIXELS": 16},
    ],
    "density": [{"sigmas": None}, {}],
}
VARIANTS["reweight backward"] = VARIANTS["reweight forward"]


@pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are not compiled")
@pytest.mark.parametrize("storage", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", KERNELS)
def test_compiles_for_sm_90(name, storage):
    kernel, pointers, constants = KERNELS[name]
    if name == "density" and storage != "fp32":
        pytest.skip("density is float32 only")
    pointers = pointers.split()
    for variant in VARIANTS.get(name, [{}]):
        constexprs = {**constants, **variant}
        signature = {}
        for argument in kernel.arg_names:
            if argument in constexprs:
                signature[argument] = "constexpr"
            elif argument in ("labels", "seed", "selected", "offsets"):
                signature[argument] = "*i64"
            elif argument in FLOAT32 or (argument == "z" and name == "variational backward, parameters"):
                signature[argument] = "*fp32"
            elif argument in pointers:
                signature[argument] = f"*{storage}"
            elif argument in ("sigma", "truncate"):
                signature[argument] = "fp32"
            else:
                signature[argument] = "i64" if argument in ("first", "threshold") else "i32"
        source = ASTSource(kernel, signature=signature, constexprs=constexprs)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert compiled.asm["cubin"]
        # Spilled registers and local arrays live in .local memory.
        assert ".local" not in compiled.asm["ptx"]
