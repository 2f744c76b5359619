"""Density targets against a dense NumPy construction, their exact mass, and the adaptive sigmas against brute force.

On the Triton interpreter the kernel is tested by test_triton.py.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dkpnet_ext.ops import density, knn_sigma, native, reference, use_backend

BACKENDS = [
    "reference",
    pytest.param("cpp", marks=pytest.mark.skipif(native.module is None, reason=str(native.missing))),
    pytest.param("cuda", marks=pytest.mark.gpu),
    pytest.param("triton", marks=pytest.mark.gpu),
]
each_backend = pytest.mark.parametrize("name", BACKENDS)


def run(name, points, offsets, size, **options):
    """`density` on the backend's device, result on the CPU."""
    device = "cuda" if name in ("cuda", "triton") else "cpu"
    tensors = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    with use_backend(name):
        return density(points.to(device), offsets.to(device), size, **tensors).cpu()


def make_batch(*images):
    """(points, offsets) of images given as lists of (x, y)."""
    points = torch.tensor([p for image in images for p in image], dtype=torch.float32).reshape(-1, 2)
    return points, torch.tensor([0, *np.cumsum([len(image) for image in images])])


def dense_target(points, size, stride, sigmas, truncate=1.75):
    """Independent of the package: one full two-dimensional stamp per head, in float64, then block sums."""
    height, width = size
    canvas = np.zeros((height, width))
    for (x, y), sigma in zip(points, sigmas, strict=True):
        if not (np.isfinite(x) and np.isfinite(y)) or not (0 <= x < width and 0 <= y < height):
            continue
        column, row = math.floor(x), math.floor(y)
        radius = math.floor(truncate * sigma + 0.5)
        rows, columns = np.mgrid[0:height, 0:width]
        reached = (abs(rows - row) <= radius) & (abs(columns - column) <= radius)
        with np.errstate(divide="ignore", invalid="ignore"):
            stamp = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2)) if radius else reached
        stamp = np.where(reached, stamp, 0.0)
        canvas += stamp / stamp.sum()
    padded = np.pad(canvas, ((0, -height % stride), (0, -width % stride)))
    return padded.reshape(padded.shape[0] // stride, stride, -1, stride).sum((1, 3))


def heads_inside(points, size):
    pixel = torch.floor(points)
    limit = torch.tensor([size[1], size[0]])
    return int(((pixel >= 0) & (pixel < limit)).all(1).sum())  # false for NaN


@each_backend
@pytest.mark.parametrize("size, stride", [((31, 40), 1), ((32, 48), 4), ((33, 47), 2), ((29, 50), 7), ((5, 6), 64)])
def test_against_dense_stamps(name, size, stride):
    rng = np.random.default_rng(stride)
    images = [rng.uniform(-5, max(size) + 5, (count, 2)).tolist() for count in (0, 1, 30)]
    images[2][:4] = [[0, 0], [size[1] - 1e-3, size[0] - 1e-3], [7.5, 3.5], [7.5, 3.5]]
    points, offsets = make_batch(*images)
    maps = run(name, points, offsets, size, stride=stride)
    assert maps.shape == (3, 1, -(-size[0] // stride), -(-size[1] // stride)) and maps.dtype == torch.float32
    for image, target in zip(images, maps[:, 0], strict=True):
        expected = dense_target(np.float32(image).reshape(-1, 2), size, stride, [4.0] * len(image))
        np.testing.assert_allclose(target, expected, rtol=1e-5, atol=1e-8)


@each_backend
def test_adaptive_sigma_against_dense_stamps(name):
    size, sigmas = (40, 61), [0.0, 0.2, 0.286, 1.0, 2.0, 5.5, 30.0, 1000.0]
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 40, (len(sigmas), 2)).tolist()
    points, offsets = make_batch(image)
    maps = run(name, points, offsets, size, sigma=torch.tensor(sigmas))
    expected = dense_target(np.float32(image), size, 4, np.float32(sigmas).astype(np.float64))
    np.testing.assert_allclose(maps[0, 0], expected, rtol=1e-5, atol=1e-8)


@each_backend
def test_sigmas_without_a_width_are_points(name):
    points, offsets = make_batch([[9.5, 6.5]] * 4)
    sigma = torch.tensor([0.0, -1.0, torch.nan, -torch.inf])
    maps = run(name, points, offsets, (12, 20), sigma=sigma, stride=1)
    assert maps[0, 0, 6, 9] == 4 and maps.sum() == 4
    flat = run(name, points[:1], offsets.clamp(max=1), (12, 20), sigma=torch.tensor([torch.inf]), stride=1)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 240))


coordinate = st.one_of(
    st.floats(-20, 220, width=32),
    st.integers(-3, 203).map(float),
    st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e30, -1e-30]),
)
point = st.tuples(coordinate, coordinate)


@each_backend
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_sum_is_the_number_of_heads_inside(name, data):
    """At every crop, scale, stride and border; heads on one pixel are counted each, those outside are not."""
    images = data.draw(st.lists(st.lists(point, max_size=12), max_size=3))
    for image in images:
        image.extend(image[:2])  # heads on one pixel
    points, offsets = make_batch(*images)
    scale = data.draw(st.floats(0.1, 3))
    points = points * scale - torch.tensor(data.draw(st.tuples(st.floats(-50, 150), st.floats(-50, 150))))
    size = data.draw(st.tuples(st.integers(1, 200), st.integers(1, 200)))
    options = {"stride": data.draw(st.integers(1, 9)), "truncate": data.draw(st.sampled_from([1.75, 0.5, 3.0]))}
    options["sigma"] = data.draw(st.sampled_from([4.0, 0.3, 15.0, torch.linspace(0, 40, len(points))]))
    maps = run(name, points, offsets, size, **options)
    assert (maps >= 0).all()
    for b, target in enumerate(maps.double()):
        count = heads_inside(points[offsets[b] : offsets[b + 1]], size)
        assert abs(target.sum().item() - count) <= 1e-5 * count


@each_backend
def test_dense_crowds_are_exact_and_repeatable(name):
    """Twenty thousand heads on one pixel: plain float32 sums would drift by more than 1e-5."""
    points, offsets = make_batch([[50.2, 51.9]] * 20000, [[3.0, 99.0]])
    maps = run(name, points, offsets, (100, 100))
    torch.testing.assert_close(
        maps[0], 20000 * run(name, points[:1], offsets.clamp(max=1), (100, 100))[0], rtol=1e-6, atol=0
    )
    assert abs(maps[0].double().sum().item() - 20000) <= 0.02
    points, offsets = torch.rand(3000, 2) * 100, torch.tensor([0, 100, 3000])
    first = run(name, points, offsets, (100, 100))
    assert all(torch.equal(first, run(name, points, offsets, (100, 100))) for _ in range(3))


@pytest.mark.skipif(native.module is None, reason=str(native.missing))
def test_same_bits_on_any_number_of_threads():
    points, offsets = torch.rand(900, 2) * 100, torch.arange(10) * 100
    before = torch.get_num_threads()
    try:
        maps = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            maps.append(run("cpp", points, offsets, (100, 100)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


@each_backend
def test_layouts_and_empty_batches(name):
    points, offsets = torch.rand(2, 40).mul(30), torch.tensor([0, 9, 10, 9, 40])[[0, 0, 1, 1, 4, 4]]
    expected = run(name, points.t().contiguous(), offsets.contiguous(), (30, 30))
    assert torch.equal(run(name, points.t(), offsets.repeat_interleave(2)[::2], (30, 30)), expected)
    nothing, none = torch.empty(0, 2), torch.zeros(1, dtype=torch.int64)
    assert run(name, nothing, none, (30, 31)).shape == (0, 1, 8, 8)
    assert (run(name, nothing, torch.zeros(3, dtype=torch.int64), (30, 31)) == torch.zeros(2, 1, 8, 8)).all()


def test_bad_input_is_one_clear_error():
    points, offsets = make_batch([[1, 2], [3, 4]])
    for error, message, call in [
        (ValueError, r"points \[M, 2\]", lambda: density(points[:, :1], offsets, (8, 8))),
        (ValueError, r"offsets \[B \+ 1\]", lambda: density(points, offsets[:0], (8, 8))),
        (TypeError, "float32 points", lambda: density(points.double(), offsets, (8, 8))),
        (TypeError, "int64 offsets", lambda: density(points, offsets.int(), (8, 8))),
        (ValueError, "are on", lambda: density(points, offsets.to("meta"), (8, 8))),
        (ValueError, "height", lambda: density(points, offsets, (0, 8))),
        (ValueError, "stride", lambda: density(points, offsets, (8, 8), stride=0)),
        (ValueError, "sigma must be", lambda: density(points, offsets, (8, 8), sigma=0.0)),
        (ValueError, "sigma must be", lambda: density(points, offsets, (8, 8), sigma=math.nan)),
        (ValueError, "sigma must be", lambda: density(points, offsets, (8, 8), sigma=torch.ones(3))),
        (TypeError, "sigma must be", lambda: density(points, offsets, (8, 8), sigma=torch.ones(2).double())),
        (ValueError, "truncate", lambda: density(points, offsets, (8, 8), truncate=-1.0)),
        (ValueError, "offsets must rise", lambda: density(points, offsets + 1, (8, 8))),
        (ValueError, "offsets must rise", lambda: density(points, torch.tensor([0, 1]), (8, 8))),
        (ValueError, "offsets must rise", lambda: density(points, torch.tensor([0, 2, 1, 2]), (8, 8))),
        (ValueError, "k must be", lambda: knn_sigma(points, offsets, k=0)),
        (ValueError, "offsets must rise", lambda: knn_sigma(points, offsets[:1])),
    ]:
        with pytest.raises(error, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_operators_are_well_formed():
    points, offsets = make_batch([[1, 2], [3, 4]], [], [[5, 6]])
    for arguments in (
        (points, offsets, None, 4.0, 1.75, 30, 31, 4, "cpp"),
        (points, offsets, torch.ones(3), 0.0, 3.0, 9, 9, 2, "reference"),
    ):
        torch.library.opcheck(torch.ops.dkpnet.density.default, arguments)
    torch.library.opcheck(torch.ops.dkpnet.knn_sigma.default, (points, offsets, 3, 0.3, 4.0))


def test_compiles_without_a_graph_break():
    def targets(points, offsets):
        return density(points, offsets, (40, 52), sigma=knn_sigma(points, offsets)).sum((1, 2, 3))

    points, offsets = make_batch([[1, 2], [3, 4], [5, 9]], [[30, 31]])
    compiled = torch.compile(targets, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(points, offsets), torch.tensor([3.0, 1.0]))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_captured_in_a_graph(name):
    """No host synchronisation."""
    points, offsets = (torch.rand(300, 2) * 100).cuda(), torch.tensor([0, 100, 300]).cuda()

    def targets():
        return density(points, offsets, (100, 100), sigma=knn_sigma(points, offsets))

    with use_backend(name):
        expected = targets()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = targets()
        graph.replay()
        assert torch.equal(captured, expected)


# ---- knn_sigma ----------------------------------------------------------------------------------------------------


def brute_force_sigmas(points, k, beta, default):
    sigmas = []
    for i, head in enumerate(points):
        others = [math.dist(head, other) for j, other in enumerate(points) if j != i and np.isfinite(other).all()]
        nearest = sorted(others)[:k]
        usable = len(nearest) > 0 and np.isfinite(head).all()
        sigmas.append(beta * sum(nearest) / len(nearest) if usable else default)
    return sigmas


@pytest.mark.parametrize(
    "implementation",
    [
        lambda *a: knn_sigma(a[0], a[1], k=a[2], beta=a[3], default=a[4]),
        reference.knn_sigma,
        pytest.param(
            lambda *a: knn_sigma(a[0].cuda(), a[1].cuda(), k=a[2], beta=a[3], default=a[4]).cpu(), marks=pytest.mark.gpu
        ),
    ],
    ids=["k-d tree", "brute force in torch", "CUDA"],
)
@pytest.mark.parametrize("k", [1, 3, 50])
def test_knn_sigma(implementation, k):
    rng = np.random.default_rng(k)
    images = [rng.uniform(900, 1000, (count, 2)).tolist() for count in (0, 1, 2, 3, 40)]
    images[4][5:9] = [images[4][5]] * 4  # heads on one pixel
    images[4][20][0] = math.nan
    images[3].append([math.inf, 0.0])
    points, offsets = make_batch(*images)
    expected = [s for image in images for s in brute_force_sigmas(np.float32(image).tolist(), k, 0.3, 7.0)]
    sigmas = implementation(points, offsets, k, 0.3, 7.0)
    assert sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_knn_sigma_in_blocks_of_rows():
    points, offsets = torch.rand(2500, 2) * 500, torch.tensor([0, 1200, 2500])
    torch.testing.assert_close(
        reference.knn_sigma(points, offsets, 3, 0.3, 4.0), knn_sigma(points, offsets), rtol=1e-5, atol=1e-6
    )
    nothing = torch.empty(0, 2), torch.zeros(2, dtype=torch.int64)
    assert knn_sigma(*nothing).shape == reference.knn_sigma(*nothing, 3, 0.3, 4.0).shape == (0,)
