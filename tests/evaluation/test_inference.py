"""Counting and attention over items, and the baselines they are compared with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dkpnet_ext.data import Domain
from dkpnet_ext.device import pick_precision
from dkpnet_ext.evaluation.baselines import image_statistics, mean_baseline, ridge_baseline
from dkpnet_ext.evaluation.evaluate import evaluate_domains
from dkpnet_ext.evaluation.inference import attention_vectors, nine_patch_count, predict_counts, predict_items


def test_counts_are_the_forward_pass(model, items):
    counts = predict_counts(model, items[:3])
    for count, item in zip(counts, items, strict=False):
        image = torch.from_numpy(np.load(item.image)).permute(2, 0, 1).unsqueeze(0)
        with torch.no_grad():
            assert count == pytest.approx(float(model(image).density.double().sum()), rel=1e-5)


def test_game_zero_is_the_error_of_the_count(model, items):
    counts, game, matched, _ = predict_items(model, items[:2])
    np.testing.assert_allclose(game[:, 0], [abs(c - item.count) for c, item in zip(counts, items)], rtol=1e-6)
    assert game.shape == (2, 4) and (np.diff(game, axis=1) >= -1e-9).all()
    assert np.isnan(predict_items(model, items[:1], nine_patch=True).game).all() and np.isnan(matched).all()


def test_located_points_that_are_annotated_are_all_found(model, items):
    item = replace(items[3], points=model.locate(items[3].read(), as_is=True)[:, :2].astype(np.float32))
    assert item.count > 20
    matched = predict_items(model, [item], points=True).matched
    assert matched[:, :2].tolist() == [[item.count, item.count]] and np.isnan(matched[:, 2:]).all()  # no boxes
    moved = replace(item, points=item.points + np.float32([5, 0]))
    assert predict_items(model, [moved], points=True).matched[0, 1] == item.count
    half = replace(moved, scale=0.5)  # of the original size: 8 px there are 4 px here
    few, all_but_few = predict_items(model, [half], points=True).matched[0, :2]
    assert few <= all_but_few < item.count
    # Boxes of 8 x 12: half of the diagonal (7.2) is more than the 5 px by which the points are moved, half of a side less.
    boxes = replace(moved, sizes=np.tile(np.float32([8, 12]), (item.count, 1)))
    large, small = predict_items(model, [boxes], points=True).matched[0, 2:]
    assert large == item.count > small


def test_box_thresholds_stand_in_the_table(model, items, tmp_path):
    """Where all images have boxes; the count's rounding is the number of located heads."""
    domain = Domain.from_arrays("N", test=[(item.read(), item.points) for item in items[2:4]], min_side=32)
    assert len(evaluate_domains(model, [domain], tmp_path, points=True)["N"].points) == 2
    domain.test = [replace(item, sizes=np.full((item.count, 2), 10, np.float32)) for item in domain.test]
    rows = evaluate_domains(model, [domain], tmp_path, points=True)
    large, small = rows["N"].points[2:]
    assert (large.radius, small.radius) == ("sigma_l", "sigma_s")
    located = sum(round(float(count)) for count in predict_counts(model, domain.test))
    annotated = sum(item.count for item in domain.test)
    assert large.recall * annotated == pytest.approx(large.precision * located)
    assert small.f1 <= large.f1
    assert "| N | sigma_l | " in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["N"]["points"][2]["radius"] == "sigma_l"


def test_bf16_is_near_fp32_and_the_mode_is_kept(make_model, items):
    model = make_model().train()
    full, half = predict_counts(model, items[:2]), predict_counts(model, items[:2], precision="bf16")
    assert model.training
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, rtol=0.05)


def test_attention_vectors(make_model, model, items):
    vectors = attention_vectors(model, items[:2])
    assert vectors.shape == (2, 64) and vectors.dtype == np.float32
    image = torch.from_numpy(np.load(items[1].image)).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        np.testing.assert_allclose(vectors[1], model(image).attention[0].numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="no attention"):
        attention_vectors(make_model(attention="none"), items[:1])


def test_mean_baseline_is_per_domain(items):
    train, test = items[:8], items[8:]
    expected = {"A": (1 + 3 + 5 + 7) / 4, "B": 10 * (2 + 4 + 6 + 8) / 4}
    np.testing.assert_allclose(mean_baseline(train, test), [expected[i.domain] for i in test])


def test_ridge_beats_the_mean_where_edges_tell_the_count(items):
    counts = np.array([i.count for i in items])
    ridge = np.abs(ridge_baseline(items, items) - counts).mean()
    assert ridge < 0.5 * np.abs(mean_baseline(items, items) - counts).mean()


def test_image_statistics_of_a_known_picture(items, tmp_path):
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, 10:] = 255
    np.save(items[0].image, picture)
    values = image_statistics(items[0])
    # One vertical edge: 9 of 9 x 19 gradients; half black, half white.
    np.testing.assert_allclose(values[:3], 1 / 19, rtol=1e-5)
    np.testing.assert_allclose(values[4:8], [0.5, 0.5, 0.0, 1.0], atol=1e-5)
    assert values[8] == pytest.approx(np.log(200))


@pytest.mark.parametrize("size", [(128, 192), (130, 97)])
def test_nine_patches_by_hand(model, size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    height, width = (-(-side // 32) * 32 for side in size)
    pixels = image.unsqueeze(0) / 255
    if size != (height, width):
        pixels = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    # The authors put each patch's part into a map of the whole image; cells of 4 px.
    assembled = torch.full((height // 4, width // 4), torch.nan)
    rows, columns = [0, 3, 5, 8], [0, 3, 5, 8]  # in eighths of the image
    for i in range(3):
        for j in range(3):
            y, x = i * height // 4, j * width // 4
            with torch.no_grad():
                patch = model(pixels[:, :, y : y + height // 2, x : x + width // 2]).density[0, 0]
            part = [slice(r[k] * s // 32, r[k + 1] * s // 32) for r, k, s in ((rows, i, height), (columns, j, width))]
            assert torch.isnan(assembled[part[0], part[1]]).all()
            assembled[part[0], part[1]] = patch[
                part[0].start - y // 4 : part[0].stop - y // 4, part[1].start - x // 4 : part[1].stop - x // 4
            ]
    assert nine_patch_count(model, image) == pytest.approx(float(assembled.double().sum()), rel=1e-4)
    assert nine_patch_count(model, image) != pytest.approx(model.count(image), rel=1e-4)


def test_automatic_precision_follows_the_processor(monkeypatch):
    assert pick_precision("fp32", "cpu") == "fp32"
    for fast, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert pick_precision("auto", "cpu") == expected
