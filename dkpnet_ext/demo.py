"""Try a model on a local page: `python -m dkpnet_ext.demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from .errors import run_command

STARTER = "(default: the starter model that comes with the package)"


@dataclass
class Arguments:
    """Try a model on a local page.

    Open the address it prints, and drop a picture there: its count, its density, the nearest domain, and counts of
    regions that you draw. Ctrl-C ends it.
    """

    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="CHECKPOINT", help_behavior_hint=STARTER)] = None
    """Folder with config.json and model.safetensors, the folder of a training run, or a hub id."""
    host: str = "127.0.0.1"
    """Address to listen on; with 0.0.0.0 other machines reach the page, too."""
    port: int = 7860
    """Port to listen on; 0 takes any free one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto takes a GPU if there is one."""


def main() -> None:
    """Parse, load, serve."""
    args = tyro.cli(Arguments, prog="python -m dkpnet_ext.demo")
    from .counting.webpage import DemoPage, serve
    from .evaluation.inference import pick_device
    from .files import checkpoint_folder
    from .models import load_model

    device = pick_device(args.device)
    model = load_model(checkpoint_folder(args.checkpoint)).for_inference().to(device)
    server = serve(DemoPage(model, args.checkpoint or "starter"), args.host, args.port)
    address = f"[{args.host}]" if ":" in args.host else args.host
    print(f"open http://{address}:{server.port} (Ctrl-C ends it)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    run_command(main)
