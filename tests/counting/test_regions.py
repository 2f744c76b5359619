"""Counts per region are exact sums, and regions that partition an image add up to it."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dkpnet_ext.counting.regions import cell_shares, count_regions, rasterize, read_regions
from dkpnet_ext.errors import UserError

SIZE = (37, 50)  # 10 x 13 cells of 4 px; the last ones reach over the edge
DENSITY = np.random.default_rng(0).random((10, 13)).astype(np.float32)


def square(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def test_whole_image_and_single_cells_are_exact():
    counts = count_regions(
        DENSITY,
        {
            "all": [square(-5, -5, 100, 100)],
            "cell": [square(8, 4, 12, 8)],
            "half a cell": [square(8, 4, 10, 8)],
            "corner": [square(48, 36, 50, 37)],  # two pixels: all that the last cell has inside the image
        },
        SIZE,
        4,
    )
    assert counts["all"] == pytest.approx(DENSITY.sum(dtype=np.float64), rel=1e-12)
    assert counts["cell"] == pytest.approx(float(DENSITY[1, 2]), rel=1e-12)
    assert counts["half a cell"] == pytest.approx(float(DENSITY[1, 2]) / 2, rel=1e-12)
    assert counts["corner"] == pytest.approx(float(DENSITY[9, 12]), rel=1e-12)


def test_rasterize_takes_pixels_by_their_centre():
    triangle = rasterize([np.array([[0, 0], [4, 0], [0, 4]], float)], (4, 4))
    # x + y < 4 at the centres (x = column + 0.5); the diagonal's own centres lie on the edge, which is half-open.
    np.testing.assert_array_equal(triangle, np.add.outer(np.arange(4), np.arange(4)) + 1 < 4)
    ring = rasterize([square(0, 0, 6, 6), square(2, 2, 4, 4)], (6, 6))
    assert ring.sum() == 36 - 4 and not ring[2:4, 2:4].any()


coordinate = st.floats(-10, 60, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    center=st.tuples(st.floats(1, 49), st.floats(1, 36)),
    corners=st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8, unique=True),
    reverse=st.booleans(),
)
def test_polygons_that_share_edges_partition(center, corners, reverse):
    """A fan of triangles around a point covers each pixel as often as the outline winds, parity for parity."""
    fan = [np.array([center, a, b]) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)]
    if reverse:
        fan = [triangle[::-1] for triangle in fan]
    parity = np.zeros(SIZE, bool)
    for triangle in fan:
        parity ^= rasterize([triangle], SIZE)
    np.testing.assert_array_equal(parity, rasterize([np.array(corners)], SIZE))


def test_a_mask_partitions_too(tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, SIZE).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "mask.png")
    regions = read_regions(tmp_path / "mask.png")
    assert list(regions) == ["1", "2", "3"]
    counts = count_regions(DENSITY, {**regions, "0": labels == 0}, SIZE, 4)
    assert sum(counts.values()) == pytest.approx(DENSITY.sum(dtype=np.float64), rel=1e-12)
    assert cell_shares(labels == 1, 4)[3, 3] == (labels[12:16, 12:16] == 1).mean()


@pytest.mark.parametrize("mode", ["P", "RGB", "I;16"])
def test_mask_modes(tmp_path, mode):
    if mode == "P":
        image = Image.fromarray(np.array([[0, 1], [1, 5]], np.uint8), "P")
        image.putpalette([9] * 768)
        names = ["1", "5"]
    elif mode == "RGB":
        image = Image.fromarray(np.array([[[0, 0, 0], [255, 0, 0]], [[0, 0, 1], [0, 0, 1]]], np.uint8))
        names = ["#000001", "#ff0000"]
    else:
        image = Image.fromarray(np.array([[0, 300], [300, 40000]], np.uint16))
        names = ["300", "40000"]
    image.save(tmp_path / "mask.png")
    regions = read_regions(tmp_path / "mask.png")
    assert list(regions) == names
    assert regions[names[0]].sum() == 2


def feature(geometry, **properties):
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def test_geojson(tmp_path):
    ring = square(0, 0, 8, 8).tolist()
    hole = square(4, 4, 8, 8).tolist()
    far = square(40, 20, 44, 24).tolist()
    document = {
        "type": "FeatureCollection",
        "features": [
            feature({"type": "Polygon", "coordinates": [[*ring, ring[0]], hole]}, name="left"),
            feature({"type": "MultiPolygon", "coordinates": [[ring], [far]]}),
        ],
    }
    (tmp_path / "r.geojson").write_text(json.dumps(document))
    counts = count_regions(DENSITY, read_regions(tmp_path / "r.geojson"), SIZE, 4)
    block = DENSITY[:2, :2].astype(np.float64)
    assert counts["left"] == pytest.approx(block.sum() - block[1, 1])
    assert counts["region 2"] == pytest.approx(block.sum() + float(DENSITY[5, 10]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "no GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "at least one"),
        ('{"type": "Point", "coordinates": [1, 2]}', "is a Point"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}', "three finite"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], ["a", 5]]]}', "numbers"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [NaN, 5]]]}', "finite"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5]]]}', "finite|numbers"),
        ('{"type": "Polygon", "coordinates": 3}', "numbers"),
        ('{"type": "FeatureCollection", "features": [3]}', "no object"),
        ('{"type": "Feature", "geometry": null}', "is a None"),
    ],
)
def test_broken_geojson_is_one_line(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_regions(tmp_path / "r.json")
    assert "r.json" in str(error.value) and "\n" not in str(error.value)


def test_other_refusals(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_regions(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="neither GeoJSON"):
        read_regions(tmp_path / "x.png")
    Image.new("L", (4, 4)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="all black"):
        read_regions(tmp_path / "black.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match="photograph"):
        read_regions(tmp_path / "photo.png")
    with pytest.raises(UserError, match="5x4 px, the image 50x37"):
        count_regions(DENSITY, {"a": np.ones((4, 5), bool)}, SIZE, 4)
    with pytest.raises(UserError, match="'far' covers no pixel"):
        count_regions(DENSITY, {"far": [square(100, 100, 110, 110)]}, SIZE, 4)


def test_counted_at_another_size_regions_still_partition():
    """Polygons and masks are in the picture's pixels, whatever the size it was counted at."""
    counted = (23, 31)  # 6 x 8 cells
    density = np.random.default_rng(2).random((6, 8))
    labels = np.random.default_rng(1).integers(0, 3, SIZE)
    masks = {str(label): labels == label for label in range(3)}
    halves = {"left": [square(0, 0, 21.3, 37)], "right": [square(21.3, 0, 50, 37)]}
    for regions in (masks, halves):
        counts = count_regions(density, regions, SIZE, 4, counted)
        assert sum(counts.values()) == pytest.approx(density.sum(), rel=1e-6)
    whole = cell_shares(np.ones(SIZE, bool), 4, counted)
    np.testing.assert_allclose(whole, 1, rtol=1e-6)
    # A picture of half the size: the pixel (x, y) became four, and a cell covers 2 x 2 pixels.
    single = np.zeros((10, 10), bool)
    single[2:4, 4:6] = True
    expected = np.zeros((5, 5))
    expected[1, 2] = 1
    np.testing.assert_allclose(cell_shares(single, 4, (20, 20)), expected, atol=1e-6)


def test_a_mask_that_lost_its_labels_is_refused(tmp_path):
    """On commit c572cb6 this JPEG made nine regions of three."""
    labels = np.zeros((64, 96), np.uint8)
    labels[:, :30], labels[:, 30:60], labels[:, 60:] = 1, 2, 3
    Image.fromarray(labels).save(tmp_path / "mask.jpg")
    with pytest.raises(UserError, match="saved as JPEG has other values than its labels: save it as PNG"):
        read_regions(tmp_path / "mask.jpg")


def test_a_mask_starts_no_foreign_program(tmp_path, monkeypatch):
    """PostScript would be given to Ghostscript."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: pytest.fail("Ghostscript was started"))
    (tmp_path / "mask.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="nor a mask: not a picture"):
        read_regions(tmp_path / "mask.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1e308, 0], [0, -1e308]]]}', "beyond 1e\\+09 pixels"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1' + "0" * 400 + ", 0], [0, 1]]]}", "numbers|finite"),
    ],
)
def test_polygons_that_cannot_be(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_regions(tmp_path / "r.json")
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "r.json")
    with pytest.raises(UserError, match="pipe"):
        read_regions(tmp_path / "r.json")


@pytest.mark.parametrize(("suffix", "numbers"), [("png", (1,)), ("gif", (1, 2)), ("tif", (1, 2))])
def test_numbers_beyond_the_palette_that_a_file_has(tmp_path, suffix, numbers):
    image = Image.new("P", (20, 20))
    for number in numbers:
        image.paste(number, (5 * number, 5, 5 * number + 5, 10))
    image.save(tmp_path / f"mask.{suffix}")
    found = {name: int(mask.sum()) for name, mask in read_regions(tmp_path / f"mask.{suffix}").items()}
    assert found == {str(number): 25 for number in numbers}


@pytest.mark.parametrize("save", ["gif", "quantize", "adaptive"])
def test_colours_of_a_palette(tmp_path, save):
    """Ordinary programs give black another number than 0; at commit 4eb5a94 black was a region then, and a colour none."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[4:14, 4:34] = 255, 0, 0
    image[30:46, 20:48] = 0, 255, 0
    picture = Image.fromarray(image)
    path = tmp_path / f"mask.{'gif' if save == 'gif' else 'png'}"
    {
        "gif": lambda: picture,
        "quantize": lambda: picture.quantize(8),
        "adaptive": lambda: picture.convert("P", palette=1),
    }[save]().save(path)
    assert {name: int(mask.sum()) for name, mask in read_regions(path).items()} == {"#00ff00": 448, "#ff0000": 300}
