"""Intervals that hold, pictures that are unlike the training pictures, and the file that keeps them."""

import json
import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image

from dkpnet_ext import evaluate
from dkpnet_ext.counting.pictures import Prediction
from dkpnet_ext.data import Domain
from dkpnet_ext.errors import UserError
from dkpnet_ext.evaluation.calibration import calibrate, calibrate_checkpoint, fewest, gaussians, like_limit, quantile
from dkpnet_ext.evaluation.metrics import Coverage, coverage
from dkpnet_ext.models import DKPNet, load_model
from dkpnet_ext.models.calibration import FILE, Assessment, Calibration, describe
from dkpnet_ext.predict import line


def made(**changes) -> Calibration:
    """Two data sets in two dimensions, 10 apart, with unit covariance."""
    values = {
        "names": ("A", "B"),
        "centres": torch.tensor([[0.0, 0.0], [10.0, 0.0]]),
        "whitening": torch.eye(2).repeat(2, 1, 1),
        "limit": 2.0,
        "quantiles": {80: {"A": 0.1, "": 0.2}, 90: {"": 0.5}},
        "pictures": {"A": 20, "B": 3, "": 23},
    }
    return Calibration(**{**values, **changes})


def test_the_quantile_by_hand():
    scores = np.array([5.0, 1, 4, 2, 3, 6, 9, 8, 7])
    assert quantile(scores, 0.9) == 9  # ceil(10 * 0.9) = 9
    assert quantile(scores, 0.8) == 8
    assert quantile(scores[:8], 0.9) is None  # ceil(9 * 0.9) = 9 of 8
    assert quantile(scores[:0], 0.8) is None
    assert quantile(scores, 0.8, spare=1) == 9 and quantile(scores, 0.9, spare=1) is None
    assert [fewest(0.8), fewest(0.9), fewest(0.8, 1), fewest(0.9, 1)] == [4, 9, 9, 19]


def test_intervals_cover_what_they_promise():
    """On new pictures drawn like the calibration pictures: 80 and 90 %, whatever the errors' distribution."""
    rng = np.random.default_rng(0)
    for level in (0.8, 0.9):
        inside = [rng.exponential() <= quantile(rng.exponential(size=40), level) for _ in range(4000)]
        assert level - 0.02 < np.mean(inside) < level + 1 / 41 + 0.02


def test_a_picture_takes_the_interval_of_its_data_set():
    known = made()
    said = known.assess(torch.tensor([1.0, 0.0]), 9.0)
    assert (said.nearest, said.unlike, said.words()) == ("A", False, "like its pictures of A")
    assert said.distance == pytest.approx(math.sqrt(0.5) / 2)
    assert said.intervals == {80: (8.0, 10.0), 90: (4.0, 14.0)} and said.pictures == {80: 20, 90: 23}
    said = known.assess(torch.tensor([9.0, 0.0]), 9.0)
    assert (said.nearest, said.intervals[80]) == ("B", (7.0, 11.0))  # too few of its own: that of all
    assert known.assess(torch.zeros(2), 0.0).intervals[90] == (0.0, 0.5)  # never below 0
    far = known.assess(torch.tensor([5.0, 0.0]), 9.0)
    assert far.unlike and far.intervals == {} and "unlike" in far.words()
    assert not made(limit=math.inf).assess(torch.tensor([1e6, 0.0]), 9.0).unlike  # too few pictures told


def test_the_line_says_on_how_many_pictures_an_interval_was_checked():
    found = Prediction("a.jpg", 10.0, intervals={"80": [8.0, 12.0], "90": [7.5, 13.2]}, interval_pictures={"90": 17})
    assert line(found) == "a.jpg: 10.0 (90 %: 7 to 14, as on 17 checked pictures)"
    assert line(replace(found, interval_pictures={})) == "a.jpg: 10.0 (90 %: 7 to 14)"


def test_gaussians_measure_mahalanobis_distances():
    rng = np.random.default_rng(0)
    mixing = np.array([[3.0, 0.0], [2.0, 0.5]])
    samples = [rng.normal(size=(4000, 2)) @ mixing.T + shift for shift in ([0, 0], [100, 5])]
    centres, whitening = gaussians(samples)
    known = made(centres=centres, whitening=whitening)
    point = samples[1].mean(0) + mixing @ [1.0, -1.0]
    wanted = math.sqrt((np.linalg.solve(mixing, point - samples[1].mean(0)) ** 2).mean())
    assert known.distances(torch.from_numpy(point))[1] == pytest.approx(wanted, rel=0.05)
    constant = [np.column_stack([sample, np.zeros(len(sample))]) for sample in samples]  # a feature that is never there
    assert all(torch.isfinite(part).all() for part in gaussians(constant))


def test_coverage_by_hand():
    said = [
        Assessment("A", 0.5, {80: (8.0, 12.0), 90: (5.0, 15.0)}),
        Assessment("A", 0.5, {80: (0.0, 2.0), 90: (0.0, 4.0)}),
        Assessment("A", 2.0),
    ]
    rows = coverage(said, [10.0, 1.0, 50.0], [13, 0, 4])
    assert rows[0] == Coverage(1 / 3, 80, 0.5, pytest.approx((4 / 11 + 1) / 2))
    assert rows[1] == Coverage(1 / 3, 90, 1.0, pytest.approx((10 / 11 + 2) / 2))
    (nothing,) = coverage(said[2:], [1.0], [1])
    assert nothing.unlike == 1 and math.isnan(nothing.covered)


@pytest.fixture(scope="module")
def model() -> DKPNet:
    torch.manual_seed(0)
    arguments = {"channels": 32, "domains": ["bright", "dark"], "min_side": 32, "num_sub": 1}
    return alive(DKPNet("test_efficientnet", **arguments)).eval()


@pytest.fixture(scope="module")
def pictures() -> dict[str, Domain]:
    """Bright and dark noise."""
    rng = np.random.default_rng(0)

    def pairs(count: int, low: int, high: int) -> list:
        return [(rng.integers(low, high, (48, 64, 3), np.uint8), rng.random((8, 2)) * 40) for _ in range(count)]

    limits = {"bright": (120, 256), "dark": (0, 60)}
    return {
        name: Domain.from_arrays(name, pairs(30, *pair), pairs(12, *pair), pairs(20, *pair), min_side=32)
        for name, pair in limits.items()
    }


def test_a_counter_is_calibrated_saved_and_loaded(model, pictures, tmp_path):
    train, val = ({name: getattr(d, part) for name, d in pictures.items()} for part in ("train", "val"))
    nobody = {"nobody": [replace(item, points=np.zeros((0, 2), np.float32)) for item in train["dark"]]}
    known = calibrate(model, train | nobody, val | {"nobody": val["dark"]})
    assert known.names == ("bright", "dark") and known.pictures == {"bright": 12, "dark": 12, "": 24}
    assert set(known.quantiles[90]) == {"bright", "dark", ""}
    few = {"dark": np.arange(1.0, 11)}  # of cross-validation: they take the place of the held-out pictures' errors
    mixed = calibrate(model, train, val, spare=1, crossed=few)
    assert mixed.pictures == {"bright": 12, "dark": 10, "": 22}
    assert mixed.quantiles[80]["dark"] == 9 and mixed.quantiles[90]["dark"] == 10
    assert mixed.quantiles[80]["bright"] >= known.quantiles[80]["bright"] and "bright" not in mixed.quantiles[90]
    alone = calibrate(model, {"dark": train["dark"]}, {"dark": val["dark"]}, spare=1, crossed=few)
    assert alone.quantiles == {80: {"dark": 9, "": 9}, 90: {"dark": 10, "": 10}}
    # Of few pictures all tell what is like them: here 42, though only 12 are held out.
    assert alone.limit < math.inf and calibrate(model, {"dark": train["dark"]}, {"dark": val["dark"]}).limit == math.inf
    far = [alone.assess(describe(model, item.read()), 1.0).unlike for item in val["bright"]]
    near = [alone.assess(describe(model, item.read()), 1.0).unlike for item in pictures["dark"].test]
    assert all(far) and len(near) == 20 and sum(near) <= 3
    assert calibrate(model, nobody, {"nobody": val["dark"]}) is None
    model.calibration = known
    try:
        model.save_pretrained(tmp_path / "m")
        saved = load_model(tmp_path / "m")
    finally:
        del model.calibration
    picture = val["bright"][0].read()
    said = saved.assess(picture)
    assert said.nearest == "bright" and not said.unlike
    assert said == known.assess(describe(model, picture), model.count(picture))
    low, high = said.intervals[90]
    assert low <= saved.count(picture) <= high
    assert sum(saved.assess(item.read()).nearest == "dark" for item in val["dark"]) == 12
    assert saved.assess(np.full((48, 64, 3), [255, 0, 0], np.uint8)).unlike
    card = (tmp_path / "m" / "README.md").read_text()
    assert "## Intervals" in card and known.card() in card and "without a confidence" not in card
    # Saved without a calibration, the folder does not keep that of other weights.
    model.save_pretrained(tmp_path / "m")
    assert load_model(tmp_path / "m").calibration is None and model.assess(picture) is None


def test_one_distant_validation_picture_is_not_the_limit():
    distances = np.random.default_rng(0).permutation([*np.linspace(0.5, 1.5, 87), 9.0])
    assert like_limit(distances) == 1.5  # of 88 pictures the second most distant: 2 of 89 are called unlike
    assert like_limit(distances[:32]) == distances[:32].max()
    assert like_limit(distances[:19]) == math.inf


def test_a_checkpoint_is_calibrated_in_place(model, pictures, tmp_path):
    model.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    domains = [
        Domain.from_arrays("bright", train=[(i.read(), i.points) for i in pictures["bright"].train], min_side=32)
    ]
    for _ in range(2):
        known = calibrate_checkpoint(tmp_path, domains)
        card = (tmp_path / "README.md").read_text()
        assert card.count("## Intervals") == card.count("## Limits") == 1 and known.card() in card
    assert known.pictures == {"bright": 3, "": 3} and known.quantiles == {80: {}, 90: {}} and known.limit == math.inf
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    with pytest.raises(UserError, match="two training pictures"):
        calibrate_checkpoint(tmp_path, [Domain.from_arrays("x", train=[(np.zeros((48, 48, 3), np.uint8), [])])])


def test_what_is_not_this_models_calibration(model, tmp_path):
    model.calibration = made()
    try:
        model.save_pretrained(tmp_path)
    finally:
        del model.calibration
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_model(tmp_path).calibration.quantiles == made().quantiles
    with torch.no_grad():
        next(model.parameters()).add_(1)
    other = tmp_path / "other"
    model.save_pretrained(other)
    (other / FILE).write_bytes((tmp_path / FILE).read_bytes())
    with pytest.warns(UserWarning, match="belongs to other weights"):
        assert load_model(other).calibration is None
    for content in (b"", b"x" * 100, (tmp_path / FILE).read_bytes()[:-9]):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(UserError, match=f"{FILE} cannot be read"):
            load_model(tmp_path)


def test_descriptions_do_not_depend_on_the_size_of_a_picture(model):
    small = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((384, 288))
    )
    large = np.asarray(Image.fromarray(small).resize((1536, 1152), Image.Resampling.BICUBIC))
    torch.testing.assert_close(describe(model, large), describe(model, small), rtol=0.05, atol=0.02)
    assert describe(model, small[:1, :2]).isfinite().all()
    assert json.dumps(describe(model, small).tolist())


@pytest.mark.parametrize("words", [["--points"], ["--submission", "s.txt"], ["--max-side", "512"]])
def test_what_calibration_would_ignore_is_refused(monkeypatch, words):
    """At commit 4eb5a94 such an option did nothing, or measured another size than `predict` counts at."""
    monkeypatch.setattr(sys, "argv", ["evaluate", "starter", "--calibrate", *words])
    with pytest.raises(UserError, match=f"--calibrate: measures the model as `predict` runs it.*leave {words[0]} out"):
        evaluate.main()
