"""Lists of images and points that people write by hand or by a script."""

import json

import layouts
import pytest
from faults import Fault, answered

from dkpnet_ext.data import load_domains

GOOD = 'image,points\na.png,"[[3, 4]]"\n'
# The content of train.csv, beside a.png and b.png of 64 x 48 pixels.
CSV = [
    Fault("an empty file", "", "train.csv"),
    Fault("no header", 'a.png,"[[3, 4]]"\n', "image"),
    Fault("another header", "file,count\na.png,3\n", "file,count"),
    Fault("no column points", "image,heads\na.png,3\n", "points"),
    Fault("no column image", 'name,points\na.png,"[[3, 4]]"\n', "image"),
    Fault("a column twice", 'image,points,points\na.png,"[]","[[3, 4]]"\n', "points"),
    Fault("points without quotes", "image,points\na.png,[[3, 4], [5, 6]]\n", "quotes"),
    Fault("too few fields", "image,points\na.png\n", "line 2"),
    Fault("points are empty", "image,points\na.png,\n", "no points"),
    Fault("points are a word", "image,points\na.png,many\n", "many"),
    Fault("points are a number", "image,points\na.png,3\n", "3"),
    Fault("points are cut off", 'image,points\na.png,"[[3, 4], [5"\n', "line 2"),
    Fault("points are one pair", 'image,points\na.png,"[3, 4]"\n', "line 2"),
    Fault("points are triples", 'image,points\na.png,"[[3, 4, 5]]"\n', "line 2"),
    Fault("points of unequal length", 'image,points\na.png,"[[3, 4], [5]]"\n', "line 2"),
    Fault("points are words", 'image,points\na.png,"[[""a"", ""b""]]"\n', "line 2"),
    Fault("points are true", 'image,points\na.png,"[[true, false]]"\n', "line 2"),
    Fault("points are null", 'image,points\na.png,"[[null, 3]]"\n', "line 2"),
    Fault("points are NaN", 'image,points\na.png,"[[NaN, 3]]"\n', "NaN"),
    Fault("points are infinite", 'image,points\na.png,"[[Infinity, 3]]"\n', "infinite"),
    Fault("points of 400 digits", 'image,points\na.png,"[[1' + "0" * 400 + ', 3]]"\n', "line 2"),
    Fault("points are an object", 'image,points\na.png,"{""x"": 3}"\n', "neither pairs"),
    Fault("points are deeply nested", 'image,points\na.png,"' + "[" * 5000 + '"\n', "line 2"),
    Fault(
        "points of one image are fractions",
        'image,points\na.png,"[[0.25, 0.5], [0.75, 0.5], [0.1, 0.9]]"\nb.png,"[[30, 20]]"\n',
        "fractions",
    ),
    Fault("a points file that does not exist", "image,points\na.png,none.csv\n", "none.csv"),
    Fault("a points file that is an image", "image,points\na.png,b.png\n", "b.png"),
    Fault("a points file without x,y", "image,points\na.png,bad.csv\n", "bad.csv"),
    Fault("a points file that is a folder", "image,points\na.png,sub\n", "sub"),
    Fault("a points file that two images share", "image,points\na.png,xy.csv\nb.png,xy.csv\n", "xy.csv"),
    Fault("an image that does not exist", 'image,points\nc.png,"[[3, 4]]"\n', "c.png"),
    Fault("an image that is a folder", 'image,points\nsub,"[[3, 4]]"\n', "sub"),
    Fault("an image that is text", 'image,points\nxy.csv,"[[3, 4]]"\n', "xy.csv"),
    Fault("no image name", 'image,points\n,"[[3, 4]]"\n', "line 2"),
    Fault("an image twice", GOOD + 'a.png,"[[5, 6]]"\n', "again"),
    Fault("an image twice, written differently", GOOD + './a.png,"[[5, 6]]"\n', "again"),
    Fault("a name with a zero byte", 'image,points\na\x00.png,"[]"\n', "train.csv"),
    Fault("only a header", "image,points\n", "train|no "),
    Fault("not UTF-8", b'image,points\n\xff\xfe.png,"[]"\n', "UTF-8"),
    Fault("a picture called train.csv", b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, "train.csv"),
    Fault("semicolons", 'image;points\na.png;"[[3, 4]]"\n', "image;points"),
    Fault("tabs", "image\tpoints\na.png\t[[3, 4]]\n", "image"),
    Fault("an open quote", 'image,points\na.png,"[[3, 4]]\n', "train.csv"),
    Fault("an absolute path that does not exist", 'image,points\n/nowhere/a.png,"[]"\n', "a.png"),
    Fault("a web address", 'image,points\nhttp://example.com/a.png,"[]"\n', "a.png"),
    Fault("UTF-16", 'image,points\na.png,"[[3, 4]]"\n'.encode("utf-16"), "UTF-8"),
    Fault("a header in capitals", 'Image,Points\na.png,"[[3, 4]]"\n', "Image,Points"),
    Fault("a comment in front", '# mine\nimage,points\na.png,"[[3, 4]]"\n', "image"),
    Fault("points are nested twice", 'image,points\na.png,"[[[3, 4]]]"\n', "line 2"),
    Fault("points with colons", 'image,points\na.png,"3:4"\n', "3:4"),
    Fault("points with decimal commas", 'image,points\na.png,"[[3,5, 4,5]]"\n', "line 2"),
    Fault("points far to the left", 'image,points\na.png,"[[-500, -400]]"\n', "far outside"),
    Fault("points of a larger picture", 'image,points\na.png,"[[10, 4000]]"\n', "far outside"),
    Fault("a pattern as image", 'image,points\n*.png,"[]"\n', "no such image"),
    Fault(
        "a path out of the folder to no picture", 'image,points\n../../../../../../../../etc/passwd,"[]"\n', "passwd"
    ),
    Fault("an image in other letters", 'image,points\nA.PNG,"[[3, 4]]"\n', "no such image"),
    Fault("counts in place of points", "image,count\na.png,5\n", "count"),
]
# The content of train.json.
JSON = [
    Fault("an empty JSON file", "", "train.json"),
    Fault("an object", "{}", "train.json"),
    Fault("a word", '"x"', "train.json"),
    Fault("null", "null", "train.json"),
    Fault("cut off", '[{"image": "a.png", ', "train.json"),
    Fault("entries are words", '["a.png"]', "entry 0|no annotation"),
    Fault("entries are pairs", '[["a.png", [[3, 4]]]]', "entry 0"),
    Fault("no points", '[{"image": "a.png"}]', "entry 0"),
    Fault("no image", '[{"points": []}]', "entry 0"),
    Fault("the image is a number", '[{"image": 3, "points": []}]', "entry 0"),
    Fault("points are null in JSON", '[{"image": "a.png", "points": null}]', "entry 0"),
    Fault("points are a number in JSON", '[{"image": "a.png", "points": 3}]', "entry 0"),
    Fault("points are objects in JSON", '[{"image": "a.png", "points": [{"u": 3, "v": 4}]}]', "entry 0"),
    Fault("points are boolean in JSON", '[{"image": "a.png", "points": [[true, true]]}]', "entry 0"),
    Fault("points are NaN in JSON", '[{"image": "a.png", "points": [[NaN, 1]]}]', "NaN"),
    Fault("deep", "[" * 100_000, "train.json"),
    Fault("single quotes", "[{'image': 'a.png', 'points': []}]", "train.json"),
    Fault("points are columns", '[{"image": "a.png", "points": {"x": [3], "y": [4]}}]', "entry 0"),
    Fault("points of 1e400", '[{"image": "a.png", "points": [[1e400, 3]]}]', "entry 0"),
    Fault("the image is a list", '[{"image": ["a.png"], "points": []}]', "entry 0"),
    Fault("an image with a zero byte", '[{"image": "a\\u0000.png", "points": []}]', "entry 0|null byte"),
    Fault("an image with half a character", '[{"image": "\\ud800.png", "points": []}]', "image|entry 0"),
    Fault("an entry that is a number", '[{"image": "a.png", "points": []}, 5]', "entry 1"),
    Fault("Latin-1", '[{"image": "\xe9.png", "points": []}]'.encode("latin-1"), "UTF-8"),
    Fault("comments", '// mine\n[{"image": "a.png", "points": []}]', "train.json"),
    Fault("a trailing comma", '[{"image": "a.png", "points": []},]', "train.json"),
]
SPECS = [
    Fault("no such folder", ["A=nowhere"], "nowhere"),
    Fault("an unknown layout", ["A=list:foo"], "foo"),
    Fault("no name", ["=list"], "="),
    Fault("no folder", ["A="], "A="),
    Fault("a name twice", ["A=list", "A=list"], "A"),
    Fault("an empty folder", ["A=empty"], "empty"),
    Fault("only pictures", ["A=pictures"], "pictures"),
    Fault("a picture as data set", ["A=list/a.png"], "a.png"),
    Fault("a layout that does not fit", ["A=list:shanghaitech"], "shanghaitech"),
    Fault("a device file", ["A=/dev/null"], "null"),
    Fault("test is train", ["A=twins"], "the only picture of test is in train"),
]
TABLE = [*CSV, *JSON, *SPECS]


def folder_with(tmp_path, name, content):
    for picture in ("a.png", "b.png"):
        layouts.picture(tmp_path / "list" / picture)
    (tmp_path / "list" / "sub").mkdir()
    (tmp_path / "list" / "xy.csv").write_text("x,y\n3,4\n")
    (tmp_path / "list" / "bad.csv").write_text("a,b\n3,4\n")
    path = tmp_path / "list" / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / "list"


@pytest.mark.parametrize("fault", CSV, ids=lambda fault: fault.name)
def test_csv(fault, tmp_path):
    root = folder_with(tmp_path, "train.csv", fault.given)
    answered(lambda: load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False), fault.answer)


@pytest.mark.parametrize("fault", JSON, ids=lambda fault: fault.name)
def test_json(fault, tmp_path):
    root = folder_with(tmp_path, "train.json", fault.given)
    answered(lambda: load_domains([f"X={root}"], cache=tmp_path / "cache", progress=False), fault.answer)


@pytest.mark.parametrize("fault", SPECS, ids=lambda fault: fault.name)
def test_data_set(fault, tmp_path, monkeypatch):
    folder_with(tmp_path, "train.json", json.dumps([{"image": "a.png", "points": [[3, 4]]}]))
    (tmp_path / "empty").mkdir()
    layouts.picture(tmp_path / "pictures" / "1.jpg")
    for name in ("train", "test"):
        (layouts.picture(tmp_path / "twins" / "a.png").with_name(f"{name}.csv")).write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    answered(lambda: load_domains(fault.given, cache=tmp_path / "cache", progress=False), fault.answer)
