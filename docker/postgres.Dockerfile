# PostgreSQL 17 with pgvector and PostGIS. No official image has both: pgvector's own image is the official
# PostgreSQL image plus pgvector, and PostGIS comes from the package source that this image already knows.
FROM pgvector/pgvector:pg17

RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-17-postgis-3 \
    && rm -rf /var/lib/apt/lists/*

# Run once, by the image's own entrypoint, when the data folder is empty.
COPY docker/initdb/ /docker-entrypoint-initdb.d/
