"""The paper's tables and figures, one file a kind: each writes Markdown, CSV and PNG, and enters itself with `base.page`."""

from . import attention, centers, comparisons, levels, parameters, pictures, unseen
from .base import Context, Page, pages

PAGES = pages()

__all__ = [
    "PAGES", "Context", "Page", "attention", "centers", "comparisons", "levels", "parameters", "pictures", "unseen",
]  # fmt: skip
