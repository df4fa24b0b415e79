"""What is shipped: the wheel, the pins, the set-up scripts, the compose file and the example of settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.core import TyperGroup
from typer.main import get_command

from geofix.cli.main import app
from geofix.jobs.settings import JobSettings
from geofix.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE_SECTION = "# ---- docker-compose.yml only ----"
PASSWORDS = [f"GEOFIX_{role}_PASSWORD" for role in ("SUPERUSER", "OWNER", "WRITER", "READER")]


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for group in (PROJECT["dependencies"], *extras) for text in group]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_platform_is_a_source_root_and_no_package() -> None:
    for folder in ("platform", "workers", "dashboard"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_python_finds_its_own_platform_from_the_project_root() -> None:
    code = "import platform, uuid; print(platform.python_version(), uuid.uuid4())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_test_lies_below_the_source_roots() -> None:
    for folder in ("platform", "workers", "dashboard"):
        assert not list((ROOT / folder).rglob("conftest.py"))
        assert not list((ROOT / folder).rglob("test_*.py"))


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_the_three_packages_and_nothing_else(wheel_names: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "geofix",
        "geofix_workers",
        "geofix_dashboard",
    }


@pytest.mark.parametrize("ending", ["sql", "csv"])
def test_wheel_ships_every_file_of_data(wheel_names: list[str], ending: str) -> None:
    found = (ROOT / "platform").rglob(f"*.{ending}")
    written = {path.relative_to(ROOT / "platform").as_posix() for path in found}
    assert written
    assert written <= set(wheel_names)


def test_every_dependency_has_its_reason_beside_it() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in block.splitlines() if line.startswith('  "')]
    assert len(lines) == len(requirements())
    bare = [line for line in lines if not re.search(r'",\s+# \S+', line)]
    assert not bare


def test_every_dependency_is_pinned_once_within_its_range() -> None:
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        (exact,) = pin.specifier
        assert exact.operator == "==", pin
        pinned.setdefault(canonicalize_name(pin.name), []).append(exact.version)
    assert [name for name, versions in pinned.items() if len(versions) > 1] == []
    for wanted in requirements():
        (exact_version,) = pinned[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(exact_version), wanted


def test_environment_has_the_pinned_versions() -> None:
    wanted = {canonicalize_name(item.name) for item in requirements()}
    for pin in pins():
        if canonicalize_name(pin.name) in wanted:
            assert pin.specifier.contains(version(pin.name), prereleases=True), pin


def test_no_registry_or_mirror_is_written_down() -> None:
    files = [
        "constraints.txt",
        "pyproject.toml",
        "Makefile",
        "scripts/setup",
        "scripts/pgvector",
        "scripts/lib.sh",
    ]
    for name in [*files, "docker/geofix.Dockerfile", "docker/postgres.Dockerfile"]:
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", (ROOT / name).read_text()), name


@pytest.mark.parametrize(
    "name", ["scripts/setup", "scripts/pgvector", ".ci/run", "docker/initdb/10-roles-and-database.sh"]
)
def test_scripts_are_executable_and_parse(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / name)], check=True)


def test_make_targets_of_the_contract_exist() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for target in ("setup", "demo", "test", "bench", "lint", "clean", "help"):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
    shown = subprocess.run(
        ["make", "-n", "demo", "SERVE=0"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip().endswith("--no-serve")


def example_lines() -> tuple[list[str], list[str]]:
    own, compose = (ROOT / ".env.example").read_text().split(COMPOSE_SECTION)
    return own.splitlines(), compose.splitlines()


def names_in(lines: list[str]) -> list[str]:
    return [found[1] for line in lines if (found := re.match(r"#?(GEOFIX_[A-Z_]+)=", line))]


def variables(kind: type[Settings] | type[JobSettings]) -> set[str]:
    return {f"{kind.model_config['env_prefix']}{name}".upper() for name in kind.model_fields}


def test_env_example_names_every_setting_once_and_no_other() -> None:
    assert sorted(names_in(example_lines()[0])) == sorted(variables(Settings) | variables(JobSettings))


def test_env_example_has_a_comment_above_every_setting() -> None:
    lines = example_lines()[0]
    for number, line in enumerate(lines):
        if re.match(r"#?GEOFIX_", line):
            assert lines[number - 1].startswith("# "), line


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `.env` that says nothing, in an environment that says nothing."""
    for name in list(os.environ):
        if name.startswith("GEOFIX_"):
            monkeypatch.delenv(name)
    path = tmp_path / ".env"
    path.touch()
    return path


def test_env_example_sets_the_defaults(empty: Path) -> None:
    for kind in (Settings, JobSettings):
        assert kind(_env_file=ROOT / ".env.example") == kind(_env_file=empty)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_env_example_names_every_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    own, extra = example_lines()
    assert used <= {*names_in(own), *names_in(extra)}
    assert set(names_in(extra)) <= used


# Said by the compose file itself, or of no use in a container.
NOT_PASSED = {"DATABASE_URL", "WRITER_URL", "READER_URL", "BROKER_URL", "HOME", "LOG_JSON"}
NOT_PASSED |= {"SHARED", "POSTGRES_BIN", "DASHBOARD_ACCESS", "DASHBOARD_OPERATORS", "DASHBOARD_VIEWERS"}


def test_every_setting_reaches_the_compose_services_with_its_default(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    passed = (variables(Settings) | variables(JobSettings)) - {f"GEOFIX_{name}" for name in NOT_PASSED}
    for kind in (Settings, JobSettings):
        default = kind(_env_file=empty)
        for service, body in compose()["services"].items():
            if service in ("database", "broker"):
                continue
            given = {name: value for name, value in body["environment"].items() if name in passed}
            assert set(given) == passed, service
            for name, value in given.items():
                monkeypatch.setenv(name, re.sub(rf"^\$\{{{name}:-(.*)\}}$", r"\1", value))
            if service == "worker-gpu":
                monkeypatch.setenv("GEOFIX_DEVICE", "auto")
            assert kind(_env_file=empty) == default, service


def test_image_holds_the_configurations_that_pipelines_name() -> None:
    assert "COPY configs configs" in (ROOT / "docker" / "geofix.Dockerfile").read_text()
    assert "!configs" in (ROOT / ".dockerignore").read_text().splitlines()


def test_every_compose_service_has_a_health_check_and_no_password() -> None:
    for name, service in compose()["services"].items():
        assert service["healthcheck"]["test"], name
    text = (ROOT / "docker-compose.yml").read_text()
    for password in PASSWORDS:
        assert re.findall(rf"\$\{{{password}(.)", text) and set(
            re.findall(rf"\$\{{{password}(..)", text)
        ) == {":?"}


def test_compose_services_wait_for_the_migration() -> None:
    services = compose()["services"]
    for name in ("worker-cpu", "worker-interactive", "worker-gpu", "beat", "dashboard"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_only_the_building_services_hold_the_owners_password() -> None:
    holders = set()
    for name, service in compose()["services"].items():
        if "GEOFIX_OWNER_PASSWORD" in str(service.get("environment")):
            holders.add(name)
    assert holders == {"database", "migrate", "worker-cpu", "worker-gpu"}


def test_compose_commands_exist_on_the_command_line() -> None:
    root: Any = get_command(app)
    for service in compose()["services"].values():
        program, *words = service.get("command") or [""]
        if program != "geofix":
            continue
        found: Any = root
        while words and isinstance(found, TyperGroup):
            inner = found.get_command(typer.Context(found), words[0])
            assert inner is not None, f"geofix {words[0]} is no command"
            found = inner
            del words[0]
        options = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_docker_compose_accepts_the_file() -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed; `scripts/setup --with-tests` installs it")
    environment = {**os.environ, **dict.fromkeys(PASSWORDS, "secret")}
    command = ["docker-compose", "--profile", "gpu", "config"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(compose()["services"])


def test_docker_compose_refuses_to_start_without_passwords(tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed; `scripts/setup --with-tests` installs it")
    empty = tmp_path / "empty.env"
    empty.touch()
    environment = {name: value for name, value in os.environ.items() if name not in PASSWORDS}
    command = ["docker-compose", "--env-file", str(empty), "config"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "set it in .env" in done.stderr
