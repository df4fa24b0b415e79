"""The built-in world: a procedural mini continent, written as ordinary photos, orthophotos and boundaries."""

from geofix.world.write import WorldSummary, create_world

__all__ = ["WorldSummary", "create_world"]
