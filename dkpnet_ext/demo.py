"""Try a model on a local page: `python -m dkpnet_ext.demo`."""

from __future__ import annotations

from dataclasses import dataclass

from .cli import Checkpoint, Device, Engine, parse, run_command


@dataclass
class Arguments:
    """Try a model on a local page.

    Open the address it prints, and drop a picture there: its count, its density, whether it is like the pictures that
    the model learned from, and counts of regions that you draw. Ctrl-C ends it.
    """

    checkpoint: Checkpoint = None
    host: str = "127.0.0.1"
    """Address to listen on; with 0.0.0.0 other machines reach the page, too."""
    port: int = 7860
    """Port to listen on; 0 takes any free one."""
    device: Device = "auto"
    engine: Engine = "auto"


def main() -> None:
    """Parse, load, serve."""
    args = parse(Arguments, "demo")
    from .counting.webpage import DemoPage
    from .device import pick_device
    from .models import load_model
    from .webserver import run

    device = pick_device(args.device)
    model = load_model(args.checkpoint).to(device).for_inference(args.engine)
    run(DemoPage(model, args.checkpoint or "starter", host=args.host), args.host, args.port)


if __name__ == "__main__":
    run_command(main)
