# One image for every service of geofix; docker-compose.yml gives each its command.
#
# EXTRAS chooses what is in it: `train` brings torch (5 GB), so an image for the dashboard alone is small
# with EXTRAS=dashboard,workers.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-trixie AS build
ARG EXTRAS=train,workers,dashboard
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN python -m venv /app/.venv
# First the requirements alone: this layer, by far the largest, is kept until a version changes.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir -p platform/geofix workers/geofix_workers dashboard/geofix_dashboard \
    && /app/.venv/bin/pip install -c constraints.txt -e ".[${EXTRAS}]"
COPY platform platform
COPY workers workers
COPY dashboard dashboard
COPY migrations migrations
COPY configs configs
COPY alembic.ini ./

FROM python:${PYTHON}-slim-trixie
# postgresql-client: pg_dump and pg_restore for `geofix db backup`, of the server's own major version (17).
# libgomp1: OpenMP, which torch and scipy load.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends postgresql-client-17 libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/geofix --create-home geofix \
    && install -d -o geofix -g geofix /data
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 GEOFIX_HOME=/var/lib/geofix
WORKDIR /app
USER geofix
CMD ["geofix", "status"]
