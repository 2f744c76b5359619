"""Check data sets before training and show them on a page: `python -m dkpnet_ext.prepare FOLDER ...`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from .cli import Cache, parse, run_command
from .errors import UserError, say


@dataclass
class Arguments:
    """Check data and show it before training for days.

    Reads every image and annotation once, fills the cache that training uses, looks for near-duplicates between
    training and test images, and writes one HTML page with all of it. Exit status 1 if there were unusable files.
    With --to it converts them to another layout.
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
    to: Literal["list", "coco", "shanghaitech"] | None = None
    """Also write the data sets in this layout, each into a folder of its name below --into."""
    into: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("converted")
    """Where to."""


def main() -> None:
    """Parse, call, print."""
    args = parse(Arguments, "prepare")
    from .data import load_domains
    from .data.convert import convert
    from .data.readers import read_domain
    from .inspection.page import write_page

    if not args.data:
        raise UserError("nothing to check: name a folder, a CSV or JSON list, or synthetic")
    domains = load_domains(args.data, cache=args.cache, min_side=args.min_side, max_side=args.max_side, on_bad="skip")
    for line in write_page(domains, args.output):
        say(line)
    for domain in domains:
        if args.to is None:
            break
        records, _ = read_domain(domain.name, domain.root, domain.layout, progress=False)
        broken = {path for path, _ in domain.report.bad}  # whose headers may be whole
        records = {split: [record for record in rows if record.image not in broken] for split, rows in records.items()}
        written = convert(records, args.to, args.into / domain.name)
        say(f"{domain.name}: {written} images written to {args.into / domain.name} in the layout {args.to}")
    bad = sum(len(domain.report.bad) for domain in domains)
    say(f"{bad} unusable files; look through {args.output}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    run_command(main)
