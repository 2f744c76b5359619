"""The NWPU submission file: 1500 lines of id and count."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dkpnet_ext.errors import UserError
from dkpnet_ext.evaluation import submission

ITEMS = [SimpleNamespace(source=Path(f"images/{i}.jpg")) for i in range(5109, 3609, -1)]


def test_a_valid_file(tmp_path):
    counts = np.linspace(-1, 20000, 1500)
    submission.write_submission(tmp_path / "new" / "s.txt", ITEMS, counts)
    lines = (tmp_path / "new" / "s.txt").read_text().splitlines()
    assert len(lines) == 1500
    assert lines[0] == "3610 20000.0000" and lines[-1] == "5109 0.0000"  # negative counts become 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "1499 lines"),
        (lambda lines: [*lines[:-1], "5109  3.0000"], "line 1500"),
        (lambda lines: ["x.jpg 3.0000", *lines[1:]], "line 1 "),
        (lambda lines: ["3610 nan", *lines[1:]], "line 1 "),
        (lambda lines: [lines[1], *lines[1:]], "3611 stands twice"),
    ],
)
def test_wrong_files_are_named(tmp_path, change, message):
    good = [f"{i} 1.0000" for i in range(3610, 5110)]
    path = tmp_path / "s.txt"
    path.write_text("\n".join(good) + "\n")
    submission.check_submission(path)
    path.write_text("\n".join(change(good)) + "\n")
    with pytest.raises(UserError, match=message):
        submission.check_submission(path)


def test_other_images_than_the_test_set(tmp_path):
    with pytest.raises(UserError, match="3 lines; the test set has 1500"):
        submission.write_submission(tmp_path / "s.txt", ITEMS[:3], np.ones(3))


def test_wrong_data_leave_a_good_file(tmp_path):
    """At commit 4eb5a94 the invalid file was there before it was checked."""
    path = tmp_path / "s.txt"
    path.write_text("good")
    items = [SimpleNamespace(source=Path(f"{i}.jpg")) for i in range(3610, 3620)]
    with pytest.raises(UserError, match=rf"{path}: 10 lines"):
        submission.write_submission(path, items, np.ones(10))
    assert [p.name for p in tmp_path.iterdir()] == ["s.txt"] and path.read_text() == "good"
