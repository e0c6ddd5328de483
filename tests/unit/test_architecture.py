"""Rules between rooms, held by reading the code: what imports cost, who may import whom, where names are written."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import batch_observability
from batch_observability import schema

PACKAGE = Path(batch_observability.__file__).parent
FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

# Top to bottom: a room imports only from rooms below it. Rooms that are not built yet have their place already.
ROOMS = (
    "__init__",  # the front door
    "cli",
    "airflow",
    "datadog",  # asks cron how often a job is due
    "lint",  # asks cron what a schedule means
    "cron",
    "web",
    "observing",
    "sidecar",
    "sla",
    "anomaly",
    "export",
    "ledger",
    "inherited",
    "logs",
    "reference",  # prints pages from schema and config
    "declare",
    "run",
    "stages",
    "channel",
    "context",
    "catalog",
    "model",
    "objective",
    "schema",
    "config",
    "urls",
    "usage",
    "private",
    "guard",
    "ambient",
    "failure",
    "redact",
    "ids",
    "_version",
)
# The start of a process of ours opens the door of the room that the process is for; and who asks for the run of a
# process of a job opens that of the room that finds it.
UPWARDS = {("sidecar/__main__.py", "airflow"), ("sidecar/__main__.py", "cron"), ("run.py", "inherited")}
# What looks like a name of the schema and is none.
NOT_OURS = {
    ("airflow/policy.py", "airflow.policy"): "Airflow's name of its policy hooks, for pluggy",
    ("cli/doctor.py", "airflow.plugins"): "Airflow's name of an entry point group",
    ("config.py", "airflow.cfg"): "a file",
}
HEAVY = {"airflow", "datadog", "ddtrace", "opentelemetry", "psutil", "requests", "sqlalchemy", "structlog"}


# --- What imports cost -------------------------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in an interpreter that has loaded nothing of ours."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def foreign(modules: set[str]) -> set[str]:
    """Return the top-level packages among modules that are neither ours nor the standard library's."""
    packages = {module.partition(".")[0] for module in modules} - {"batch_observability", "__mp_main__"}
    # Where this Python's build settings are: a name for each platform.
    return {name for name in packages - sys.stdlib_module_names if not name.startswith("_sysconfigdata")}


def test_the_package_needs_the_standard_library_only():
    assert foreign(loaded_by("import batch_observability")) == set()


def test_the_package_loads_little():
    """Every DAG file imports it, at every parse; measured at the time of writing: 87 modules, 15 ms."""
    modules = loaded_by("import batch_observability")
    assert len(modules) < 110
    slow = {"asyncio", "email", "http", "multiprocessing", "sqlite3", "ssl", "subprocess", "unittest", "urllib.request"}
    assert not modules & slow


def test_the_package_does_not_load_the_rooms_that_a_dag_file_does_not_need():
    rooms = {module.split(".")[1] for module in loaded_by("import batch_observability") if module.count(".") == 1}
    ours = {room for room in rooms if f"{room}.py" in FILES or f"{room}/__init__.py" in FILES}
    assert not ours & {"airflow", "cron", "cli", "web", "datadog", "sidecar", "sla", "anomaly", "export", "ledger"}


def test_the_listener_needs_pluggy_only():
    """All of Airflow's processes load it, whether they run a batch model or not."""
    assert foreign(loaded_by("import batch_observability.airflow.listener")) == {"pluggy"}


@pytest.mark.parametrize("module", ["airflow.policy", "airflow.provider", "airflow.scheduler", "airflow.observed"])
def test_what_airflow_loads_everywhere_is_light(module):
    assert not foreign(loaded_by(f"import batch_observability.{module}")) & HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "sidecar.loop",
        "sidecar.spawn",
        "export.deliver",
        "export.target",
        "airflow.helper",
        "cli",
        "channel",
        "datadog.render",
    ],
)
def test_a_process_of_ours_imports_what_is_heavy_when_it_needs_it(module):
    assert foreign(loaded_by(f"import batch_observability.{module}")) == set()


def test_the_start_of_a_process_loads_nothing_yet():
    """It runs by its path, before the package can be found."""
    code = f"import sys, runpy; runpy.run_path({str(FILES['sidecar/__main__.py'])!r}); print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "batch_observability" not in {module.partition(".")[0] for module in printed.split()}


# --- Who may import whom -----------------------------------------------------------------------------------------


def room_of(name: str) -> str:
    return Path(name).parts[0].removesuffix(".py")


def rooms_imported(name: str) -> Iterator[tuple[str, int]]:
    """Yield the rooms that a file imports from, anywhere in it, with the line."""
    package = ("batch_observability", *Path(name).parent.parts)
    for node in ast.walk(TREES[name]):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join((*above, *(node.module.split(".") if node.module else ())))
            targets = [f"{source}.{alias.name}" for alias in node.names]
        for target in targets:
            first, _, rest = target.partition(".")
            if first == "batch_observability":
                room = rest.partition(".")[0]
                yield (room if room in {room_of(file) for file in FILES} else "__init__"), node.lineno


def test_every_room_has_its_place():
    assert {room_of(name) for name in FILES} <= set(ROOMS)


@pytest.mark.parametrize("name", FILES)
def test_a_room_imports_only_from_rooms_below_it(name):
    place = ROOMS.index(room_of(name))
    upwards = [
        f"{name}:{line} imports {room}"
        for room, line in rooms_imported(name)
        if room != room_of(name) and ROOMS.index(room) <= place and (name, room) not in UPWARDS
    ]
    assert not upwards


def test_the_stated_exceptions_are_used():
    assert {(name, room) for name in FILES for room, _ in rooms_imported(name)} >= UPWARDS


def test_airflow_is_imported_in_its_room_only():
    """DESIGN: one place for each difference."""
    found = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            if any(module.partition(".")[0] == "airflow" for module in modules):
                found.add(room_of(name))
    assert found <= {"airflow", "web"}


# --- Where names are written -------------------------------------------------------------------------------------


def literals(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each text that is written in code, docstrings left out; of an f-string, what stands before its values."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


def names_typed(name: str) -> list[tuple[str, int]]:
    dotted = {
        known for table in (schema.METRICS, schema.ATTRIBUTES, schema.LOG_FIELDS) for known in table if "." in known
    }
    return [
        (text, line)
        for text, line in literals(TREES[name])
        if (text.startswith(("batch_model.", "airflow.")) or text in dotted) and (name, text) not in NOT_OURS
    ]


@pytest.mark.parametrize("name", sorted(set(FILES) - {"schema.py"}))
def test_names_of_telemetry_are_written_in_the_schema_only(name):
    assert names_typed(name) == []


def test_the_names_that_are_not_ours_are_used():
    assert {(name, text) for name, tree in TREES.items() for text, _ in literals(tree)} >= set(NOT_OURS)


def test_every_module_says_what_it_is_for():
    assert not [name for name, tree in TREES.items() if not ast.get_docstring(tree)]


def test_modules_fit_in_a_head():
    assert not [name for name, path in FILES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 300]
