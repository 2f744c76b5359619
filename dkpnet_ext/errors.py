"""The one exception a user should ever see, and how a command shows it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Bad input from outside: the message is one line that says what, where, and what to do."""


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run a command's ``main``; a `UserError` becomes one line on stderr and exit status 2, Ctrl-C becomes 130."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
