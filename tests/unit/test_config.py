"""Settings: where each is read from, and how a wrong one is told."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from batch_observability.config import (
    ConfigError,
    Settings,
    airflow_option,
    environment,
    load,
    unknown_variables,
)

# One value that is not the default for each setting: as text, and as it is read.
VALUES = {
    "export": ("datadog, OTLP", ("datadog", "otlp")),
    "agentless": ("true", True),
    "agentless_url": ("http://proxy:8080/otlp/", "http://proxy:8080/otlp"),
    "state_dir": (" /var/lib/batchobs ", "/var/lib/batchobs"),
    "catalog": (" /etc/models:~/more.yaml ", "/etc/models:~/more.yaml"),
    "airflow_service": ("etl", "etl"),
    "dag_run_spans": ("false", False),
    "wait_at_end": ("Always", "always"),
    "wait_timeout": ("0.5", 0.5),
    "export_timeout": ("5", 5.0),
    "sample_interval": ("10", 10.0),
    "max_stages": ("7", 7),
    "retry_for": ("5", 5.0),
    "spool_max_mb": ("1", 1),
    "spool_max_hours": ("24", 24),
    "ledger_url": ("postgresql://batchobs@db.example.com/runs", "postgresql://batchobs@db.example.com/runs"),
    "ledger_timeout": ("0.5", 0.5),
    "reconcile_interval": ("30", 30.0),
    "reconcile_after": ("120", 120.0),
    "check_interval": ("60", 60.0),
    "deadline_alerts": ("no", False),
    "log_max_bytes": ("4096", 4096),
    "log_burst": ("0", 0),
    "log_redact": ("ACC-\\d+\n  [A-Z]{3}:\\w+ ", (r"ACC-\d+", r"[A-Z]{3}:\w+")),
    "ship_logs": ("yes", True),
    "capture_max_mb": ("0", 0),
    "lint": (" Refuse ", "refuse"),
    "strict": ("on", True),
}
WRONG = [
    (
        "export",
        "splunk",
        "'splunk' is no target: write a comma separated list of datadog, otlp, agentless, datadog-logs, spool, or auto",
    ),
    ("export", "datadog,auto", "'auto' is no target: write a comma separated list"),
    ("agentless", "otlp", "write true or false"),
    ("agentless_url", "proxy:8080", "write a URL with http or https, for example"),
    ("agentless_url", "http://", "write a URL with http or https, for example"),
    ("agentless_url", "http://host:none", "write a URL with http or https, for example"),
    ("agentless_url", "http://proxy/?key=x", "write a URL with http or https, for example"),
    ("state_dir", "", "write a value, or unset it"),
    ("state_dir", "  ", "write a value, or unset it"),
    ("catalog", "/etc/models:more.yaml", "'more.yaml' is relative, and jobs run in folders of their own"),
    ("catalog", "", "write a value, or unset it"),
    ("airflow_service", "", "write a value, or unset it"),
    ("dag_run_spans", "maybe", "write true or false"),
    ("dag_run_spans", "", "write true or false"),
    ("wait_at_end", "sometimes", "write auto, always or never"),
    ("wait_timeout", "soon", "write a number of seconds, for example 2.5"),
    ("wait_timeout", "2s", "write a number of seconds, for example 2.5"),
    ("wait_timeout", "0", "write a number of seconds between 0 and 86400"),
    ("wait_timeout", "-1", "write a number of seconds between 0 and 86400"),
    ("export_timeout", "nan", "write a number of seconds between 0 and 86400"),
    ("export_timeout", "inf", "write a number of seconds between 0 and 86400"),
    ("sample_interval", "86400", "write a number of seconds between 0 and 86400"),
    ("max_stages", "0", "write a whole number, 1 or more"),
    ("max_stages", "-1", "write a whole number, 1 or more"),
    ("max_stages", "1.5", "write a whole number, 1 or more"),
    ("log_max_bytes", "100", "write a number of bytes between 1024 and 1000000"),
    ("log_max_bytes", "1MB", "write a number of bytes between 1024 and 1000000"),
    ("log_burst", "-1", "write a whole number, 0 or more"),
    ("log_redact", "a(b", "'a(b' is no regular expression: missing ), unterminated subpattern"),
    ("log_redact", "ACC\n[0-9]*", "'[0-9]*' matches the empty text, and so every place"),
    ("ship_logs", "otlp", "write true or false"),
    ("max_stages", "", "write a whole number, 1 or more"),
    ("spool_max_mb", "256MB", "write a whole number, 1 or more"),
    ("spool_max_hours", "7d", "write a whole number, 1 or more"),
    ("retry_for", "0", "write a number of seconds between 0 and 86400"),
    ("ledger_timeout", "5s", "write a number of seconds, for example 2.5"),
    ("reconcile_interval", "0", "write a number of seconds between 0 and 86400"),
    ("reconcile_after", "-1", "write a number of seconds between 0 and 86400"),
    ("check_interval", "1m", "write a number of seconds, for example 2.5"),
    ("deadline_alerts", "maybe", "write true or false"),
    ("lint", "loud", "write off, warn or refuse"),
    ("strict", "very", "write true or false"),
]
settings_and_values = pytest.mark.parametrize(
    ("name", "text", "value"), [(name, *VALUES[name]) for name in VALUES], ids=VALUES
)


def variable(name: str) -> str:
    return f"BATCHOBS_{name.upper()}"


def test_the_table_above_has_every_setting():
    assert list(VALUES) == [f.name for f in fields(Settings)]


def test_defaults():
    assert load({}) == Settings()
    assert Settings().as_frame() == {
        "export": (),
        "agentless": False,
        "agentless_url": "",
        "state_dir": "",
        "catalog": "",
        "airflow_service": "airflow",
        "dag_run_spans": True,
        "wait_at_end": "auto",
        "wait_timeout": 2.0,
        "export_timeout": 30.0,
        "sample_interval": 1.0,
        "max_stages": 1000,
        "retry_for": 30.0,
        "spool_max_mb": 256,
        "spool_max_hours": 168,
        "ledger_url": "",
        "ledger_timeout": 20.0,
        "reconcile_interval": 60.0,
        "reconcile_after": 15.0,
        "check_interval": 20.0,
        "deadline_alerts": True,
        "log_max_bytes": 262_144,
        "log_burst": 1000,
        "log_redact": (),
        "ship_logs": False,
        "capture_max_mb": 10,
        "lint": "warn",
        "strict": False,
    }


@settings_and_values
def test_a_setting_is_read_from_the_environment(name, text, value):
    assert load({variable(name): text}) == Settings(**{name: value})


@settings_and_values
def test_a_setting_is_read_from_airflow_cfg(name, text, value):
    assert load({}, {name: text}.get) == Settings(**{name: value})


@settings_and_values
def test_the_environment_goes_before_airflow_cfg(name, text, value):
    section = dict.fromkeys(VALUES, "none of them is read")
    environ = {variable(other): VALUES[other][0] for other in VALUES}
    assert getattr(load(environ, section.get), name) == value


def test_the_environment_is_that_of_the_process_if_none_is_given(monkeypatch):
    monkeypatch.setenv("BATCHOBS_MAX_STAGES", "7")
    assert load().max_stages == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("auto", ()),
        ("AUTO", ()),
        ("", ()),
        ("spool", ("spool",)),
        (" otlp ,, datadog,otlp", ("otlp", "datadog")),
    ],
)
def test_targets_are_a_list_without_repetition(text, value):
    assert load({"BATCHOBS_EXPORT": text}).export == value


@pytest.mark.parametrize("word", ["true", "True", "1", "yes", "ON"])
def test_words_for_true(word):
    assert load({"BATCHOBS_DAG_RUN_SPANS": word}).dag_run_spans is True


@pytest.mark.parametrize("word", ["false", "FALSE", "0", "no", "off"])
def test_words_for_false(word):
    assert load({"BATCHOBS_DAG_RUN_SPANS": word}).dag_run_spans is False


@pytest.mark.parametrize(("name", "text", "remedy"), WRONG)
def test_a_wrong_setting_is_told_with_name_value_and_remedy(name, text, remedy):
    for place, environ, section in (
        (variable(name), {variable(name): text}, None),
        (f"[batch_observability] {name}", {}, {name: text}.get),
    ):
        with pytest.raises(ConfigError) as caught:
            load(environ, section)
        message = str(caught.value)
        assert message.startswith(f"setting {place} is {text!r}: ")
        assert remedy in message
        assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["dag_run_spans", "wait_at_end", "wait_timeout", "max_stages"])
def test_a_value_of_many_lines_is_told_in_one(name):
    with pytest.raises(ConfigError) as caught:
        load({variable(name): "a\nb"})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["export", "state_dir", "airflow_service", "wait_timeout"])
def test_spaces_around_a_value_do_not_matter(name):
    """A line of an env file, or of a Kubernetes manifest, easily ends in one."""
    text, value = VALUES[name]
    assert load({variable(name): f" {text} "}) == Settings(**{name: value})


@pytest.mark.parametrize("name", ["dag_run_spans", "wait_at_end", "max_stages", "spool_max_mb"])
def test_spaces_around_any_value_do_not_matter(name):
    text, value = VALUES[name]
    assert load({variable(name): f" {text} "}) == Settings(**{name: value})


def test_with_on_error_a_wrong_setting_has_its_default_and_the_others_hold():
    problems = []
    environ = {"BATCHOBS_MAX_STAGES": "many", "BATCHOBS_WAIT_TIMEOUT": "x", "BATCHOBS_SPOOL_MAX_MB": "1"}
    assert load(environ, on_error=problems.append) == Settings(spool_max_mb=1)
    assert [type(problem) for problem in problems] == [ConfigError, ConfigError]
    assert [str(problem).split()[1] for problem in problems] == ["BATCHOBS_WAIT_TIMEOUT", "BATCHOBS_MAX_STAGES"]


def test_a_wrong_variable_does_not_fall_back_to_airflow_cfg():
    problems = []
    assert load({"BATCHOBS_MAX_STAGES": "many"}, {"max_stages": "7"}.get, problems.append).max_stages == 1000
    assert len(problems) == 1


def test_every_setting_has_a_line_of_help():
    for f in fields(Settings):
        text = f.metadata["help"]
        assert text.strip()
        assert len(text.splitlines()) == 1


def test_settings_survive_the_way_to_the_sidecar():
    settings = Settings(**{name: value for name, (_, value) in VALUES.items()})
    assert Settings.from_frame(json.loads(json.dumps(settings.as_frame()))) == settings
    assert Settings.from_frame(json.loads(json.dumps(Settings().as_frame()))) == Settings()


def test_settings_of_another_version_are_passed_over():
    """As frames of unknown kinds are: a package may be replaced on disk while a scheduler runs on."""
    assert Settings.from_frame({**Settings().as_frame(), "newer": 1}) == Settings()


def test_variables_that_are_no_settings_are_found():
    environ = {"BATCHOBS_EXPORTS": "x", "BATCHOBS_": "", "BATCHOBS_EXPORT": "x", "DD_ENV": "x", "batchobs_x": "x"}
    assert unknown_variables(environ) == ["BATCHOBS_", "BATCHOBS_EXPORTS"]
    assert unknown_variables({variable(name): "" for name in VALUES}) == []


# --- The state folder --------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, and none of the variables that say where state is."""
    for name in ("AIRFLOW_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_state_is_under_the_users_state_folder(home):
    assert Settings().state_path == home / ".local/state/batch_observability"


def test_state_is_under_xdg_state_home(home, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "xdg"))
    assert Settings().state_path == home / "xdg/batch_observability"


def test_state_is_with_airflow_where_there_is_one(home, monkeypatch):
    (home / "airflow").mkdir()
    assert Settings().state_path == home / "airflow/batch_observability"
    monkeypatch.setenv("AIRFLOW_HOME", "~/elsewhere")
    assert Settings().state_path == home / "elsewhere/batch_observability"


def test_state_is_where_the_setting_says(home, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    assert Settings(state_dir="~/state").state_path == home / "state"


# --- The environment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dd_env", "attributes", "expected"),
    [
        (None, None, ""),
        ("", "", ""),
        ("prod", "deployment.environment.name=other", "prod"),
        (None, "deployment.environment.name=prod", "prod"),
        (None, "deployment.environment=prod", "prod"),
        (None, "deployment.environment=old,deployment.environment.name=new", "new"),
        (None, "service.name=x, deployment.environment.name = prod ,team=y", "prod"),
        (None, "deployment.environment.name=a=b", "a=b"),
        (None, "nonsense,,=", ""),
    ],
)
def test_the_environment_is_that_of_the_standard_variables(monkeypatch, dd_env, attributes, expected):
    for name, value in (("DD_ENV", dd_env), ("OTEL_RESOURCE_ATTRIBUTES", attributes)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert environment() == expected


def test_the_environment_is_decoded_as_the_opentelemetry_sdk_does(monkeypatch):
    monkeypatch.delenv("DD_ENV", raising=False)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod%20eu")
    assert environment() == "prod eu"


# --- Options of Airflow ------------------------------------------------------------------------------------------


@pytest.fixture
def airflow_cfg(home, monkeypatch):
    """The path of an airflow.cfg that is not there yet, and none of its options in the environment."""
    monkeypatch.delenv("AIRFLOW_CONFIG", raising=False)
    monkeypatch.delenv("AIRFLOW__TRACES__OTEL_ON", raising=False)
    (home / "airflow").mkdir()
    return home / "airflow/airflow.cfg"


def test_an_option_of_airflow_is_read_without_airflow(airflow_cfg, monkeypatch, tmp_path):
    assert airflow_option("traces", "otel_on") is None
    airflow_cfg.write_text("[core]\nx = %(y)s\n[traces]\notel_on = True\n")
    assert airflow_option("traces", "otel_on") == "True"
    assert airflow_option("core", "x") == "%(y)s"
    assert airflow_option("core", "z") is None
    other = tmp_path / "other.cfg"
    other.write_text("[traces]\notel_on = False\n")
    monkeypatch.setenv("AIRFLOW_CONFIG", str(other))
    assert airflow_option("traces", "otel_on") == "False"
    monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", "")
    assert airflow_option("traces", "otel_on") == ""


@pytest.mark.parametrize("text", [b"otel_on = True\n", b"[traces\n", b"[traces]\nx\n", b"[traces]\nx = \xff\n"])
def test_an_airflow_cfg_that_cannot_be_read_is_told_in_one_line(airflow_cfg, text):
    airflow_cfg.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        airflow_option("traces", "otel_on")
    assert str(airflow_cfg) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("AIRFLOW_CONFIG", "~/airflow/airflow.cfg"), ("AIRFLOW_HOME", "$HOME/airflow")]
)
def test_paths_are_expanded_as_airflow_does(airflow_cfg, monkeypatch, name, value):
    airflow_cfg.write_text("[traces]\notel_on = True\n")
    if name == "AIRFLOW_HOME":
        # Not where it is looked for anyway.
        airflow_cfg.parent.rename(airflow_cfg.parent.with_name("elsewhere"))
        value = value.replace("airflow", "elsewhere")
    monkeypatch.setenv(name, value)
    assert airflow_option("traces", "otel_on") == "True"
