"""The private PostgreSQL and Redis that `geofix up` starts below its home."""
