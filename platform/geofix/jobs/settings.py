"""How long a worker may be silent, and how often things are looked at."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]


class JobSettings(BaseSettings):
    """Timing of the queue, from GEOFIX_JOB_*; every process of one installation should have the same."""

    model_config = SettingsConfigDict(env_prefix="GEOFIX_JOB_", env_file=".env", extra="ignore")

    lease_s: Seconds = Field(60.0, description="A worker silent for this long has lost its job.")
    heartbeat_s: Seconds = Field(2.0, description="Between renewals; a cancel is seen within this time.")
    sweep_s: Seconds = Field(10.0, description="Between two looks for expired leases and lost messages.")
    redeliver_s: Seconds = Field(30.0, description="A message not taken up for this long is sent again.")
    drain_s: Seconds = Field(20.0, description="After SIGTERM a job has this long before it is given back.")
    presence_s: Seconds = Field(15.0, description="Between heartbeats of a worker process.")

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_s < 3 * self.heartbeat_s:
            raise ValueError(
                f"lease_s {self.lease_s} must be at least three heartbeats of {self.heartbeat_s} s"
            )
        return self
