"""transport: the formulas of DM-Count written out in float64 with the heads x cells matrix, gradients, edges, compile."""

import pytest
import torch

from dkpnet_ext.ops import native, transport, use_backend

needs_cpp = pytest.mark.skipif(native.missing is not None, reason=str(native.missing))
each_backend = pytest.mark.parametrize("name", ["reference", pytest.param("cpp", marks=needs_cpp)])


def make(*counts, size=(16, 13), stride=8, seed=0):
    """(density, points, offsets) of images with so many heads."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(len(counts), 1, *size, generator=generator)
    side = torch.tensor([size[1] * stride, size[0] * stride])
    points = torch.rand(sum(counts), 2, generator=generator) * side
    return density, points, torch.tensor([0, *counts]).cumsum(0)


def literal(density, points, stride=8, regularisation=10.0, iterations=100, unit=False):
    """(objective, potential, gradient) of one map [h, w], in float64."""
    density, points = density.double(), points.double()
    if not len(points):
        return density.new_zeros(()), torch.zeros_like(density), torch.zeros_like(density)
    scale = torch.tensor(density.shape[::-1], dtype=torch.float64) * stride / 2 if unit else 1.0
    y, x = (torch.arange(n, dtype=torch.float64) * stride + stride / 2 for n in density.shape)
    centers = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 2)
    kernel = torch.exp(-((points[:, None] - centers) / scale).square().sum(-1) / regularisation)
    flat, mass = density.flatten(), density.sum()
    b, a = flat / (mass + 1e-6), 1 / len(points)
    u = torch.full((len(points),), a, dtype=torch.float64)
    for iteration in range(1, iterations + 1):
        v = b / (u @ kernel + 1e-16)
        u = a / (kernel @ v + 1e-16)
        if iteration % 10 == 0 and (b - v * (u @ kernel)).square().sum() <= 1e-9:
            break
    beta = regularisation * torch.log(v + 1e-16)
    gradient = mass / (mass**2 + 1e-8) * beta - (flat * beta).sum() / (mass**2 + 1e-8)
    return (b * beta).sum(), beta.view_as(density), gradient.view_as(density)


def check(name, density, points, offsets, **options):
    density = density.clone().requires_grad_()
    with use_backend(name):
        objective, potential = transport(density, points, offsets, **options)
    assert not potential.requires_grad
    weights = torch.arange(1.0, len(density) + 1)
    (gradient,) = torch.autograd.grad(objective @ weights.to(objective), density)
    literal_options = {**options, "unit": options.get("unit_coordinates", False)}
    literal_options.pop("unit_coordinates", None)
    for image in range(len(density)):
        own = points[offsets[image] : offsets[image + 1]]
        want = literal(density[image, 0].detach(), own, **literal_options)
        got = objective[image], potential[image, 0], gradient[image, 0] / weights[image]
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=2e-6, atol=1e-4)


@each_backend
@pytest.mark.parametrize("options", [{}, {"unit_coordinates": True}, {"stride": 4}, {"regularisation": 100.0}], ids=str)
def test_against_the_formulas(name, options):
    check(name, *make(40, 0, 1, 7, stride=options.get("stride", 8)), **options)


@each_backend
@pytest.mark.parametrize("size", [(1, 1), (1, 20), (9, 8), (7, 3)], ids=str)
def test_sizes(name, size):
    check(name, *make(3, 5, size=size))


@each_backend
def test_many_heads(name):
    check(name, *make(5000, size=(32, 32)))


@each_backend
def test_heads_on_borders_on_each_other_and_outside(name):
    density, _, _ = make(0, size=(10, 10))
    points = [[0, 0], [80, 80], [0, 80], [4, 4], [4, 4], [4, 4], [40, 40], [-300, 20], [1e30, 5]]
    check(name, density, torch.tensor(points, dtype=torch.float32), torch.tensor([0, len(points)]))


@each_backend
def test_a_head_far_from_all_density(name):
    density = torch.zeros(1, 1, 30, 30)
    density[..., :4, :4] = 0.2
    check(name, density, torch.tensor([[5.0, 9.0], [230.0, 230.0]]), torch.tensor([0, 2]))


@each_backend
def test_no_density(name):
    density, points, offsets = make(3)
    check(name, density * 0, points, offsets)


@each_backend
def test_small_regularisation_underflows_to_finite_values(name):
    output = transport(*make(20), regularisation=0.01)
    assert output.potential.isfinite().all() and output.objective.isfinite().all()
    check(name, *make(20), unit_coordinates=True, regularisation=0.001)


@each_backend
def test_cells_that_no_head_reaches(name):
    """1e-16 sets their potential: about +285."""
    density = torch.full((1, 1, 64, 64), 0.01)
    with use_backend(name):
        potential = transport(density, torch.tensor([[12.0, 12.0]]), torch.tensor([0, 1])).potential
    assert abs(potential[0, 0, -1, -1].item() - 285) < 1


@needs_cpp
def test_a_thousand_iterations_in_float32_do_not_drift():
    """The heads' share 1 / 500 is no float32: its rounding error would enter every iteration, with one sign."""
    inputs = make(500, size=(40, 40))
    with use_backend("cpp"):
        found = transport(*inputs, iterations=1000).potential
    want = transport(inputs[0].double(), *inputs[1:], iterations=1000).potential
    torch.testing.assert_close(found.double(), want, rtol=0, atol=1e-4)


@needs_cpp
def test_numbers_below_1e_38_are_taken_as_zero_within_alone():
    with use_backend("cpp"):
        transport(*make(3))
    assert torch.tensor(1e-40) * 0.5 > 0


@needs_cpp
def test_the_same_bits_for_any_number_of_threads():
    inputs, results, before = make(50, 3, 20), [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            results.append(transport(*inputs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for result in results for a, b in zip(result, results[0], strict=True))


@each_backend
def test_opcheck_and_compile(name):
    density, points, offsets = make(6, 0, 2, size=(9, 9))
    density.requires_grad_()
    torch.library.opcheck(torch.ops.dkpnet.transport.default, (density, points, offsets, 8, 10.0, 100, False, name))

    def function(density):
        return transport(density * 2, points, offsets).objective.sum()

    with use_backend(name):
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        for f in (compiled, function):
            (gradient,) = torch.autograd.grad(f(density), density)
            assert gradient.abs().sum() > 0
        assert torch.equal(compiled(density), function(density))


def test_dtypes_and_second_derivative():
    density, points, offsets = make(4)
    assert transport(density.bfloat16(), points, offsets).objective.dtype == torch.float32
    assert transport(density.double(), points, offsets).objective.dtype == torch.float64
    density.requires_grad_()
    (gradient,) = torch.autograd.grad(
        transport(density, points, offsets).objective.square().sum(), density, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_bad_input():
    density, points, offsets = make(4, 2)
    for arguments, message in [
        ((density[:1], points, offsets), "density"),
        ((density, points, offsets - 1), "offsets"),
        ((density, points * float("nan"), offsets), "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            transport(*arguments)
    with pytest.raises(ValueError, match="regularisation"):
        transport(density, points, offsets, regularisation=0.0)
    with pytest.raises(RuntimeError, match="cannot run on the backend 'triton'"), use_backend("triton"):
        transport(density, points, offsets)


@pytest.mark.gpu
@pytest.mark.parametrize("unit", [False, True])
def test_cuda_agrees_with_plain_pytorch(unit):
    density, points, offsets = (t.cuda() for t in make(40, 0, 1, 700, size=(40, 37)))
    results = []
    for name in ("cuda", "cuda", "reference"):
        with use_backend(name):
            results.append(transport(density, points, offsets, unit_coordinates=unit))
    assert torch.equal(results[0].potential, results[1].potential), "the same bits every run"
    torch.testing.assert_close(tuple(results[0]), tuple(results[2]), rtol=2e-6, atol=1e-4)
