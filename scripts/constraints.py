"""Print constraints.txt for the environment that runs this: `make constraints`."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

HEADER = """\
# Exact versions that are known to work together, on Python 3.11, 3.12 and 3.13 alike.
# scripts/setup and the images install with `-c constraints.txt`; pyproject.toml says which versions may work.
#
# To renew: delete .venv and this file's pins, run scripts/setup, run all tests, then `make constraints`.
# torch and torchvision are a pair: torchvision's compiled operators load into the matching torch alone.
# torch itself pins its CUDA libraries exactly, so they are not repeated here.
"""
PINNED_BY_TORCH = re.compile(r"(nvidia|cuda)-|triton$")
SEEDED_BY_VENV = {"pip", "setuptools", "wheel"}


def canonical(name: str) -> str:
    """A distribution's name as the package index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    """The canonical name at the start of a requirement."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return canonical(found[0])


def render(project: dict[str, object], installed: dict[str, str]) -> str:
    """The file's text: the project's own requirements by extra, then everything that they bring along."""
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})  # type: ignore[assignment]
    groups = {
        "needed always": project["dependencies"],
        **{f"extra [{name}]": extras[name] for name in extras},
    }
    lines, seen = [HEADER], {canonical(str(project["name"]))} | SEEDED_BY_VENV
    for title, requirements in groups.items():
        names = sorted({requirement_name(item) for item in requirements} - seen)  # type: ignore[attr-defined]
        lines += [f"# {title}", *(f"{name}=={installed[name]}" for name in names), ""]
        seen |= set(names)
    rest = sorted(name for name in installed if name not in seen and not PINNED_BY_TORCH.match(name))
    lines += ["# brought along by the above", *(f"{name}=={installed[name]}" for name in rest)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the constraints of this environment to standard output."""
    root = Path(__file__).resolve().parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {canonical(item.name): item.version for item in distributions()}
    sys.stdout.write(render(project, installed))


if __name__ == "__main__":
    main()
