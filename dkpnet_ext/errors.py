"""`UserError`, the exception for bad input, and `say`, which prints a line on any stream."""

from __future__ import annotations

import os
import sys
import unicodedata


class UserError(Exception):
    """Bad input from outside: the message is one line that says what, where, and what to do."""


class OutputClosed(UserError):
    """Standard output takes no more lines (its reader has ended, or its disk is full)."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror}; results so far are kept")
        self.reader_gone = isinstance(error, BrokenPipeError)


_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # what follows shows in another order


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""One line of text for a stream: control characters, line ends, bytes that are not UTF-8 and characters outside
    of ``encoding`` become escapes such as ``\n``, ``\x1b``, ``\udcff`` or ``\xe9``."""
    text = "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _REORDERING
        else c
        for c in text
    )
    return text.encode(encoding, "backslashreplace").decode(encoding)


def say(line: str, *, error: bool = False) -> None:
    """Print one line (see `printable`) to stdout, or to stderr, and flush it.

    Raises:
        OutputClosed: stdout does not take it. A stderr that does not is left alone: nothing else could say so.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        stream.write(printable(line, stream.encoding or "utf-8") + "\n")
        stream.flush()
    except OSError as problem:
        refused = closed(stream, problem)
        if not error:
            raise refused from None


def closed(stream: object, problem: OSError) -> OutputClosed:
    """What to raise for a stream that takes no more. Its descriptor points at nothing from now on: Python flushes it again
    at its end."""
    try:
        target = os.open(os.devnull, os.O_WRONLY)
        os.dup2(target, stream.fileno())  # type: ignore[attr-defined]
        os.close(target)
    except OSError:  # not a real file (a test's stand-in)
        pass
    return OutputClosed(problem)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception is Python's, torch's or a GPU's word for too little memory."""
    words = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")
    text = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(word in text for word in words))
