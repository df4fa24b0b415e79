from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from geofix.database.urls import broker_url, database_url, to_url, without_secret
from geofix.errors import UsageError
from geofix.settings import Settings


def settings(**values: str | Path) -> Settings:
    blank = dict.fromkeys(("database_url", "writer_url", "reader_url", "broker_url"))
    return Settings(_env_file=None, **(blank | values))  # type: ignore[arg-type]


def test_embedded_urls_name_the_role_and_the_socket(tmp_path: Path) -> None:
    for role in ("owner", "writer", "reader"):
        parts = conninfo_to_dict(database_url(settings(home=tmp_path), role))  # type: ignore[arg-type]
        assert parts["user"] == f"geofix_{role}"
        assert parts["dbname"] == "geofix"
        assert parts["host"].startswith("/")


def test_a_url_of_ones_own_wins_and_roles_follow_without_its_password() -> None:
    own = settings(database_url="postgresql://boss:s3cret@db.example:6543/places?sslmode=require")
    place = {"host": "db.example", "port": "6543", "dbname": "places", "sslmode": "require"}
    assert conninfo_to_dict(database_url(own)) == place | {"user": "boss", "password": "s3cret"}
    assert conninfo_to_dict(database_url(own, "reader")) == place | {"user": "geofix_reader"}


def test_each_role_may_have_its_own_url() -> None:
    own = settings(database_url="postgresql://a@x/d", reader_url="postgresql://r:p@y/d")
    assert conninfo_to_dict(database_url(own, "reader"))["host"] == "y"
    assert conninfo_to_dict(database_url(own, "writer"))["user"] == "geofix_writer"


@pytest.mark.parametrize(
    "given",
    ["postgresql+psycopg://u:p@h:1/d", "postgres://u:p@h:1/d", "host=h port=1 user=u password=p dbname=d"],
)
def test_other_spellings_become_one(given: str) -> None:
    assert database_url(settings(database_url=given)) == "postgresql://u:p@h:1/d"


@pytest.mark.parametrize(
    "parts",
    [
        {"user": "u@x", "password": "p:/?#%@é ", "host": "h", "port": "1", "dbname": "d/ e"},
        {"user": "u", "host": "/run/a b,c", "port": "5432", "dbname": "d"},
        {"user": "u", "host": "::1", "port": "5432", "dbname": "d"},
        {"user": "u", "host": "a,b", "port": "1,2", "dbname": "d"},
        {"dbname": "d"},
    ],
)
def test_to_url_round_trips(parts: dict[str, str]) -> None:
    assert conninfo_to_dict(to_url(parts)) == parts


def test_nonsense_is_refused_without_showing_a_password() -> None:
    with pytest.raises(UsageError) as caught:
        database_url(settings(database_url="postgresql://u:s3cret@h/d?colour=red"))
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UsageError, match="root"):
        database_url(settings(), "root")  # type: ignore[arg-type]


def test_broker_urls(tmp_path: Path) -> None:
    assert broker_url(settings(broker_url="amqp://u:p@h//")) == "amqp://u:p@h//"
    assert broker_url(settings(home=tmp_path)).startswith("redis+socket:///")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p%40ss@h:1/d", "postgresql://u:***@h:1/d"),
        ("redis://:p@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://h:6379/0?password=p&x=1", "redis://h:6379/0?password=***&x=1"),
        (
            "postgresql://u@/d?host=%2Frun%2Fa&sslpassword=p",
            "postgresql://u@/d?host=%2Frun%2Fa&sslpassword=***",
        ),
        (
            "redis+socket:///run/a/redis.sock?virtual_host=0",
            "redis+socket:///run/a/redis.sock?virtual_host=0",
        ),
    ],
)
def test_without_secret(url: str, shown: str) -> None:
    assert without_secret(url) == shown
