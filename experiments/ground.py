"""People per square metre on synthetic scenes, whose cameras are known: error of the area's and of the densest square's density.

`python experiments/ground.py`: the largest rectangle of each scene's ground that lies in the picture and holds ten people or
more is marked by its corners. Truth: the annotated heads by where they stand. Compared: heads on the plane of the heads and on
the ground, corners that are three pixels off, and the starter's density in place of the annotation. Prints a Markdown table.
"""

from collections import defaultdict

import numpy as np

from dkpnet_ext import load_model
from dkpnet_ext.counting.ground import GroundCount, Planes, on_ground, planes, read_ground
from dkpnet_ext.counting.pictures import count_pixels
from dkpnet_ext.errors import UserError
from dkpnet_ext.synthetic import scenes
from dkpnet_ext.synthetic.camera import Camera

DOMAINS, IMAGES, OFF, LEAST = ("square", "station", "street"), 20, 3.0, 10


def standing(domain: str, index: int) -> tuple[Camera, np.ndarray, np.ndarray, np.ndarray]:
    """The camera, the picture, its annotated heads [N, 2] and where they stand: (x, z) in metres [N, 2]."""
    picture, heads = scenes.render(domain, "test", index)
    rng = np.random.default_rng([0, scenes.DOMAINS.index(domain), scenes.SPLITS.index("test"), index])
    scene = scenes.SCENES[domain](rng)
    cam = scene.cam
    things = np.array([(thing.u, thing.v, thing.depth) for thing in scene.things])
    own = things[np.linalg.norm(things[None, :, :2] - heads[:, None], axis=2).argmin(1)]
    down = (own[:, 1] - cam.height / 2) * own[:, 2] / cam.focal
    z = own[:, 2] * np.cos(cam.tilt) - down * np.sin(cam.tilt)
    return cam, picture, heads.astype(np.float64), np.stack([(own[:, 0] - cam.width / 2) * own[:, 2] / cam.focal, z], 1)


def rectangle(cam: Camera, where: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float]] | None:
    """The corners in pixels [4, 2] and (half width, near, far) of the largest rectangle with `LEAST` people, or None."""
    best = None
    for half in np.arange(1.5, 8):
        for near in np.arange(2.0, 30):
            for length in np.arange(3.0, 20, 2):
                x, z = np.array([-half, half, half, -half]), np.array([near, near, near + length, near + length])
                u, v, depth = cam.project(x, np.zeros(4), z)
                inside = (np.abs(where[:, 0]) < half) & (where[:, 1] > near) & (where[:, 1] < near + length)
                seen = (u >= 0) & (v >= 0) & (u <= cam.width) & (v <= cam.height) & (depth > 0)
                if seen.all() and inside.sum() >= LEAST and (best is None or half * length > best[0]):
                    best = (half * length, np.stack([u, v], 1), (half, near, near + length))
    return best and best[1:]


def error(found: GroundCount, truth: GroundCount) -> tuple[float, float]:
    """Relative errors of the density of the area, and of the densest square's."""
    return (found.people / found.area) / (truth.people / truth.area) - 1, found.densest / truth.densest - 1


def main() -> None:
    """Measure and print."""
    model = load_model().for_inference()
    rng = np.random.default_rng(0)
    print(
        "| scenes | heads on | scenes used | density of the area: mean error | mean absolute | densest square: mean absolute |"
    )
    print("|---|---|---:|---:|---:|---:|")
    for domain in DOMAINS:
        errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
        refused = 0
        for index in range(IMAGES):
            cam, picture, heads, where = standing(domain, index)
            if (found := rectangle(cam, where)) is None:
                continue
            corners, (half, near, far) = found
            size = (2 * half, far - near)
            flat = Planes(np.eye(3), np.eye(3), None, (1000, 1000))
            truth = on_ground(flat, size, where + np.array([half, -near]), np.ones(len(where)))

            try:
                ground = read_ground(corners, size)
                both = planes(ground, (cam.height, cam.width))
            except UserError:
                refused += 1
                continue
            ones = np.ones(len(heads))
            errors["their plane, annotated heads"].append(error(on_ground(both, size, heads, ones), truth))
            uncorrected = both._replace(heads=both.ground, up=None)
            errors["the ground, annotated heads"].append(error(on_ground(uncorrected, size, heads, ones), truth))
            errors["their plane, starter's density"].append(
                error(count_pixels(model, picture).on_ground(ground), truth)
            )
            off = (corners + rng.normal(0, OFF, (4, 2))).clip(0, [cam.width, cam.height])
            try:
                moved = planes(read_ground(off, size), (cam.height, cam.width))
                name = "their plane, annotated heads, corners 3 px off"
                name = name if moved.up else "camera not told, corners 3 px off"
                errors[name].append(error(on_ground(moved, size, heads, ones), truth))
            except UserError:
                errors["corners 3 px off: refused"].append((np.nan, np.nan))
        for name, rows in errors.items():
            area, dense = np.array(rows).T
            mean = (
                f"{100 * area.mean():+.1f} % | {100 * np.abs(area).mean():.1f} % | {100 * np.abs(dense).mean():.1f} %"
            )
            print(f"| {domain} | {name} | {len(rows)} | {mean} |")
        if refused:
            print(f"| {domain} | refused: camera below 3 m | {refused} | | | |")


if __name__ == "__main__":
    main()
