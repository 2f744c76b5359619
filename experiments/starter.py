"""Make a run's model the packaged starter model: `python experiments/starter.py RUN_FOLDER [PACKAGE_FOLDER]`.

Stores it in half precision (it computes in float32 after loading) with its model card, at most 3 MB.
"""

import shutil
import sys
from pathlib import Path

from dkpnet_ext.models import load_model


def main() -> None:
    run = Path(sys.argv[1])
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "dkpnet_ext") / "assets" / "starter"
    model = load_model(run / "model")
    shutil.rmtree(target, ignore_errors=True)
    model.half().save_pretrained(target)
    shutil.copy(run / "model" / "README.md", target / "README.md")
    size = sum(f.stat().st_size for f in target.iterdir())
    if size > 3_000_000:
        raise SystemExit(f"{target}: {size / 1e6:.1f} MB is more than a starter model may weigh")
    print(f"{target}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
