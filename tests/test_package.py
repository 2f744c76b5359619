"""The package as a whole: what importing it loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("timm", "sklearn", "matplotlib", "lightning", "tyro", "torchvision", "scipy", "huggingface_hub", "triton")


@pytest.mark.parametrize("module", ["dkpnet_ext", "dkpnet_ext.ops"])
def test_import_loads_no_heavy_package(module):
    """Beyond what `import torch` loads by itself (bench/test_install.py measures the seconds)."""
    code = f"import sys, torch; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert module in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(HEAVY)


def test_no_package_imports_a_command():
    """Else `python -m dkpnet_ext.predict` begins with a RuntimeWarning of runpy (found in sys.modules)."""
    code = (
        "import sys, dkpnet_ext, dkpnet_ext.cli; from dkpnet_ext.cli import COMMANDS\n"
        "print(*[c for c in COMMANDS if f'dkpnet_ext.{c}' in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"
