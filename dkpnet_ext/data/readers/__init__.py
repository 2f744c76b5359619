"""Readers: an annotated data set as it lies on a user's disk -> checked `Record`s; one file a layout.

A layout's file says what its folder looks like, how it is recognised, and walks over its images. `read_domain`
checks every entry once. It reads image headers only (the pixels are decoded once, by the cache), so that 5000 images
take seconds, and it collects what it saw in a `Report`.
"""

from ..images import BadFile
from .base import as_points
from .check import OnBad, Record, Report, bad_lines, check_points, read_domain
from .layouts import LAYOUTS, find_layout

__all__ = [
    "LAYOUTS",
    "BadFile",
    "OnBad",
    "Record",
    "Report",
    "as_points",
    "bad_lines",
    "check_points",
    "find_layout",
    "read_domain",
]
