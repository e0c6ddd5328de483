"""
The gate: catalogs and DAG files in, findings out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from batch_observability.catalog import Catalog, read
from batch_observability.lint import dag_files, tags
from batch_observability.lint.dag_files import DagFile
from batch_observability.lint.findings import Finding, Severity, Subject
from batch_observability.lint.ignores import silence
from batch_observability.lint.reading import PACKAGE, Folder, UnreadableError
from batch_observability.lint.rules import RULES, complaints, mistake
from batch_observability.lint.subjects import subjects

CATALOGS = "batch_models*"
_YAML = (".yaml", ".yml")
_PASSED_OVER = ("__pycache__", "node_modules", "site-packages")
# Looked at only where there is what they need.
LATER = ("tight-objective", "custom-metrics", "unused-ignore")


@dataclass(frozen=True)
class Read:
    """
    What was read.

    Attributes:
        catalog: of all files.
        files: DAG files and scripts.
        subjects: the models of both.
        findings: what is wrong so far, of all rules but those of `LATER`.
        names: of all files that were read.
    """

    catalog: Catalog = field(default_factory=Catalog)
    files: tuple[DagFile, ...] = ()
    subjects: tuple[Subject, ...] = ()
    findings: tuple[Finding, ...] = ()
    names: frozenset[str] = frozenset()


def look(paths: Sequence[Path]) -> Read:
    """
    Read files and folders, and look at what is in them.

    Args:
        paths: `*.py` are DAG files or scripts, others catalogs; a folder with Python in it is one of DAG files, whose
            catalogs are called `batch_models*.yaml`; any other folder is a catalog.
    """
    catalogs, scripts = sort(paths)
    catalog, mistakes = read(catalogs)
    found = [mistake("catalog", one.text, one.file, one.line) for one in mistakes]
    folder = Folder(tuple(path for path in paths if path.is_dir()))
    files = []
    for path in scripts:
        try:
            source = folder.source(path)
            if path in paths or _may_matter(path):
                files.append(dag_files.read(source))
        except UnreadableError as error:
            found.append(mistake("dag-file", str(error), str(path), error.line))
        except RecursionError:
            text = "its expressions are nested too deeply to be read here: its models are not looked at"
            found.append(replace(mistake("dag-file", text, str(path), 1), severity=Severity.WARNING))
    known = subjects(catalog, files)
    found += [*_of_files(files), *complaints(known)]
    names = {str(path) for path in (*catalog.files, *scripts)}
    return Read(catalog, tuple(files), tuple(known), tuple(found), frozenset(names))


def finish(of: Read, more: Collection[Finding] = (), looked: Collection[str] = ()) -> tuple[list[Finding], int]:
    """
    Return all findings by place, without those that comments silence; and how many these are.

    Args:
        of: what was read.
        more: findings of rules that need more than files.
        looked: those of these rules that were looked at.
    """
    ran = {*RULES} - {*LATER} | {*looked}
    kept, silenced = silence([*of.findings, *more], of.names, ran)
    order = list(Severity)
    return sorted(
        kept, key=lambda one: (one.file, one.line, order.index(one.severity), one.rule, one.message)
    ), silenced


def sort(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return catalogs and Python files of files and folders."""
    catalogs: dict[Path, None] = {}
    scripts: dict[Path, None] = {}
    for path in paths:
        if path.is_dir() and (python := list(_below(path, "*.py"))):
            scripts |= dict.fromkeys(python)
            catalogs |= dict.fromkeys(one for one in _below(path, CATALOGS) if one.suffix in _YAML)
        elif path.suffix == ".py":
            scripts[path] = None
        else:
            catalogs[path] = None
    return list(catalogs), list(scripts)


def _below(folder: Path, pattern: str) -> Iterator[Path]:
    for path in sorted(folder.rglob(pattern)):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part in _PASSED_OVER for part in parts):
            yield path


def _may_matter(path: Path) -> bool:
    """Whether a file of a folder may hold models or tasks: as Airflow's safe mode has it, or by our name."""
    text = path.read_bytes().lower()
    return PACKAGE.encode() in text or (b"dag" in text and b"airflow" in text)


def _of_files(files: Sequence[DagFile]) -> Iterator[Finding]:
    for file in files:
        for one in file.declarations:
            for key, text in one.mistakes():
                written = one.written.get(key)
                yield mistake("model-code", text, one.file, written.line if written else one.line, one.name)
        for rule, complaint in tags.unbounded_recorded(file):
            yield RULES[rule].finding(complaint)
        yield from map(RULES["tag-outside-list"].finding, tags.tag_outside_list(file))
