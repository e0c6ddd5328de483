"""How Airflow finds us: entry points, provider information, and a plugins folder that is read twice."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
from importlib.machinery import SourceFileLoader
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import jsonschema
import pytest
from airflow._shared.module_loading.file_discovery import find_path_from_directory
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk._shared.module_loading import import_string
from airflow.settings import get_policy_plugin_manager

from batch_observability import config
from batch_observability.airflow import compat, listener, policy
from batch_observability.airflow.plugin import BatchObservabilityPlugin
from batch_observability.airflow.provider import get_provider_info
from tests.live.agent import REPOSITORY

PLUGINS = REPOSITORY / "plugins"
DISTRIBUTION = "airflow-batch-observability"


def load(path: Path, name: str):
    """Executes a file of a plugins folder as Airflow does."""
    loader = SourceFileLoader(name, str(path))
    module = module_from_spec(spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def plugin_classes(namespace):
    return [
        value
        for value in namespace.values()
        if isinstance(value, type) and issubclass(value, AirflowPlugin) and value is not AirflowPlugin
    ]


def test_the_entry_points_lead_to_what_is_there():
    found = {
        (entry.group, entry.value): entry.load()
        for entry in importlib.metadata.distribution(DISTRIBUTION).entry_points
        if entry.group != "console_scripts"
    }
    assert found["airflow.plugins", "batch_observability.airflow.plugin:BatchObservabilityPlugin"]
    assert found["airflow.policy", "batch_observability.airflow.policy"] is policy
    assert found["apache_airflow_provider", "batch_observability.airflow.provider:get_provider_info"]
    assert len(found) == 3


def test_the_provider_information_is_what_airflows_schema_asks_for():
    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    for decorator in get_provider_info()["task-decorators"]:
        assert callable(import_string(decorator["class-name"]))


def test_airflow_knows_the_decorator_and_the_section_of_its_configuration():
    from airflow.providers_manager import ProvidersManager
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    assert "batch_model" in ProvidersManagerTaskRuntime().taskflow_decorators
    options = dict(ProvidersManager().provider_configs)[DISTRIBUTION]["batch_observability"]["options"]
    assert set(options) == {field.name for field in config.fields(config.Settings)}


def test_a_plugin_module_that_is_executed_twice_is_one_plugin():
    path = PLUGINS / "batch_observability" / "airflow" / "plugin.py"
    first, second = (load(path, name).BatchObservabilityPlugin for name in ("core_plugin", "sdk_plugin"))
    for plugin in (first, second):
        plugin.validate()
        plugin.on_load()
        assert plugin.listeners == [listener]
    assert first.name == second.name == BatchObservabilityPlugin.name
    assert [each for each in get_policy_plugin_manager().get_plugins() if each is policy] == [policy]


def test_the_file_of_the_plugins_folder_holds_no_plugin_where_the_distribution_is_installed():
    namespace = runpy.run_path(str(PLUGINS / "batch_observability_plugin.py"))
    assert plugin_classes(namespace) == []


def test_the_file_of_the_plugins_folder_is_the_plugin_where_nothing_is_installed(monkeypatch):
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    decorators = ProvidersManagerTaskRuntime().taskflow_decorators
    known = decorators.pop("batch_model")
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    try:
        for name in ("core_copy", "sdk_copy"):
            module = load(PLUGINS / "batch_observability_plugin.py", name)
            assert plugin_classes(vars(module)) == [BatchObservabilityPlugin]
        from batch_observability.airflow.decorator import batch_model_task

        assert decorators["batch_model"] is batch_model_task
    finally:
        decorators["batch_model"] = known


def test_a_decorator_that_is_known_is_not_replaced():
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    before = ProvidersManagerTaskRuntime().taskflow_decorators["batch_model"]
    compat.register_task_decorator("batch_model", print)
    assert ProvidersManagerTaskRuntime().taskflow_decorators["batch_model"] is before


@pytest.mark.parametrize("syntax", ["glob", "regexp"])
def test_airflow_takes_no_module_of_the_package_for_a_plugin(syntax):
    found = {Path(path) for path in find_path_from_directory(str(PLUGINS), ".airflowignore", syntax)}
    modules = {path.relative_to(PLUGINS).as_posix() for path in found if path.suffix == ".py"}
    assert modules == {"batch_observability_plugin.py"}


def test_importing_the_plugin_does_not_import_what_is_heavy():
    import subprocess
    import sys

    heavy = ["ddtrace", "datadog", "opentelemetry.sdk", "psutil", "pandas"]
    program = (
        "import sys; import airflow.plugins_manager; before = set(sys.modules);"
        "import batch_observability, batch_observability.airflow.plugin;"
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
