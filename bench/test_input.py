"""The input pipeline on one core: training batches of images, points and targets, against plain PIL and a loop.

Both sides cut, mirror and jitter with torchvision; ours reads images that were decoded once (as the trainer's cache
holds them) and makes the targets of a batch in one call.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_density import AXIS, RADIUS, STRIDE
from torchvision.transforms import v2

from dkpnet_ext.data import CrowdDataset, TrainTransform, collate, load_domains
from dkpnet_ext.ops import density
from dkpnet_ext.synthetic.scenes import render

IMAGES, WIDTH, HEIGHT = 16, 1024, 768


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    """Photos of 1024 x 768 with their points, in files; grain makes them compress as a camera's do."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(IMAGES):
        pixels, points = render("square", "train", i)
        scale = np.array([WIDTH, HEIGHT]) / (pixels.shape[1], pixels.shape[0])
        large = np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT)), np.float32)
        large = np.clip(large + rng.normal(0, 6, large.shape), 0, 255).astype(np.uint8)
        Image.fromarray(large).save(root / f"{i}.jpg", quality=90)
        rows.append({"image": f"{i}.jpg", "points": (points * scale).tolist()})
    (root / "train.json").write_text(json.dumps(rows))
    return load_domains([f"photos={root}"], cache=tmp_path_factory.mktemp("cache"), progress=False)[0]


def plain_example(path, points: np.ndarray, crop: int, jitter: v2.Transform | None):
    """What a data set class that one finds in crowd counting code does for an item; the target at once."""
    image = Image.open(path).convert("RGB")
    left, top = int(torch.randint(image.width - crop + 1, ())), int(torch.randint(image.height - crop + 1, ()))
    image = image.crop((left, top, left + crop, top + crop))
    points = points - (left, top)
    points = points[((points >= 0) & (points < crop)).all(1)]
    if torch.rand(()) < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        points[:, 0] = crop - 1e-3 - points[:, 0]
    if jitter is not None:
        image = jitter(image)
    canvas = np.zeros((crop, crop), np.float32)
    stamp = np.outer(AXIS, AXIS)
    for x, y in points.astype(int):
        top, left = max(y - RADIUS, 0), max(x - RADIUS, 0)
        bottom, right = min(y + RADIUS + 1, crop), min(x + RADIUS + 1, crop)
        patch = stamp[top - y + RADIUS : bottom - y + RADIUS, left - x + RADIUS : right - x + RADIUS]
        canvas[top:bottom, left:right] += patch / patch.sum()
    cells = crop // STRIDE
    target = canvas.reshape(cells, STRIDE, cells, STRIDE).sum((1, 3))
    return v2.functional.pil_to_tensor(image), torch.from_numpy(target)


@pytest.mark.parametrize("jitter", [0.0, 0.2], ids=["no jitter", "jitter"])
def test_input(compare, tiny, domain, jitter):
    crop, batch = (64, 2) if tiny else (400, IMAGES)
    items = domain.train[:batch]
    dataset = CrowdDataset(items, [0] * len(items), TrainTransform(crop, 0.5, jitter))
    color = v2.ColorJitter(jitter, jitter, jitter, jitter) if jitter else None

    def ours():
        examples = collate([dataset[i] for i in range(len(dataset))])
        return (
            examples.images,
            density(examples.points, examples.offsets, (crop, crop), stride=STRIDE),
            examples.offsets,
        )

    def plain():
        pairs = [plain_example(item.source, item.points, crop, color) for item in items]
        return torch.stack([image for image, _ in pairs]), torch.stack([target for _, target in pairs])

    _, targets, offsets = ours()
    counts = offsets.diff().double()
    error = (targets.sum((1, 2, 3), dtype=torch.float64) - counts).abs().max() / counts.max()
    loop = "PIL + loop of stamps, item by item"
    compare(
        "input pipeline" + ", colour jitter" * bool(jitter),
        f"{len(items)} crops of {crop} x {crop} out of JPEGs of {WIDTH} x {HEIGHT}, {counts.mean():.0f} heads each, one "
        "process; error: of a crop's count",
        {"ours, decoded once": ours},
        {loop: plain},
        device="cpu",
        columns={"ours, decoded once": {"error": error.item(), "images per call": len(items)},
                 loop: {"images per call": len(items)}},
        aims=[("ours, decoded once", loop, 3)],
    )  # fmt: skip
