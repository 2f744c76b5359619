"""The operators: each stem's module registers it with PyTorch and chooses a backend (`backend.use_backend`)."""

from .backend import use_backend
from .bayesian import bayesian
from .density import density, knn_sigma
from .depthwise import depthwise
from .head import attended_head, head
from .inverted_residual import InvertedResidual, inverted_residual
from .pointwise import pointwise
from .pool import pool, pooled_features
from .projection import Projection, projection
from .reweight import reweight
from .transport import TransportOutput, transport
from .variational import VariationalOutput, variational

__all__ = [
    "InvertedResidual",
    "Projection",
    "TransportOutput",
    "VariationalOutput",
    "attended_head",
    "bayesian",
    "density",
    "depthwise",
    "head",
    "inverted_residual",
    "knn_sigma",
    "pointwise",
    "pool",
    "pooled_features",
    "projection",
    "reweight",
    "transport",
    "use_backend",
    "variational",
]
