"""Data: readers of each data set's own layout, the image cache, transforms, batches, samplers."""

from .dataset import Batch, CrowdDataset, Example, collate
from .domains import Domain, Item, load_domains, split_validation
from .images import BadFile, read_image
from .readers import LAYOUTS, Report
from .samplers import MixSampler
from .transforms import TrainTransform

__all__ = [
    "LAYOUTS",
    "BadFile",
    "Batch",
    "CrowdDataset",
    "Domain",
    "Example",
    "Item",
    "MixSampler",
    "Report",
    "TrainTransform",
    "collate",
    "load_domains",
    "read_image",
    "split_validation",
]
