"""Pictures show what they should: heat where the density is, sizes kept, labels checked."""

import numpy as np
import pytest
from PIL import Image

from dkpnet_ext.plots import MAX_SIDE, density_figure, heat_peak, overlay, per_area, tsne_plot


def test_overlay_draws_points():
    picture = Image.new("RGB", (100, 80), (200, 0, 0))
    density = np.zeros((10, 10))
    plain, dotted = (
        np.asarray(overlay(picture, density, points=points)).astype(int)
        for points in (None, np.array([[30.0, 50.0, 1.0]]))
    )
    rows, columns = np.nonzero(np.abs(dotted - plain).sum(2))
    assert dotted[50, 30].tolist() == [255, 255, 255]
    assert 2 <= np.ptp(rows) <= 8 and abs(rows.mean() - 50) < 1 and abs(columns.mean() - 30) < 1


def test_overlay_heats_the_dense_part_only():
    density = np.zeros((16, 32), np.float32)
    density[:, 20:] = 0.5
    picture = Image.new("RGB", (128, 64), (100, 100, 100))
    result = np.asarray(overlay(picture, density)).astype(int)
    assert result.shape == (64, 128, 3)
    assert np.ptp(result[:, :70], axis=2).max() == 0  # gray stays gray
    assert np.ptp(result[:, 90:], axis=2).min() > 50
    np.testing.assert_array_equal(np.asarray(picture), 100)  # the input is left alone


def test_caption_and_large_images():
    density = np.zeros((4, 4), np.float32)
    plain = overlay(Image.new("RGB", (300, 200)), density)
    named = overlay(np.zeros((200, 300, 3), np.uint8), density, 1234.5)
    # The caption lies below the picture: on commit c572cb6 it hid what was in a corner.
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(named)[:200, :300])
    strip = np.asarray(named)[200:]
    assert 16 < len(strip) < 60 and strip.std() > 10
    assert overlay(Image.new("RGB", (20, 10)), density, 1.0).width > 100  # all words are there
    assert overlay(Image.new("RGB", (2 * MAX_SIDE, 64)), density).size == (MAX_SIDE, 32)


def test_one_peak_keeps_frames_comparable():
    picture, density = Image.new("RGB", (64, 64)), np.linspace(0, 0.4, 256, dtype=np.float32).reshape(16, 16)
    peak = heat_peak(density)
    own = np.asarray(overlay(picture, density))
    np.testing.assert_array_equal(own, np.asarray(overlay(picture, 2 * density)))  # each on its own scale
    np.testing.assert_array_equal(own, np.asarray(overlay(picture, 2 * density, peak=2 * peak)))
    assert (own != np.asarray(overlay(picture, 2 * density, peak=peak))).any()
    assert heat_peak(np.zeros((4, 4))) > 0


def test_an_empty_scene_does_not_look_like_a_crowd():
    """On commit c572cb6 a wall with a density of 0.004 heads per cell was as hot as a stadium."""
    ground = Image.new("RGB", (64, 64), (100, 100, 100))
    wall = np.asarray(overlay(ground, np.full((16, 16), 0.001, np.float32))).astype(int)
    crowd = np.asarray(overlay(ground, np.full((16, 16), 0.2, np.float32))).astype(int)
    assert np.ptp(wall, axis=2).max() < 0.4 * np.ptp(crowd, axis=2).max()
    assert per_area(0.25, np.zeros((16, 16)), (64, 64)) == pytest.approx(0.25 / 16 * 1e4)


def test_density_figure_and_tsne(tmp_path):
    image = np.zeros((32, 40, 3), np.uint8)
    figure = density_figure([image] * 2, [np.ones((8, 10))] * 2, [1.0, 2.0], [3, 4], tmp_path / "f.png")
    assert [a.get_title() for a in figure.axes] == ["annotated 3", "predicted 1.0", "annotated 4", "predicted 2.0"]
    vectors = np.random.default_rng(0).random((12, 8))
    tsne_plot(vectors, {"data set": list("AB") * 6, "cluster": list(range(3)) * 4}, tmp_path / "t.png")
    for name in ("f.png", "t.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 5
    with pytest.raises(ValueError, match="11 labels in 'x' for 12"):
        tsne_plot(vectors, {"x": [0] * 11}, tmp_path / "t.png")
    with pytest.raises(ValueError, match="at least 3"):
        tsne_plot(vectors[:2], {"x": [0, 1]}, tmp_path / "t.png")
