"""The operators: each stem's module registers it with PyTorch and chooses a backend (`backend.use_backend`)."""

from .backend import use_backend
from .density import density, knn_sigma
from .depthwise import depthwise
from .head import attended_head, head
from .pointwise import pointwise
from .pool import pool, pooled_features
from .reweight import reweight
from .variational import VariationalOutput, variational

__all__ = [
    "VariationalOutput",
    "attended_head",
    "density",
    "depthwise",
    "head",
    "knn_sigma",
    "pointwise",
    "pool",
    "pooled_features",
    "reweight",
    "use_backend",
    "variational",
]
