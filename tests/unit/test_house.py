"""The rules of the house: who may import whom, where SQL may stand, how long a file may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "geofix": ROOT / "platform" / "geofix",
    "geofix_workers": ROOT / "workers" / "geofix_workers",
    "geofix_dashboard": ROOT / "dashboard" / "geofix_dashboard",
}
LONGEST_FILE = 400
TORCH = {"torch", "torchvision", "timm", "safetensors", "tensorboard"}
SQL = re.compile(
    r"""\s*(
      (SELECT|WITH|INSERT\ INTO|UPDATE|DELETE\ FROM|CREATE|ALTER|DROP|TRUNCATE|COPY|GRANT|REVOKE|VACUUM
       |ANALYZE|SET|EXPLAIN)
      \s+[\w"{(*]
      | select\s.+\sfrom\s | insert\s+into\s | delete\s+from\s+\w+\s+where\s | update\s+\w+\s+set\s
      | create\s+(or\ replace|table|view|index|function|role|schema)\s )""",
    re.VERBOSE | re.DOTALL,
)


def sources(*folders: Path) -> list[Path]:
    return sorted(
        path for folder in folders for path in folder.rglob("*.py") if "__pycache__" not in path.parts
    )


def test_imports_only_point_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_short() -> None:
    folders = ["platform", "workers", "dashboard", "migrations", "tests", "benchmarks", "scripts"]
    lengths = {
        path: len(path.read_text().splitlines()) for path in sources(*(ROOT / name for name in folders))
    }
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def docstrings(tree: ast.AST) -> set[int]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, holders))
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def sql_strings(text: str) -> list[tuple[int, str]]:
    """Lines and beginnings of string constants that are SQL statements, docstrings apart."""
    tree = ast.parse(text)
    spared = docstrings(tree)
    return [
        (node.lineno, node.value.strip()[:60])
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in spared
        and SQL.match(node.value)
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "\n  WITH a AS (SELECT 2) SELECT * FROM a",
        "UPDATE {table} SET a = 1",
        "select a from b where c",
        "CREATE TABLE t ()",
    ],
)
def test_the_check_for_sql_sees_statements(statement: str) -> None:
    assert sql_strings(f"x = {statement!r}")
    assert sql_strings(f"run(f{statement.replace('{table}', '{t}')!r})")


def test_the_check_for_sql_spares_prose() -> None:
    assert not sql_strings(
        '"""SELECT is explained here."""\nx = "Select a photo from the list."\ny = "Update the set."'
    )


def test_sql_stands_in_the_database_package_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sources(*PACKAGES.values())
        if PACKAGES["geofix"] / "database" not in path.parents
        for line, text in sql_strings(path.read_text())
    ]
    assert found == []


def imports_on_load(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is loaded: not those in functions or for type checkers."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def module_file(module: str) -> Path | None:
    top, *rest = module.split(".")
    if top not in PACKAGES:
        return None
    base = PACKAGES[top].joinpath(*rest)
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def module_name(path: Path) -> str:
    for name, folder in PACKAGES.items():
        if folder in path.parents:
            parts = path.relative_to(folder).with_suffix("").parts
            return ".".join([name, *(part for part in parts if part != "__init__")])
    raise AssertionError(path)


def loaded_names(module: str, path: Path) -> set[str]:
    names: set[str] = set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in imports_on_load(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def loads(start: list[str]) -> dict[str, str]:
    """Every module that loading these modules loads, with the one that asked for it first; nothing is run."""
    asked = dict.fromkeys(start, "")
    waiting = list(start)
    while waiting:
        module = waiting.pop()
        path = module_file(module)
        if path is None:
            continue
        parents = {module[: dot.start()] for dot in re.finditer(r"\.", module)}
        for name in (loaded_names(module, path) | parents) - asked.keys():
            asked[name] = module
            waiting.append(name)
    return asked


def torch_chain(start: list[str]) -> list[str]:
    """How loading these modules comes to torch: the modules on the way; empty when it does not."""
    asked = loads(start)
    chain = [name for name in asked if name.split(".")[0] in TORCH][:1]
    while chain and asked[chain[-1]]:
        chain.append(asked[chain[-1]])
    return chain[::-1]


def test_the_dashboard_loads_no_torch() -> None:
    assert torch_chain([module_name(path) for path in sources(PACKAGES["geofix_dashboard"])]) == []


def test_no_command_and_no_worker_loads_torch_at_start_up() -> None:
    entries = sources(PACKAGES["geofix"] / "cli", PACKAGES["geofix_workers"])
    assert torch_chain([module_name(path) for path in entries]) == []


def test_training_loads_no_database() -> None:
    folders = [PACKAGES["geofix"] / name for name in ("models", "losses", "training")]
    asked = loads([module_name(path) for path in sources(*folders)])
    assert {name: by for name, by in asked.items() if name.startswith("geofix.database")} == {}


def test_the_built_in_world_uses_spatial_and_imagery_alone() -> None:
    allowed = {"world", "spatial", "imagery", "settings", "errors", "log", "__init__"}
    for path in sources(PACKAGES["geofix"] / "world"):
        for name in loaded_names(module_name(path), path):
            parts = name.split(".")
            if parts[0] == "geofix" and len(parts) > 1 and parts[1] != "__version__":
                assert parts[1] in allowed, f"{path.name} imports {name}"
