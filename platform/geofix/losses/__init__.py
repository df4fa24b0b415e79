"""Losses on unit vectors: between photos and tiles of a batch, and against a table of prototypes."""

from geofix.losses.multi_similarity import MultiSimilarity
from geofix.losses.pairs import pair_term
from geofix.losses.prototype_terms import prototype_terms
from geofix.losses.sampled import SampledNegatives
from geofix.losses.softmax import Softmax

__all__ = ["MultiSimilarity", "SampledNegatives", "Softmax", "pair_term", "prototype_terms"]
