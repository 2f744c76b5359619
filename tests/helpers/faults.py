"""The form of the corpus in tests/faults: a table of broken inputs, each with the answer that it must get."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from dkpnet_ext.errors import UserError


class Fault(NamedTuple):
    """A broken input: its name in the table, what is given, and a pattern that the answer must hold."""

    name: str
    given: Any
    answer: str


def answered(action: Callable[[], object], answer: str, kinds: tuple[type[Exception], ...] = (UserError,)) -> None:
    """``action`` raises one of ``kinds`` with one line that holds the pattern ``answer``."""
    try:
        action()
    except kinds as error:
        line = str(error)
    else:
        raise AssertionError("the broken input was taken without a word")
    assert "\n" not in line, f"more than one line: {line!r}"
    assert 10 < len(line) < 600, line
    assert re.search(answer, line), line
