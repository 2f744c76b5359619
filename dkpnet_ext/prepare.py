"""Check data and show it before training for days: `python -m dkpnet_ext.prepare FOLDER ...`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .cli import Cache, parse, run_command
from .errors import UserError, say


@dataclass
class Arguments:
    """Check data and show it before training for days.

    Reads every image and annotation once, fills the cache that training uses, looks for near-duplicates between
    training and test images, and writes one HTML page with all of it. Exit status 1 if there were unusable files.
    """

    data: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER ...", help_behavior_hint="(required)")
    ]
    """Data sets: a folder in any known layout or a CSV or JSON list, also as NAME=FOLDER or NAME=FOLDER:LAYOUT."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("data.html")
    """The page."""
    min_side: int = 416
    """Images are resized once so that the shorter side is at least this (pixels), as in training."""
    max_side: int = 2048
    """... and the longer side at most this."""
    cache: Cache = None


def main() -> None:
    """Parse, call, print."""
    args = parse(Arguments, "prepare")
    from .data import load_domains
    from .inspection.page import write_page

    if not args.data:
        raise UserError("nothing to check: name a folder, a CSV or JSON list, or synthetic")
    domains = load_domains(args.data, cache=args.cache, min_side=args.min_side, max_side=args.max_side, on_bad="skip")
    write_page(domains, args.output)
    bad = sum(len(domain.report.bad) for domain in domains)
    say(f"{bad} unusable files; look through {args.output}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    run_command(main)
