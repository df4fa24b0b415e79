"""The Celery application of a worker, for `celery -A geofix_workers.app` and tools such as Flower."""

from __future__ import annotations

from geofix.jobs.broker import celery_app
from geofix_workers import lifecycle, tasks

app = celery_app()
tasks.register(app)
lifecycle.connect_signals()
