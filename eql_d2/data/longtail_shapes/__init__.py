"""``longtail_shapes``: a generated long-tailed data set that needs no download."""

from eql_d2.data.longtail_shapes.generate import generate_longtail_shapes

__all__ = ["generate_longtail_shapes"]
