"""Points from density maps: as many as are counted, where the mass is."""

import numpy as np
import pytest
import torch
from counters import alive
from PIL import Image

from dkpnet_ext.models import DKPNet
from dkpnet_ext.models.locating import locate, to_picture


def blurred(points, shape, stride):
    """Heads as density: each spread over the four cells around it, so that its centre of mass is the point."""
    density = np.zeros(shape)
    for x, y in np.asarray(points) / stride - 0.5:
        column, row = int(x), int(y)
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            density[row + dy, column + dx] += (1 - abs(y - row - dy)) * (1 - abs(x - column - dx))
    return density


def sorted_rows(points):
    return points[np.lexsort(points.T)]


def test_heads_apart_come_back_to_the_fraction_of_a_pixel():
    points = np.array([[21.3, 30.0], [75.5, 18.2], [60.0, 90.9], [110.0, 50.5]])
    found, scores = locate(blurred(points, (16, 16), 8), 8)
    np.testing.assert_allclose(sorted_rows(found), sorted_rows(points), atol=1e-9)
    np.testing.assert_allclose(scores, 1)


def test_heads_in_one_cell_are_all_found():
    density = np.zeros((5, 6))
    density[2, 3] = 4
    found, scores = locate(density, 8)
    np.testing.assert_allclose(found, [[28, 20]] * 4)
    np.testing.assert_allclose(scores, 1)


@pytest.mark.parametrize("mean", [0.0, 1e-4, 0.02, 0.7])
def test_as_many_points_as_the_rounded_count(mean):
    """Also of mass spread so thinly that no cell holds a head, and of cells that hold several."""
    density = np.random.default_rng(0).gamma(0.5, 2 * mean, (70, 90)).astype(np.float32)
    found, scores = locate(torch.from_numpy(density), 4)
    assert len(found) == len(scores) == round(float(density.sum(dtype=np.float64)))
    assert np.isfinite(found).all() and ((found >= 0) & (found <= (360, 280))).all()
    assert ((scores > 0) & (scores <= 1)).all()


def test_each_mass_serves_one_head():
    """Two heads nearer to each other than a block: both at their places, none between them."""
    density = np.zeros((8, 12))
    density[3, 4] = density[3, 6] = 0.9
    density[3, 5] = 0.2
    found, _ = locate(density, 10)
    assert sorted(found[:, 0]) == pytest.approx([46, 64], abs=2.1)


def test_what_is_no_density():
    for wrong in (np.zeros(3), np.full((2, 2), np.nan), np.zeros((1, 2, 2))):
        with pytest.raises(ValueError, match="density"):
            locate(wrong, 8)
    assert len(locate(np.full((3, 3), -1.0), 8)[0]) == 0
    assert len(locate(np.zeros((0, 4)), 8)[0]) == 0


def test_points_lie_in_the_picture_as_it_was_given(tmp_path):
    moved = to_picture(np.array([[10.0, 20.0], [49.0, 31.0]]), (32, 48), (64, 144))
    np.testing.assert_allclose(moved, [[30, 40], [144, 62]])
    assert moved[1, 0] < 144
    torch.manual_seed(0)
    model = alive(DKPNet("test_efficientnet", channels=32, domains=["A"], num_sub=1, min_side=64, max_side=96)).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (205, 307, 3), np.uint8))
    picture.save(tmp_path / "x.png")
    points = model.locate(picture)
    assert len(points) == round(model.count(picture)) > 3 and points.shape[1] == 3
    assert points[:, 0].max() > 150 and points[:, 1].max() > 100  # spread over the picture, not over its smaller copy
    np.testing.assert_array_equal(model.locate([tmp_path / "x.png"])[0], points)
    assert len(model.locate(picture, as_is=True)) == round(model.count(picture, as_is=True))


@pytest.mark.parametrize("stride, side", [(1, 8), (2, 2), (3, 2)])
def test_cells_of_a_pixel_or_two_are_put_together(stride, side):
    """A network that repeats each cell says the same. At commit 25e2632 both heads came out of the first cell."""
    cells = np.zeros((9, 11))
    cells[4, 3], cells[4, 8] = 1, 0.9
    fine = np.kron(cells, np.ones((side, side))) / side**2
    for ours, expected in zip(locate(fine, stride), locate(cells, stride * side), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-9)
