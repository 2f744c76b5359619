"""Wrong arguments of operators and constructors in Python."""

import numpy as np
import pytest
import torch
from faults import Fault, answered

from dkpnet_ext import DKPNet, MultiBranch, ops
from dkpnet_ext.data import Domain
from dkpnet_ext.errors import UserError

MODELS = [
    Fault(f"DKPNet({key}={value!r})", (DKPNet, {key: value}), key)
    for key, values in {
        "num_sub": (0, -1, 1.5, "2", None),
        "num_samples": (0, -1, "1"),
        "density_scale": (0, -1, float("nan"), float("inf"), "1", None),
        "min_side": (-5, 0, "x", 1.5),
        "max_side": (-5, 100, "x"),
        "head": ("x", None),
        "channels": (0, -8, "512"),
        "latent_dim": (0, -8, 1.5),
        "out_stride": (0, 1, 3, 8, "4"),
        "attention": ("x", None),
        "num_domains": (-1, 1.5, "2"),
        "domains": ("AB", (1, 2), ("A", "A")),
    }.items()
    for value in values
]
MODELS += [
    Fault("DKPNet of an unknown backbone", (DKPNet, {"backbone": "hrnet_w180"}), "hrnet_w180"),
    Fault("VA with two sub-components", (DKPNet, {"attention": "va", "num_sub": 2}), "va"),
    Fault("MultiBranch without domains", (MultiBranch, {"domains": ()}), "MultiBranch|num_domains"),
]

t = torch.zeros
mu, centers, prior, label = t(2, 4), t(3, 1, 4), t(3, 4), torch.tensor([0, 1])
points, offsets = torch.tensor([[3.0, 4.0], [5.0, 6.0]]), torch.tensor([0, 1, 2])
layers = (t(64, 24), t(64), t(16, 64), t(16), t(8, 16), t(8), t(1, 8), t(1))
branches = [t(2, 8, 8, 8), t(2, 16, 4, 4)]


def variational(**changes):
    named = {"mu": mu, "logvar": mu, "centers": centers, "prior_logvar": prior, "labels": label} | changes
    return lambda: ops.variational(**named)


def density(*args, size=(32, 32), **options):
    return lambda: ops.density(*(args or (points, offsets)), size, **options)


OPERATORS = [
    Fault("reweight: other channels", lambda: ops.reweight(t(2, 4, 3, 3), t(2, 5)), "reweight"),
    Fault("reweight: another batch", lambda: ops.reweight(t(2, 4, 3, 3), t(3, 4)), "reweight"),
    Fault("reweight: three dimensions", lambda: ops.reweight(t(4, 3, 3), t(2, 4)), "reweight"),
    Fault("reweight: integers", lambda: ops.reweight(t(2, 4, 3, 3).int(), t(2, 4)), "reweight|dtype|int"),
    Fault("variational: mu of one dimension", variational(mu=t(4)), "variational"),
    Fault("variational: another logvar", variational(logvar=t(2, 5)), "logvar"),
    Fault("variational: centres of another width", variational(centers=t(3, 1, 5)), "centers"),
    Fault("variational: no centres", variational(centers=t(0, 1, 4), prior_logvar=t(0, 4)), "variational"),
    Fault("variational: other priors", variational(prior_logvar=t(2, 4)), "prior_logvar"),
    Fault("variational: too many labels", variational(labels=torch.tensor([0, 1, 2])), "labels"),
    Fault("variational: labels that are floats", variational(labels=t(2)), "labels"),
    Fault("variational: no samples", variational(num_samples=0), "num_samples"),
    Fault("variational: dropout of 1", variational(dropout=1.0), "dropout"),
    Fault("variational: dropout below 0", variational(dropout=-0.1), "dropout"),
    Fault("variational: dropout of NaN", variational(dropout=float("nan")), "dropout"),
    Fault("variational: two seeds", variational(seed=torch.tensor([1, 2])), "seed"),
    Fault("variational: a seed that is a float", variational(seed=t(1)), "seed"),
    Fault("variational: another eps", variational(eps=t(1, 3, 4)), "eps"),
    Fault("variational: mixed dtypes", variational(logvar=mu.double()), "logvar must be torch.float32"),
    Fault("density: points of three columns", density(t(2, 3), offsets), "points|density"),
    Fault("density: points of another dtype", density(points.double(), offsets), "density|float32"),
    Fault("density: offsets that do not end at M", density(points, torch.tensor([0, 1, 5])), "offsets"),
    Fault("density: offsets that fall", density(points, torch.tensor([0, 2, 1])), "offsets"),
    Fault("density: offsets that are floats", density(points, offsets.float()), "offsets"),
    Fault("density: offsets below 0", density(points, torch.tensor([-1, 1, 2])), "offsets"),
    Fault("density: a size of 0", density(size=(0, 32)), "height"),
    Fault("density: a size below 0", density(size=(32, -1)), "width"),
    Fault("density: a huge size", density(size=(10**10, 32)), "height"),
    Fault("density: a stride of 0", density(stride=0), "stride"),
    Fault("density: sigma of 0", density(sigma=0.0), "sigma"),
    Fault("density: sigma of NaN", density(sigma=float("nan")), "sigma"),
    Fault("density: sigmas of another length", density(sigma=t(5)), "sigma"),
    Fault("density: truncate below 0", density(truncate=-1.0), "truncate"),
    Fault("knn_sigma: k of 0", lambda: ops.knn_sigma(points, offsets, k=0), "k"),
    Fault("attended_head: no branches", lambda: ops.attended_head([], None, *layers, (8, 8)), "head|branch"),
    Fault("attended_head: another batch", lambda: ops.attended_head(branches, t(3, 64), *layers, (8, 8)), "attention"),
    Fault(
        "attended_head: branches of two batches",
        lambda: ops.attended_head([branches[0], t(1, 16, 4, 4)], None, *layers, (8, 8)), "branch|batch",
    ),
    Fault("attended_head: other channels", lambda: ops.attended_head(branches[:1], None, *layers, (8, 8)), "neck|chann"),
    Fault("attended_head: a size of 0", lambda: ops.attended_head(branches, None, *layers, (0, 8)), "size|head"),
    Fault("use_backend: unknown", lambda: ops.use_backend("cudnn").__enter__(), "cudnn"),
]  # fmt: skip
gray = np.zeros((48, 64), np.uint8)
TRAIN = [
    Fault("Domain: points are None", [(gray, None)], "points"),
    Fault("Domain: points of three columns", [(gray, [[1, 2, 3]])], "shape"),
    Fault("Domain: points are a word", [(gray, "abc")], "points"),
    Fault("Domain: points are a dictionary", [(gray, {"x": 1})], "points"),
    Fault("Domain: points are NaN", [(gray, [[float("nan"), 1]])], "NaN"),
    Fault("Domain: points are complex", [(gray, [[1j, 2]])], "numbers"),
    Fault("Domain: points far outside", [(gray, [[1000, 1000]])], "far outside"),
    Fault("Domain: the image is None", [(None, [])], "NoneType"),
    Fault("Domain: the image is boolean", [(gray > 0, [])], "bool"),
    Fault("Domain: the image holds floats", [(gray.astype(float), [])], "float64"),
    Fault("Domain: two channels", [(np.zeros((48, 64, 2), np.uint8), [])], "48, 64, 2"),
    Fault("Domain: no such file", [("none.png", [])], "none.png"),
    Fault("Domain: a small image", [(gray[:8], [])], "too small"),
    Fault("Domain: an image without points", [gray], "no pair"),
    Fault("Domain: three values", [(gray, [], 1)], "no pair"),
    Fault("Domain: a number", [5], "no pair"),
]
TABLE = [*MODELS, *OPERATORS, *TRAIN]


@pytest.mark.parametrize("fault", TRAIN, ids=lambda fault: fault.name)
def test_domain(fault):
    answered(lambda: Domain.from_arrays("mine", train=fault.given), fault.answer)


@pytest.mark.parametrize("fault", MODELS, ids=lambda fault: fault.name)
def test_constructor(fault):
    kind, arguments = fault.given
    named = {"backbone": "hrnet_w18_small", "channels": 64, "domains": ("A", "B")} | arguments
    answered(lambda: kind(**named), fault.answer, (ValueError, TypeError, UserError))


@pytest.mark.parametrize("fault", OPERATORS, ids=lambda fault: fault.name)
def test_operator(fault):
    answered(fault.given, fault.answer, (ValueError, TypeError))
