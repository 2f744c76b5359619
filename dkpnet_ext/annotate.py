"""Label heads in a folder of pictures on a local page: `python -m dkpnet_ext.annotate FOLDER`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .cli import Checkpoint, Device, parse, run_command
from .errors import UserError, say


@dataclass
class Arguments:
    """Label heads in a folder of pictures on a local page.

    Click on every head; grey points are what a model proposes. Every change is saved at once. Finished pictures are
    listed in FOLDER/train.json (val.json, test.json for those in folders of these names), which `train --data FOLDER`
    reads. Ctrl-C ends it.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(required)")]
    """Of the pictures, also in folders below it."""
    checkpoint: Checkpoint = None
    host: str = "127.0.0.1"
    """Address to listen on; with 0.0.0.0 other machines reach the page, too, to label together."""
    port: int = 7861
    """Port to listen on; 0 takes any free one."""
    device: Device = "auto"


def main() -> None:
    """Parse, load, serve."""
    args = parse(Arguments, "annotate")
    from .annotation.page import AnnotatePage
    from .annotation.store import DRAFTS, Store
    from .device import pick_device
    from .files import locked, output_folder
    from .models import load_model
    from .webserver import run

    if not args.folder.is_dir():
        raise UserError(f"{args.folder}: no such folder")
    device = pick_device(args.device)
    with locked(output_folder(args.folder / DRAFTS)):
        store = Store(args.folder)
        model = load_model(args.checkpoint).to(device).for_inference()
        say(f"{args.folder}: {len(store.pictures)} pictures, {sum(x.done for x in store.labels.values())} finished")
        run(AnnotatePage(store, model, args.checkpoint or "starter", host=args.host), args.host, args.port)


if __name__ == "__main__":
    run_command(main)
