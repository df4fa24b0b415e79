"""geofix finds where a ground-level photo was taken and makes that a database question."""

__version__ = "0.1.0"
