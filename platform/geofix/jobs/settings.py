"""How long a worker may be silent, and how often things are looked at."""

from __future__ import annotations

import random
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]


class JobSettings(BaseSettings):
    """Timing of the queue, from GEOFIX_JOB_*; every process of one installation should have the same."""

    model_config = SettingsConfigDict(
        env_prefix="GEOFIX_JOB_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    lease_s: Seconds = Field(60.0, description="A worker silent for this long has lost its job.")
    heartbeat_s: Seconds = Field(2.0, description="Between renewals; a cancel is seen within this time.")
    sweep_s: Seconds = Field(10.0, description="Between two looks for expired leases and lost messages.")
    redeliver_s: Seconds = Field(30.0, description="A message not taken up for this long is sent again.")
    drain_s: Seconds = Field(20.0, description="After SIGTERM a job has this long before it is given back.")
    presence_s: Seconds = Field(15.0, description="Between heartbeats of a worker process.")
    retry_s: Seconds = Field(
        10.0, description="Wait after a first fault that may pass; after the next four times as long."
    )
    retry_max_s: Seconds = Field(600.0, description="No attempt waits longer.")
    warm_s: Seconds = Field(900.0, description="A model that no job asked for this long is unloaded.")
    warm_models: int = Field(2, ge=0, description="Models kept loaded between jobs, per process.")
    recall_every_h: float = Field(24.0, ge=0, description="Between two ANN recall checks by beat; 0: never.")
    retention_every_h: float = Field(24.0, ge=0, description="Between two `geofix gc` by beat; 0: never.")

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_s < 3 * self.heartbeat_s:
            raise ValueError(
                f"lease_s {self.lease_s} must be at least three heartbeats of {self.heartbeat_s} s"
            )
        return self

    def delay_s(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt, spread by a fifth: jobs that failed together part."""
        wait = min(self.retry_s * 4.0 ** (attempt - 1), self.retry_max_s)
        return wait * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
