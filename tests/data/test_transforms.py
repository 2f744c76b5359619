"""Points move with pixels, and randomness comes from (seed, key) alone."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dkpnet_ext.data import CrowdDataset, MixSampler, TrainTransform, collate, load_domains
from dkpnet_ext.data.transforms import recolour

MARK = 200


@given(
    size=st.tuples(st.integers(20, 90), st.integers(20, 90)),
    crop=st.integers(8, 20),
    seed=st.integers(0, 2**31),
    fractions=st.floats(0, 1, exclude_max=True, width=32),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=300, deadline=None)
def test_heads_stay_on_their_pixels(size, crop, seed, fractions, flip):
    """Marked pixels: exactly those inside the crop keep their head, and each head's pixel is marked."""
    height, width = size
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(0, [width, height], (40, 2)), axis=0)
    image = np.zeros((height, width, 3), np.uint8)
    image[cells[:, 1], cells[:, 0]] = MARK
    points = (cells + np.float32(fractions)).astype(np.float32)
    points = points[(np.floor(points) == cells).all(axis=1)]  # a fraction next to 1 may round up before we begin
    if len(points) < len(cells):
        return
    outside = np.array([[-0.5, 3], [width, 3], [3, height + 0.25], [1e9, -1e9]], np.float32)
    torch.manual_seed(seed)
    pixels, heads = TrainTransform(crop, flip, jitter=0)(image, np.concatenate([points, outside]))
    assert pixels.shape == (3, crop, crop)
    assert pixels.dtype == torch.uint8
    assert heads.dtype == torch.float32
    assert type(heads) is type(pixels) is torch.Tensor
    marked = {(int(x), int(y)) for y, x in torch.nonzero(pixels[0] == MARK)}
    found = [(int(x), int(y)) for x, y in heads.floor()]
    assert len(found) == len(set(found))
    assert set(found) == marked


@given(
    size=st.tuples(st.integers(16, 60), st.integers(16, 200)),
    seed=st.integers(0, 2**31),
    flip=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_small_images_are_scaled_up(size, seed, flip):
    """A white block of a small image lies under its head in the crop, and no head leaves the crop by rounding."""
    height, width = size
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, [height - 4, width - 4])
    image = np.zeros((height, width, 3), np.uint8)
    image[y : y + 5, x : x + 5] = 255
    corner = np.nextafter(np.array([width, height], np.float32), np.float32(0))
    torch.manual_seed(seed)
    pixels, heads = TrainTransform(64, flip, jitter=0)(image, np.array([[x + 2.5, y + 2.5], corner, [0, 0]]))
    assert pixels.shape == (3, 64, 64)
    assert ((heads >= 0) & (heads < 64)).all()
    if pixels.max() == 255 and len(heads) and height == width:
        column, row = heads[0].floor().int()
        assert pixels[0, row, column] > 200


def test_an_integer_head_mirrors_to_the_mirrored_pixel():
    image = np.zeros((20, 20, 3), np.uint8)
    _, heads = TrainTransform(20, 1.0, 0)(image, np.array([[0, 3], [19, 4], [7.25, 5], [19.9999, 6]], np.float32))
    assert heads.floor()[:, 0].tolist() == [19, 0, 12, 0]
    assert heads[2].tolist() == [12.25, 5]


def test_no_heads():
    for points in (np.zeros((0, 2), np.float32), np.array([[-5, -5]], np.float32)):
        _, heads = TrainTransform(16)(np.zeros((30, 30, 3), np.uint8), points)
        assert heads.shape == (0, 2)


def test_jitter_changes_colours_only():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    points = rng.uniform(0, 64, (9, 2)).astype(np.float32)
    torch.manual_seed(1)
    plain, heads = TrainTransform(48, 0.5, 0)(image, points)
    torch.manual_seed(1)
    jittered, same_heads = TrainTransform(48, 0.5, 0.2)(image, points)
    assert torch.equal(heads, same_heads)
    assert not torch.equal(plain, jittered)
    correlation = torch.corrcoef(torch.stack([plain.flatten().float(), jittered.flatten().float()]))[0, 1]
    assert correlation > 0.8


def test_jitter_has_the_statistics_of_torchvision():
    """Mean luma, its spread, chroma and hue of a picture: how they change on average, and how much that varies."""
    y, x = np.mgrid[:48, :48]
    noise = np.random.default_rng(0).normal(0, 12, (48, 48, 3))
    picture = Image.fromarray(((60 + x + 2 * y)[..., None] + [14, 0, -12] + noise).clip(0, 255).astype(np.uint8))
    axes = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # YIQ

    def described(picture: Image.Image) -> list[float]:
        luma, i, q = (np.asarray(picture, np.float64) @ axes.T).reshape(-1, 3).T
        return [luma.mean(), luma.std(), np.hypot(i, q).mean(), np.degrees(np.arctan2(q.mean(), i.mean()))]

    torch.manual_seed(0)
    reference = v2.ColorJitter(0.2, 0.2, 0.2, 0.2)
    found, expected = (
        np.array([described(change(picture)) for _ in range(400)]) for change in (lambda p: recolour(p, 0.2), reference)
    )
    assert (np.abs(found.mean(0) - expected.mean(0)) < 0.3 * expected.std(0)).all()
    ratio = found.std(0) / expected.std(0)
    assert (ratio > 0.8).all() and (ratio < 1.25).all(), ratio


def test_jitter_leaves_gray_gray():
    picture = Image.fromarray(np.repeat(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8, 1), 3, 2))
    torch.manual_seed(0)
    for _ in range(20):
        changed = np.asarray(recolour(picture, 0.2)).astype(int)
        assert np.ptp(changed, axis=2).max() <= 1 and np.ptp(changed) > 100


def test_flip_probability():
    image = np.zeros((8, 8, 3), np.uint8)
    torch.manual_seed(0)
    transform = TrainTransform(8, 0.5, 0)
    flips = sum(float(transform(image, np.array([[0, 0]], np.float32))[1][0, 0]) == 7 for _ in range(400))
    assert 160 <= flips <= 240  # four standard deviations


def test_crops_reach_every_corner():
    image = np.zeros((9, 11, 3), np.uint8)
    transform = TrainTransform(8, 0, 0)
    head = np.array([[5, 5]], np.float32)
    torch.manual_seed(0)
    seen = {tuple(transform(image, head)[1][0].tolist()) for _ in range(200)}
    assert seen == {(float(5 - left), float(5 - top)) for left in range(4) for top in range(2)}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (domain,) = load_domains(
        [f"X={layouts.shanghaitech(root / 'data')}"], cache=root / "cache", min_side=48, progress=False
    )
    return domain.train + domain.test


def batches(items, workers, epoch=0, start=0, seed=3):
    dataset = CrowdDataset(items, [0, 0, 0, 1, 1, 1], TrainTransform(40), seed)
    sampler = MixSampler(dataset.labels, 4, mode="balanced", batches=4, seed=seed)
    sampler.set_epoch(epoch, start_batch=start)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as torch's on arrays that are not writable
        warnings.filterwarnings("ignore", message=".*suggested max number of worker")  # on a machine with one core
        return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers))


def equal(a, b):
    return a.names == b.names and all(torch.equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_matter(items, workers):
    assert all(equal(a, b) for a, b in zip(batches(items, 0), batches(items, workers), strict=True))


def test_resumption_in_mid_epoch(items):
    whole = batches(items, 0, epoch=2)
    rest = batches(items, 0, epoch=2, start=3)
    assert len(rest) == 1
    assert equal(whole[3], rest[0])


def test_epochs_and_seeds_differ(items):
    first = batches(items, 0)[0]
    assert not equal(first, batches(items, 0, epoch=1)[0])
    assert not equal(first, batches(items, 0, seed=4)[0])


def test_the_default_generator_is_neither_used_nor_touched(items):
    dataset = CrowdDataset(items, [0] * 6, TrainTransform(40), seed=3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = dataset[2, 77]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again = dataset[2, 77]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.points, again.points)
    assert not torch.equal(first.image, dataset[2, 78].image)


def whole(image, points):
    return torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")), torch.from_numpy(points)


def test_collate(items):
    dataset = CrowdDataset(items, [5, 6, 7, 8, 9, 10], whole)
    batch = collate([dataset[0], dataset[2], dataset[1]])
    assert batch.images.shape == (3, 3, 48, 64)
    assert batch.offsets.tolist() == [0, 2, 2, 3]
    assert batch.offsets.dtype == batch.labels.dtype == torch.int64
    assert batch.labels.tolist() == [5, 7, 6]
    assert batch.names == ["X/train/IMG_1.jpg", "X/train/IMG_3.jpg", "X/train/IMG_2.jpg"]
    assert batch.sides.tolist() == [48.0] * 3
    np.testing.assert_allclose(batch.points, layouts.POINTS["1"] + layouts.POINTS["2"])
    assert len(dataset) == 6


def test_one_label_per_item(items):
    with pytest.raises(ValueError, match="6 items but 1 labels"):
        CrowdDataset(items, [0], whole)


@pytest.mark.skipif("DKPNET_TEST_DATA" not in os.environ, reason="DKPNET_TEST_DATA is not set")
def test_heads_lie_on_heads_in_real_crops(tmp_path):
    """UCF_CC_50's training crops hold exactly the heads of the cached image that lie inside them."""
    root = Path(os.environ["DKPNET_TEST_DATA"]) / "data" / "UCF_CC_50"
    (domain,) = load_domains([f"X={root}"], cache=tmp_path, progress=False)
    transform = TrainTransform(400, flip=0, jitter=0)
    for key, item in enumerate(domain.train):
        image = item.read()
        torch.manual_seed(key)
        pixels, heads = transform(image, item.points)
        windows = np.lib.stride_tricks.sliding_window_view(image[:, :, 0], (1, 400))[:, :, 0]
        top, left = np.argwhere((windows == pixels[0, 0].numpy()).all(-1))[0]
        inside = item.points - np.array([left, top], np.float32)
        inside = inside[((inside >= 0) & (inside < 400)).all(axis=1)]
        np.testing.assert_allclose(heads, inside, atol=2**-9)
        assert len(heads) > 20
