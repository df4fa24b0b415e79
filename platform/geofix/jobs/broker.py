"""The broker carries job ids to workers, and nothing else: losing every message loses no job."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID

from geofix.database.cluster import broker_url
from geofix.errors import ServiceError
from geofix.jobs.specs import QUEUES
from geofix.log import get_logger
from geofix.settings import get_settings

TASK = "geofix.run_job"
_CONNECT_S = 4

_log = get_logger(__name__)


def queue_name(queue: str) -> str:
    """Name of a queue at the broker, which other programs may share."""
    return f"geofix.{queue}"


def celery_app() -> Any:
    """The Celery application of this process.

    Raises:
        ServiceError: Celery is not installed.
    """
    return _app(os.getpid(), broker_url(get_settings()))


@lru_cache(maxsize=4)
def _app(_pid: int, url: str) -> Any:
    try:
        from celery import Celery

        queue_class: Any = importlib.import_module("kombu").Queue
    except ImportError:
        raise ServiceError("Celery is not installed.", hint="pip install 'geofix[workers]'") from None
    app = Celery("geofix", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=[queue_class(queue_name(name), routing_key=queue_name(name)) for name in QUEUES],
        task_default_queue=queue_name("cpu"),
        task_create_missing_queues=False,
        task_acks_late=False,  # the row is the truth: a redelivered message must never mean a second run
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_proc_alive_timeout=60.0,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_timeout=_CONNECT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker outlives any outage of the broker
    )
    if url.startswith(("redis", "sentinel")):
        # A waiting message stays at the broker, where an idle worker finds it (Redis alone has this).
        app.conf.worker_disable_prefetch = True
        app.conf.broker_transport_options = {
            "visibility_timeout": 7 * 24 * 3600,
            "socket_connect_timeout": _CONNECT_S,
            "socket_timeout": 30,
            "socket_keepalive": True,
        }
    return app


def publish(jobs: Sequence[tuple[UUID, str]]) -> list[UUID]:
    """Send (id, queue) to the broker; the ids that arrived, in order, which ends at the first failure.

    A broker that does not answer is no error: the sweep sends again.
    """
    sent: list[UUID] = []
    if not jobs:
        return sent
    try:
        app = celery_app()
        with app.connection_for_write(connect_timeout=_CONNECT_S) as link:
            link.ensure_connection(max_retries=1, timeout=_CONNECT_S, interval_start=0.1)
            with app.amqp.Producer(link) as producer:
                for job_id, queue in jobs:
                    app.send_task(
                        TASK, args=[str(job_id)], queue=queue_name(queue), producer=producer, retry=False
                    )
                    sent.append(job_id)
    except Exception as error:  # every transport raises its own kinds
        _log.warning("the broker took no message; the sweep will send it again", error=str(error))
    return sent


def waiting(queue: str) -> int | None:
    """Messages that wait in a queue; None when the broker does not answer."""
    try:
        app = celery_app()
        with app.connection_for_read(connect_timeout=_CONNECT_S) as link:
            link.ensure_connection(max_retries=1, timeout=_CONNECT_S, interval_start=0.1)
            with link.channel() as channel:
                try:
                    return int(channel.queue_declare(queue_name(queue), passive=True).message_count)
                except link.channel_errors:
                    return 0  # no such queue yet
    except Exception as error:
        _log.warning("the broker does not answer", queue=queue, error=str(error))
        return None
