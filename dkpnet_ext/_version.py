"""The version, in the one place where it is written (pyproject.toml and the compiled module take it from here)."""

__version__ = "0.1.0"
