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
