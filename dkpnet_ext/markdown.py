"""Tables in Markdown, for reports, model cards and the pages of `reproduce`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[object], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A table of texts and numbers that are formatted already.

    Args:
        header: titles of the columns; rows: a cell for each column; left: how many columns, from the first on, are aligned to
            the left; the others are aligned to the right.
    """
    lines = [f"| {' | '.join(map(str, row))} |" for row in (header, *rows)]
    lines.insert(1, "|" + "---|" * left + "---:|" * (len(header) - left))
    return "\n".join(lines)
