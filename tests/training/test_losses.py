"""The six losses: their formulas in float64, batches without people, a step of training with every kind of network."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from dkpnet_ext import ops
from dkpnet_ext.errors import UserError
from dkpnet_ext.models import CounterOutput, load_model, registry, tiling
from dkpnet_ext.models.zero_inflated import BINS, OUTPUTS, bin_of, zero_inflated
from dkpnet_ext.train import parse
from dkpnet_ext.training import PRESETS, losses
from dkpnet_ext.training.config import LossConfig
from dkpnet_ext.training.losses import LINKS, Annotation, density_loss
from dkpnet_ext.training.run import build_model

LOSSES = list(LINKS)


def heads(points, counts=(3, 0, 2), size=(48, 64), stride=8):
    points = torch.tensor(points, dtype=torch.float32).view(-1, 2)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    return Annotation(points, offsets, torch.full((len(counts),), 48.0), size, stride)


SOME = heads([[10, 12], [40.5, 3], [41, 3.5], [5, 5], [60, 44]])
NOBODY = heads([], (0, 0, 0))


def output(people=SOME, samples=1, seed=0):
    """A made-up output whose tensors have gradients."""
    torch.manual_seed(seed)
    rows, (height, width) = samples * len(people.sides), (side // people.stride for side in people.size)
    density = (0.3 * torch.rand(rows, 1, height, width)).requires_grad_()
    return CounterOutput(density, cells=torch.randn(rows, OUTPUTS, height, width, requires_grad=True))


def similarity(x, y):
    """The product of the similarities of five scales, cell by cell."""
    height, width = x.shape
    peak = y.max() if float(y.max()) > 0 else 1.0
    x, y, product = x * 255 / peak, y * 255 / peak, 1.0
    for dilation, exponent in ((1, 0.0448), (2, 0.2856), (3, 0.3001), (6, 0.2363), (9, 0.1333)):
        places = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
        weights = torch.tensor([math.exp(-(i * i + j * j) / 2) for i, j in places]).double()
        weights = weights / weights.sum()

        def mean(maps, dilation=dilation, places=places, weights=weights):
            out = torch.zeros_like(maps)
            for (i, j), weight in zip(places, weights, strict=True):
                for row in range(max(0, -i * dilation), min(height, height - i * dilation)):
                    for column in range(max(0, -j * dilation), min(width, width - j * dilation)):
                        source = torch.zeros_like(maps)
                        source[row, column] = 1
                        out = out + source * weight * maps[row + i * dilation, column + j * dilation]
            return out

        mx, my = mean(x), mean(y)
        vx, vy, both = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        cells = (2 * mx * my + c1) * (2 * both + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        product = product * cells.mean().clamp_min(1e-6) ** exponent
        x, y = mx, my
    return product


def plain(name, result, people, scale, images=3):
    """Every loss written out image by image, in float64; returns it and its input."""
    x = (result.cells if name == "zip" else result.density).detach().double().requires_grad_()
    total, (height, width), stride = 0.0, x.shape[2:], people.stride
    for image in range(len(people.sides)):
        points = people.points[people.offsets[image] : people.offsets[image + 1]].double()
        counts = torch.zeros(height, width, dtype=torch.float64)
        for px, py in points.tolist():
            counts[int(py // stride), int(px // stride)] += 1
        density = x[image, 0]
        if name == "mse":
            target = ops.density(
                points.float(), torch.tensor([0, len(points)]), people.size, stride=stride, sigma=4.0
            ).double()
            total = total + scale**2 * (density - target[0, 0]).square().sum() / 2
        elif name == "poisson":
            for k in (1, 2, 4):
                rate, count = (
                    F.avg_pool2d(v[None, None], k, ceil_mode=True, divisor_override=1) for v in (density, counts)
                )
                total = total + (rate - count * (rate + 1e-8).log()).sum() / 3
        elif name == "bayesian":
            total = (
                total
                + ops.bayesian(
                    x[image : image + 1], points.float(), torch.tensor([0, len(points)]), 48.0, stride=stride
                ).sum()
            )
        elif name == "ssim":
            target = ops.density(
                points.float(), torch.tensor([0, len(points)]), people.size, stride=stride, sigma=4.0
            ).double()
            total = total + 1 - similarity(x[image, 0], target[0, 0])
        elif name == "dm":
            total = total + (density.sum() - len(points)).abs()
            if len(points):
                offsets = torch.tensor([0, len(points)])
                objective = ops.transport(x[image : image + 1], points.float(), offsets, stride=stride).objective.sum()
                shares = density / (density.sum() + 1e-6) - counts / (len(points) + 1e-6)
                total = total + 0.1 * images * objective + 0.01 * len(points) * shares.abs().sum()
        else:
            counts = counts * scale
            logits = x[image]
            pi = torch.softmax(torch.stack([logits[0], logits[1] - 3.0]), 0)[0]
            weights = torch.softmax(logits[2:] - 0.7 * torch.arange(len(BINS)).double()[:, None, None], 0)
            rate = sum(w * (first + last) / 2 for w, (first, last) in zip(weights, BINS, strict=True))
            mean = (1 - pi) * rate
            for i in range(height):
                for j in range(width):
                    c = counts[i, j]
                    if c == 0:
                        total = total - (pi[i, j] + (1 - pi[i, j]) * (-rate[i, j]).exp()).log()
                    else:
                        number = next(n for n, (_, last) in enumerate(BINS) if c <= last)
                        probability = (1 - pi[i, j]) * rate[i, j] ** c * (-rate[i, j]).exp() / torch.lgamma(c + 1).exp()
                        total = total - probability.log() - weights[number, i, j].log()
            for k, weight in ((1, 0.25), (2, 0.5), (4, 1.0)):
                for top in range(0, height, k):
                    for left in range(0, width, k):
                        part = (slice(top, top + k), slice(left, left + k))
                        total = total + weight * (mean[part].sum() - counts[part].sum()).abs()
            total = total + (mean.sum() - counts.sum()).abs()
    return total / len(people.sides), x


def gradient(loss, x):
    (slope,) = torch.autograd.grad(loss, x)
    return slope.double()


@pytest.mark.parametrize("people", [SOME, NOBODY], ids=["some", "nobody"])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_formulas(name, people):
    result = output(people)
    x = result.cells if name == "zip" else result.density
    scale = 100.0 if name == "mse" else 2.0
    loss = density_loss(result, people, LossConfig(loss=name), scale, 3)
    expected, exact = plain(name, result, people, scale)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(gradient(loss, x), gradient(expected, exact), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_latent_samples_are_averaged(name):
    result = output(samples=2)
    config = LossConfig(loss=name)
    whole = density_loss(result, SOME, config, 1.0, 3)
    halves = zip(result.density.split(3), result.cells.split(3), strict=True)
    parts = [density_loss(CounterOutput(d, cells=c), SOME, config, 1.0, 3) for d, c in halves]
    torch.testing.assert_close(whole, sum(parts) / 2)


def test_transport_is_summed_over_the_steps_images():
    """However the batch is split into passes, the mean over passes is the whole batch's loss."""
    result, config = output(), LossConfig(loss="dm")
    whole = density_loss(result, SOME, config, 1.0, 3)
    parts = []
    for image in range(3):
        points = SOME.points[SOME.offsets[image] : SOME.offsets[image + 1]]
        alone = heads(points.tolist(), (len(points),))
        parts.append(density_loss(CounterOutput(result.density[image : image + 1]), alone, config, 1.0, 3))
    torch.testing.assert_close(whole, sum(parts) / 3)


@pytest.mark.parametrize("name", ["poisson", "zip", "bayesian", "dm"])
def test_only_mse_makes_a_map(name, monkeypatch):
    monkeypatch.setattr(losses.ops, "density", lambda *_, **__: pytest.fail("a map"))
    if name == "bayesian":
        monkeypatch.setattr(losses, "count_cells", lambda *_: pytest.fail("a map"))
    density_loss(output(), SOME, LossConfig(loss=name), 1.0, 3)


def test_bins_are_single_counts_then_pairs():
    assert BINS[:9] == (*((n, n) for n in range(1, 9)), (9, 10))
    assert bin_of(torch.tensor([1.0, 2, 8, 9, 10, 11, 16, 40])).tolist() == [0, 1, 7, 8, 8, 9, 11, 11]


def test_an_untrained_cell_expects_a_tenth_of_a_head():
    assert 0.05 < float(zero_inflated(torch.zeros(1, OUTPUTS, 1, 1)).density) < 0.2


@pytest.mark.parametrize("system", ["jt", "va", "mb", "csrnet", "canet", "sfcn", "dssinet", "vgg19", "mcnn-se"])
def test_every_network_has_the_outputs_of_zip(system, tmp_path):
    """Trained form and counted form agree, and config.json brings the head back."""
    torch.manual_seed(0)
    model = registry.create(
        system, backbone="hrnet_w18_small", channels=8, latent_dim=4, domains=["A", "B"], num_domains=2, link="zip",
        density_scale=100.0,
    )  # fmt: skip
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    trained = model.train()(images, torch.tensor([0, 1]))
    assert trained.cells.shape == (2, OUTPUTS, *trained.density.shape[2:])
    torch.testing.assert_close(zero_inflated(trained.cells).density, trained.density * 100)
    model.eval().save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    counted = loaded(images)
    assert loaded.link == "zip" and counted.cells is None
    assert counted.density.shape[1] == 1 and bool((counted.density > 0).all())
    torch.testing.assert_close(counted.density, model(images).density)


def test_a_counter_with_a_factor_goes_on_learning_the_counts_it_gives():
    """Under zip the density is the cells' divided by density_scale: labels are compared with the density, not with the cells."""
    torch.manual_seed(0)
    cells = torch.zeros(1, OUTPUTS, 4, 4)
    cells[:, 1] = 20.0  # every cell holds heads,
    cells[:, 3] = 40.0  # and two of them
    people = heads([(x, y) for y in range(4, 32, 8) for x in range(4, 32, 8)], (16,), (32, 32))  # one in each cell
    settings = LossConfig(loss="zip")

    def loss(scale):
        output = CounterOutput(zero_inflated(cells).density / scale, cells=cells)
        return float(density_loss(output, people, settings, scale, images=1))

    assert loss(2.0) < loss(1.0) / 2 and loss(2.0) < loss(4.0) / 2


def test_zip_in_tiles_and_exported(tmp_path, monkeypatch):
    from dkpnet_ext.counting.export import check_exported, export_model

    torch.manual_seed(0)
    for system in ("mcnn", "se"):
        model = registry.create(system, backbone="hrnet_w18_small", channels=8, link="zip").eval()
        image = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
        whole = model.examine(image, as_is=True).density
        with monkeypatch.context() as patch:
            patch.setattr(tiling, "LIMIT", 1)
            patch.setattr(tiling, "TILE", 64)
            torch.testing.assert_close(model.examine(image, as_is=True).density, whole, rtol=1e-4, atol=1e-6)
    model = registry.create("mcnn", link="zip").eval()
    export_model(model, tmp_path / "counter.pt2")
    assert check_exported(model, tmp_path / "counter.pt2") < 1e-3


@pytest.mark.parametrize(
    ("name", "system"),
    [(name, system) for name in LOSSES for system in ("jt", "se", "dkpnet")]  # dkpnet trains VA, then InVA
    + [("zip", "mb"), ("dm", "mb"), ("zip", "mcnn-inva"), ("bayesian", "mcnn-inva")],
)
def test_every_loss_trains_every_kind_of_network(name, system, run, tmp_path):
    folder = run(
        "--loss", name, "--system", system, "--epochs", 1, "--batch", 8, "--accumulate", 2, "--crop", 64,
        "--output", tmp_path / "run",
    )  # fmt: skip
    model = load_model(folder)
    assert model.link == LINKS[name]
    assert (folder / "results.md").exists()


def test_what_does_not_fit_is_one_line():
    with pytest.raises(UserError, match="--bayesian-form 2021: needs --loss bayesian, not dm"):
        parse(["quick", "--loss", "dm", "--bayesian-form", "2021"]).check()
    with pytest.raises(UserError, match="--bayesian-targets half: needs --loss bayesian, not mse"):
        parse(["quick", "--bayesian-targets", "half"]).check()
    with pytest.raises(UserError, match="huber"):
        parse(["quick", "--loss", "huber"])


def test_similarity_of_equal_maps_is_one_and_of_empty_ones_too():
    target = ops.density(SOME.points, SOME.offsets, SOME.size, stride=8, sigma=4.0)
    assert float(losses.ssim_loss(target, target)) == pytest.approx(0, abs=1e-5)
    nothing = torch.zeros(1, 1, 6, 8)
    assert float(losses.ssim_loss(nothing, nothing)) == pytest.approx(0, abs=1e-6)
    assert float(losses.ssim_loss(nothing + 0.1, nothing)) > 0.5


def test_targets_are_what_the_bayesian_loss_expects():
    result = output()
    targets = torch.tensor([1, 0.4, 1, 1, 0.7])
    loss = density_loss(result, SOME._replace(targets=targets), LossConfig(loss="bayesian"), 1.0, 3)
    expected = ops.bayesian(result.density, SOME.points, SOME.offsets, SOME.sides, targets=targets).mean()
    plain_loss = density_loss(result, SOME, LossConfig(loss="bayesian"), 1.0, 3)
    assert float(loss.detach()) == float(expected.detach()) != float(plain_loss.detach())


@pytest.mark.parametrize("border", ["half", "fraction"])
def test_a_run_with_heads_at_the_border(border, run, tmp_path):
    folder = run(
        "--loss", "bayesian", "--bayesian-targets", border, "--system", "jt", "--epochs", 1, "--batch", 8, "--crop", 64,
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert (folder / "results.md").exists()


def test_the_squared_errors_scale_limits_no_other_loss():
    config = PRESETS["scratch"].config
    assert build_model(config, 1, ["a"]).density_scale == 100
    poisson = copy.deepcopy(config)
    poisson.loss.loss = "poisson"
    assert build_model(poisson, 1, ["a"]).density_scale == 1
