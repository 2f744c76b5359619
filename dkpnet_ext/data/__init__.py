"""Data: readers of each data set's own layout, the image cache, transforms, batches, samplers."""

from .dataset import Batch, CrowdDataset, Example, collate
from .domains import Domain, Item, load_domains, split_validation
from .readers import LAYOUTS, BadFile, Report, read_image
from .samplers import MixSampler
from .transforms import EvalTransform, TrainTransform

__all__ = [
    "LAYOUTS",
    "BadFile",
    "Batch",
    "CrowdDataset",
    "Domain",
    "EvalTransform",
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
