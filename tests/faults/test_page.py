"""The page docs/faults.md counts the corpus. `python tests/faults/test_page.py` writes it anew."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page() -> str:
    """The page's text: a row for each table of the corpus."""
    rows = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        table = runpy.run_path(str(path)).get("TABLE")
        if table is not None:
            title = (path.read_text().split('"""')[1].splitlines()[0]).rstrip(".").split(":")[0]
            rows.append((title, len(table)))
    total = sum(number for _, number in rows)
    lines = [f"| {title} | {number} |" for title, number in rows]
    return "\n".join(
        [
            "# Broken inputs",
            "",
            f"The tests give {total} broken inputs to the commands and functions. Each of the {total} raises an error of one line",
            "that says what is wrong. A traceback is a bug: please report it.",
            "",
            "| what | inputs |",
            "|---|---:|",
            *lines,
            f"| **all** | **{total}** |",
            "",
            "The inputs and the expected messages are tables in `tests/faults`. `python tests/faults/test_page.py` writes this",
            "page.",
            "",
        ]
    )


def test_the_page_counts_the_corpus():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert text == page(), "docs/faults.md is out of date: python tests/faults/test_page.py"
    assert int(text.split("\n")[2].split()[3]) >= 300


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    (ROOT / "docs" / "faults.md").write_text(page(), encoding="utf-8")
