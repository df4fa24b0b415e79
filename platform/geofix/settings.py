"""Typed settings, one class per concern, read from the environment and `.env`.

The prefix is ``GEOFIX_``; libpq's own ``PG*`` names are honoured by psycopg itself when
``GEOFIX_DATABASE_URL`` leaves parts out.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything an operator can set without a command-line option."""

    model_config = SettingsConfigDict(
        env_prefix="GEOFIX_", env_file=".env", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    home: Path = Field(Path(".geofix"), description="Data of the embedded servers, models and logs.")
    shared: Path = Field(Path("../shared"), description="Real data for tests and examples, read in place.")
    database_url: SecretStr | None = Field(
        None, description="Owner's connection; unset: the embedded PostgreSQL below home."
    )
    writer_url: SecretStr | None = Field(None, description="Connection of the workers' role; unset: derived.")
    reader_url: SecretStr | None = Field(None, description="Connection of the analysts; unset: derived.")
    broker_url: SecretStr | None = Field(None, description="Celery broker; unset: the embedded Redis.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    log_level: str = Field("INFO", validation_alias=AliasChoices("GEOFIX_LOG_LEVEL", "log_level"))
    log_json: bool = False
    max_photo_pixels: Annotated[int, Field(ge=1_000)] = Field(
        120_000_000, description="Photos above this many pixels are rejected before decoding."
    )
    max_photo_bytes: Annotated[int, Field(ge=1_000)] = 200_000_000
    min_free_bytes: Annotated[int, Field(ge=0)] = Field(
        500_000_000, description="Free space that must remain after a long write."
    )
    sql_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    sql_max_rows: Annotated[int, Field(ge=1)] = 100_000
    partial_answers: bool = Field(
        False, description="Searches answer without the shards that are down, and say so."
    )
    keep_query_photos: bool = Field(
        False, description="Keep the file names of localized photos; never pixels."
    )
    finest_level: Annotated[int, Field(ge=0, le=30)] = Field(
        30, description="No answer is given finer than this S2 level (coarse output)."
    )
    keep_queries_days: Annotated[int, Field(ge=0)] = Field(
        180, description="`geofix gc` removes older answers to localized photos; 0 keeps all."
    )
    keep_audit_days: Annotated[int, Field(ge=0)] = Field(
        730, description="`geofix gc` removes older audit rows; 0 keeps all."
    )
    keep_backups: Annotated[int, Field(ge=1)] = Field(
        5, description="`geofix gc` keeps this many of the dumps made before a migration."
    )
    keep_checkpoints_days: Annotated[int, Field(ge=0)] = Field(
        30, description="`geofix gc` removes the checkpoints of trainings that ended longer ago; 0 keeps all."
    )
    keep_logs_days: Annotated[int, Field(ge=0)] = Field(
        30, description="`geofix gc` removes older logs of the embedded servers; 0 keeps all."
    )
    keep_job_logs_days: Annotated[int, Field(ge=0)] = Field(
        90, description="`geofix gc` removes the log lines of jobs that ended longer ago; 0 keeps all."
    )
    gc_grace_hours: Annotated[float, Field(ge=0)] = Field(
        24.0, description="Unfinished code sets and half-written folders this young may still be in work."
    )
    dashboard_access: Literal["operator", "viewer", "oidc"] | None = Field(
        None,
        description="Role of everyone who reaches the dashboard, or `oidc`: people sign in. Unset: operator "
        "on a loopback address, viewer on any other.",
    )
    dashboard_operators: str | None = Field(
        None, description="Who operates after signing in: e-mail addresses, @domain or *, by commas."
    )
    dashboard_viewers: str | None = Field(None, description="Who looks after signing in, in the same way.")
    postgres_bin: Path | None = Field(None, description="Folder of initdb, pg_ctl; unset: found by itself.")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="Processes for decoding; 0: one per core.")
    semantic_maps: Path | None = Field(
        None, description="Folder or CSV of semantic maps, before those that a model was trained with."
    )
    scene_labels: Path | None = Field(
        None, description="CSV of scenes, before the one that scene networks were trained with."
    )

    @property
    def home_dir(self) -> Path:
        """Absolute home."""
        return self.home.expanduser().resolve()

    def access_at(self, address: str | None) -> Literal["operator", "viewer", "oidc"]:
        """What `dashboard_access` comes to for a dashboard on an address; None: on all of them."""
        if self.dashboard_access is not None:
            return self.dashboard_access
        return "operator" if is_loopback(address) else "viewer"

    @property
    def shared_dir(self) -> Path:
        """Absolute folder of the real data; it may not exist."""
        return self.shared.expanduser().resolve()


def is_loopback(address: str | None) -> bool:
    """Whether only this machine reaches what listens on an address; no name but localhost is looked up."""
    if address is None or address == "localhost":
        return address is not None
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
