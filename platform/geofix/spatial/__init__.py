"""Where things are on the globe: S2 cells, coverings, great circles and local metric frames.

Every longitude and latitude is in degrees (EPSG:4326), every length in metres, every cell id an int64 in
two's complement (the same 64 bits as `bigint` in PostgreSQL).
"""
