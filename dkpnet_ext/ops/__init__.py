"""Fused operators. Interim wrappers over the reference: each stem's module replaces its own line."""


from . import reference
from .reference import attended_head, pooled_features
from .reweight import reweight
from .variational import VariationalOutput, variational


def density(points, offsets, size, *, stride=4, sigma=4.0, truncate=1.75):
    return reference.density(points, offsets, size, stride=stride, sigma=sigma, truncate=truncate)
