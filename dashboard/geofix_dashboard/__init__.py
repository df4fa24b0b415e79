"""geofix."""
