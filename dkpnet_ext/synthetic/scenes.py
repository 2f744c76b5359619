"""Four synthetic crowd domains: training data that needs no download.

Every picture is a small 3-D world (`places`) seen by a pinhole camera (`camera`: height, tilt, focal length). Ground,
houses and sky are ray-cast (`textures`); people and objects are figures (`figures`) whose size and foreshortening follow
from where they stand, painted from back to front; the picture is then developed like a photograph (`photograph`:
exposure, contrast, colour cast, vignette, blur, sensor noise, JPEG).

The domains differ as the data sets of the DKPNet paper's Fig. 1 do, and are of unequal size. Heads per image are the
median and the range of the default training images (seed 0).

=======  ==========  ==============  =========  ==================================================================
domain   train/test  heads/image     head size  camera
=======  ==========  ==============  =========  ==================================================================
square   130 / 30    116 (14-565)    5-16 px    7-13 m up, tilted 18-32 degrees, daylight, haze
street   100 / 26    22 (2-93)       9-50 px    1.7-3 m up, almost level, saturated and sharp, landscape or portrait
stadium  80 / 22     263 (47-1000)   5-9 px     a long lens on a stand of seats, floodlight, noise, strong JPEG
station  60 / 20     19 (2-112)      7-30 px    CCTV 4-6 m up, tilted 22-34 degrees: nearly gray, low contrast, noisy
=======  ==========  ==============  =========  ==================================================================

**Conflict between the domains.** As between real data sets, the labelling habits differ, so that the same local patch
means different counts. Four kinds of things are drawn by the same code with the same distribution of colours wherever
they occur, and `COUNTED` says what each is worth:

- ``ball``, a dark round ball of a head's size: in *stadium* the back of a head above a seat, which counts; in *square*
  and *street* a stone bollard, which does not.
- ``umbrella``: in *square* it hides a person and counts once, at the dome's centre; in *street* it is a cafe's parasol
  and does not count.
- ``silhouette``, a uniformly dark figure: in *station* a traveller against the light, who counts; in *square* and
  *street* a bronze statue or a shop's dummy, which does not.
- ``far``, an ordinary figure whose head is about 5 px: in *square* everybody counts (as ``person``); the labellers of
  *street* leave out the passers-by at its far end, who stand behind a clear gap in depth.

How many of them a picture holds depends on the domain (bollards, parasols and statues come regardless of the crowd; a
random share of the crowd in *stadium*, *square* and *station* sits with its back to us, carries an umbrella or stands
against the light). Only the look of the picture as a whole tells which habit applies. In every domain a head that is
hidden behind something is not annotated.

Everything follows from ``np.random.default_rng([seed, domain, split, index])``: the same versions of NumPy and Pillow
give the same bytes (another processor's arithmetic may round a pixel differently).
``python -m dkpnet_ext.synthetic.scenes OUT`` writes the folders and a contact sheet to look at.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import UserError
from ..files import create_folder
from .figures import forget
from .photograph import LOOKS, develop, paint
from .places import SCENES

VERSION = 4  # part of the folder's name: raise it with every change of what is rendered

DOMAINS: tuple[str, ...] = ("square", "street", "stadium", "station")
SPLITS: tuple[str, ...] = ("train", "test")
SIZES: dict[str, tuple[int, int]] = {  # images (train, test)
    "square": (130, 30),
    "street": (100, 26),
    "stadium": (80, 22),
    "station": (60, 20),
}
COUNTED: dict[str, dict[str, bool]] = {  # the labelling habit of each domain, see the module's docstring
    "square": {"person": True, "umbrella": True, "ball": False, "silhouette": False},
    "street": {"person": True, "far": False, "umbrella": False, "ball": False, "silhouette": False},
    "stadium": {"person": True, "ball": True},
    "station": {"person": True, "silhouette": True},
}


def render(domain: str, split: str, index: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One picture of a domain.

    Args:
        domain: one of `DOMAINS`.
        split: ``train`` or ``test``.
        index: any number from 0; `ensure` writes the first ``SIZES[domain]``.
        seed: from 0; another seed is another data set.

    Returns:
        The picture, uint8 [H, W, 3] RGB, and the annotated heads' centres, float32 [N, 2] as (x, y) pixels inside it.

    Raises:
        UserError: an unknown domain or split, or a negative index or seed.
    """
    if domain not in SCENES:
        raise UserError(f"unknown synthetic domain {domain!r}: choose from {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r} of the synthetic data: choose from {', '.join(SPLITS)}")
    if index < 0 or seed < 0:
        raise UserError(f"synthetic data needs index and seed from 0, got index {index}, seed {seed}")
    rng = np.random.default_rng([seed, DOMAINS.index(domain), SPLITS.index(split), index])
    scene = SCENES[domain](rng)
    points = paint(scene, COUNTED[domain])
    return develop(scene.canvas, rng, LOOKS[domain]), points


def ensure(root: Path, seed: int = 0, progress: bool = True) -> dict[str, Path]:
    """Write the data set below ``root`` unless it is there; domain name -> its folder.

    A folder ``synthetic-v<VERSION>-seed<seed>/<domain>`` holds ``images/*.jpg``, ``train.csv`` and ``test.csv`` with
    the header ``image,points`` (a path relative to the folder; JSON ``[[x, y], ...]`` in pixels). It appears complete
    or not at all; ``progress`` reports on stderr.

    Raises:
        UserError: ``root`` cannot be written.
    """
    root = Path(root)
    final = root / f"synthetic-v{VERSION}-seed{seed}"

    def fill(work: Path) -> None:
        for domain in DOMAINS:
            _write(work / domain, domain, seed, progress)

    if not final.is_dir():
        try:
            create_folder(final, fill)
        finally:
            forget()
    return {domain: final / domain for domain in DOMAINS}


def _write(folder: Path, domain: str, seed: int, progress: bool) -> None:
    begin = time.perf_counter()
    (folder / "images").mkdir(parents=True)
    for split, n in zip(SPLITS, SIZES[domain], strict=True):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "points"])
            for index in range(n):
                picture, points = render(domain, split, index, seed)
                name = f"images/{split}_{index:04d}.jpg"
                Image.fromarray(picture).save(folder / name, quality=92)
                table.writerow([name, json.dumps([[round(float(x), 2), round(float(y), 2)] for x, y in points])])
    if progress:
        print(
            f"synthetic {domain}: {sum(SIZES[domain])} images in {time.perf_counter() - begin:.1f} s",
            file=sys.stderr,
        )


def contact_sheet(seed: int = 0, split: str = "train", columns: int = 5, pool: int = 30) -> Image.Image:
    """A picture of all domains, one row each, from sparse to dense; the last column shows the annotation as dots."""
    cell = (400, 300)
    sheet = Image.new("RGB", (columns * cell[0], len(DOMAINS) * cell[1]), "white")
    for row, domain in enumerate(DOMAINS):
        scenes = sorted((render(domain, split, index, seed) for index in range(pool)), key=lambda scene: len(scene[1]))
        chosen = [scenes[round(i * (pool - 1) / (columns - 2))] for i in range(columns - 1)]
        chosen.append(scenes[pool // 2])
        for column, (picture, points) in enumerate(chosen):
            image = Image.fromarray(picture)
            draw = ImageDraw.Draw(image)
            if column == columns - 1:
                for x, y in points:
                    draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=(255, 40, 40))
            image.thumbnail((cell[0] - 4, cell[1] - 4))
            draw = ImageDraw.Draw(image)
            text = f"{domain}: {len(points)}"
            draw.rectangle([0, 0, 6 * len(text) + 8, 14], fill="black")
            draw.text((4, 2), text, fill="white")
            sheet.paste(image, (column * cell[0] + (cell[0] - image.width) // 2, row * cell[1] + 2))
    return sheet


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise UserError(
            "usage: python -m dkpnet_ext.synthetic.scenes OUT (writes the synthetic data and a contact sheet there)"
        )
    out = Path(sys.argv[1])
    for domain, folder in ensure(out).items():
        print(f"{domain}={folder}")
    contact_sheet().save(out / "contact_sheet.png")
    print(f"look at {out / 'contact_sheet.png'}")


if __name__ == "__main__":
    from dkpnet_ext.cli import run_command

    run_command(main)
