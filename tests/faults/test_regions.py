"""Regions that cannot be counted in."""

import json

import pytest
from faults import Fault, answered

from dkpnet_ext.counting.regions import read_regions


def polygon(ring, **properties):
    feature = {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


TABLE = [
    Fault("empty", "", "regions"),
    Fault("a list", "[]", "GeoJSON"),
    Fault("a number", "3", "GeoJSON"),
    Fault("null", "null", "GeoJSON"),
    Fault("an empty object", "{}", "GeoJSON"),
    Fault("cut off", '{"type": "Feature', "regions"),
    Fault("no features", '{"type": "FeatureCollection", "features": []}', "region"),
    Fault("features are words", '{"type": "FeatureCollection", "features": ["a"]}', "regions"),
    Fault("features are null", '{"type": "FeatureCollection", "features": null}', "regions"),
    Fault("a feature without geometry", '{"type": "Feature", "properties": {}}', "regions"),
    Fault("a point", '{"type": "Point", "coordinates": [3, 4]}', "Point|regions"),
    Fault("a line", '{"type": "LineString", "coordinates": [[0, 0], [5, 5]]}', "LineString|regions"),
    Fault("coordinates are missing", '{"type": "Polygon"}', "regions"),
    Fault("coordinates are words", '{"type": "Polygon", "coordinates": "abc"}', "regions"),
    Fault("coordinates are empty", '{"type": "Polygon", "coordinates": []}', "regions"),
    Fault("a ring of two points", polygon([[0, 0], [5, 5]]), "regions"),
    Fault("a ring of words", polygon([["a", "b"], ["c", "d"], ["e", "f"]]), "regions"),
    Fault("a ring of numbers", polygon([1, 2, 3, 4]), "regions"),
    Fault("a ring with NaN", '{"type": "Polygon", "coordinates": [[[NaN, 0], [5, 5], [0, 5]]]}', "regions"),
    Fault("a ring with Infinity", '{"type": "Polygon", "coordinates": [[[Infinity, 0], [5, 5], [0, 5]]]}', "regions"),
    Fault("a ring with 1e308", polygon([[1e308, 0], [5, 5], [0, 5]]), "regions"),
    Fault("a ring with huge whole numbers", polygon([[10**400, 0], [5, 5], [0, 5]]), "regions"),
    Fault("100,000 brackets", "[" * 100_000, "regions"),
    Fault("a ring of single numbers", polygon([[1], [2], [3]]), "regions"),
    Fault("a ring with null", polygon([[None, 0], [5, 5], [0, 5]]), "regions"),
    Fault("a ring of texts with numbers", polygon([["1", "2"], ["3", "4"], ["5", "6"]]), "numbers"),
    Fault("a ring with true and false", polygon([[True, False], [5, 0], [5, 5]]), "numbers"),
    Fault("an empty outer ring", '{"type": "Polygon", "coordinates": [[], [[0, 0], [5, 0], [5, 5]]]}', "ring"),
    Fault("a feature whose geometry is null", '{"type": "Feature", "properties": {}, "geometry": null}', "None"),
    Fault(
        "an empty collection of geometries", '{"type": "GeometryCollection", "geometries": []}', "GeometryCollection"
    ),
    Fault("TopoJSON", '{"type": "Topology", "objects": {}}', "Topology"),
    Fault("a file of labelme", '{"shapes": [{"label": "a", "points": [[0, 0], [5, 5], [5, 0]]}]}', "GeoJSON"),
    Fault("UTF-16", polygon([[0, 0], [5, 0], [5, 5]]).encode("utf-16"), "regions"),
    Fault(
        "two regions of one name",
        '{"type": "FeatureCollection", "features": ['
        + ", ".join([polygon([[0, 0], [5, 0], [5, 5]], name="a")[43:-2]] * 2)
        + "]}",
        "two regions",
    ),
    Fault("bytes", b"\xff\xfe\x00", "regions"),
]
FILES = [
    Fault("no such file", "none.geojson", "no such file"),
    Fault("a folder", ".", "regions"),
    Fault("a device", "/dev/zero", "no such file|not a file"),
    Fault("a text as mask", "mask.txt", "regions"),
    Fault("PostScript as mask", "mask.eps", "regions"),
    Fault("a photograph as mask", "photo.png", "regions"),
    Fault("an empty mask", "black.png", "regions"),
]
TABLE = [*TABLE, *FILES]


@pytest.mark.parametrize("fault", [f for f in TABLE if f not in FILES], ids=lambda fault: fault.name)
def test_geojson(fault, tmp_path):
    path = tmp_path / "regions.geojson"
    path.write_bytes(fault.given if isinstance(fault.given, bytes) else fault.given.encode())
    answered(lambda: read_regions(path), fault.answer)


@pytest.mark.parametrize("fault", FILES, ids=lambda fault: fault.name)
def test_file(fault, tmp_path, monkeypatch):
    import layouts
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mask.txt").write_text("no mask")
    (tmp_path / "mask.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\nshowpage\n")
    layouts.picture(tmp_path / "photo.png", (200, 200))
    Image.new("L", (64, 48)).save(tmp_path / "black.png")
    answered(lambda: read_regions(fault.given), fault.answer)
