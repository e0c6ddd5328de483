"""`batchobs datadog render`, `plan`, `apply` and `destroy` as a user runs them, against a Datadog on this host."""

from __future__ import annotations

import json
import sys
import time

import pytest

from tests.cli.world import here  # noqa: F401  (a fixture)
from tests.datadog.server import LIMITED, Datadog

CATALOG = """\
models:
  - name: churn-score
    owner: team-risk
    tier: 1
    schedule: 10 3 * * *
    sla: {finish_by: 06:30 Europe/London}
"""


@pytest.fixture
def datadog():
    with Datadog() as started:
        yield started
    assert started.wrong == []


@pytest.fixture
def catalog(tmp_path):
    path = tmp_path / "batch_models.yaml"
    path.write_text(CATALOG)
    return path


@pytest.fixture
def batchobs(here, datadog, catalog, monkeypatch):  # noqa: F811
    """Return a function that runs a command of `batchobs datadog` against it; returns exit code, output and errors."""
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def call(action, *arguments, **variables):
        named = () if action == "destroy" else ("--catalog", str(catalog))
        return here("datadog", action, *named, "--url", datadog.url, *arguments, **{**datadog.environ, **variables})

    return call


def terminal(monkeypatch, answer):
    """Let the user sit at a terminal and write an answer."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    def answered(_question):
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", answered)


# --- render --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml", "terraform"])
def test_what_would_be_there_is_written_without_keys_or_client(here, catalog, tmp_path, monkeypatch, form):  # noqa: F811
    monkeypatch.setitem(sys.modules, "datadog_api_client", None)
    out = tmp_path / "out"
    code, said, errors = here("datadog", "render", "--catalog", str(catalog), "--out", str(out), "--format", form)
    assert (code, errors) == (0, "")
    files = [one for one in out.rglob("*") if one.is_file() and not one.name.startswith(".")]
    assert f"resources in {len(files)} files below {out}" in said
    assert "churn-score" in "".join(one.read_text() for one in files)


def test_environments_site_and_platform_are_rendered(here, catalog, tmp_path):  # noqa: F811
    given = ("--env", "prod", "--env", "qa", "--site", "datadoghq.eu", "--platform", "@slack-us")
    here("datadog", "render", "--catalog", str(catalog), "--out", str(tmp_path / "out"), *given)
    monitor = json.loads((tmp_path / "out/monitor/churn-score/failed/qa.json").read_text())
    assert "https://app.datadoghq.eu/logs" in monitor["message"]
    assert "@slack-us" in (tmp_path / "out/monitor/telemetry_dropped.json").read_text()
    assert (tmp_path / "out/monitor/churn-score/failed/prod.json").exists()


def test_several_catalogs_are_one(here, catalog, tmp_path):  # noqa: F811
    other = tmp_path / "other.yaml"
    other.write_text("models:\n  - name: demand\n")
    code, _, _ = here(
        "datadog", "render", "--catalog", str(catalog), "--catalog", str(other), "--out", str(tmp_path / "out")
    )
    assert code == 0
    assert (tmp_path / "out/monitor/demand/failed/prod.json").exists()
    other.write_text("models:\n  - name: churn-score\n")
    code, _, errors = here(
        "datadog", "render", "--catalog", str(catalog), "--catalog", str(other), "--out", str(tmp_path / "out")
    )
    assert code == 2
    assert "other.yaml:2" in errors
    assert "is in" in errors


def test_terraform_imports_what_is_there(batchobs, tmp_path, datadog):
    assert batchobs("apply")[0] == 0
    code, _, errors = batchobs("render", "--out", str(tmp_path / "tf"), "--format", "terraform", "--import")
    assert (code, errors) == (0, "")
    imports = json.loads((tmp_path / "tf/import.tf.json").read_text())["import"]
    kept = (vars(datadog.organization)[name] for name in ("monitors", "slos", "dashboards", "pipelines", "filters"))
    ids = {str(id_) for ids in kept for id_ in ids}
    assert {one["id"] for one in imports} == {*ids, "service:default/churn-score"}
    code, _, errors = batchobs("render", "--out", str(tmp_path / "x"), "--import")
    assert (code, "--import with --format json" in errors) == (2, True)


# --- plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_read_as_a_diff(batchobs, catalog):
    code, said, errors = batchobs("plan")
    assert (code, errors) == (0, "")
    assert "+ monitor churn-score/failed/prod  [prod] churn-score: a run failed" in said
    assert " to create, 0 to change, 0 to remove with --prune, 0 unchanged." in said.splitlines()[-1]
    batchobs("apply")
    catalog.write_text(CATALOG.replace("tier: 1", "tier: 2\n    runbook: https://wiki.example.com/churn"))
    _, said, _ = batchobs("plan")
    changed = said[said.index("~ monitor churn-score/failed/prod (") :]
    assert "    message\n      @@ -" in changed
    assert "      -- Runbook: none in the catalog\n      +- Runbook: https://wiki.example.com/churn\n" in changed
    assert "    tags\n      - tier:1\n      + tier:2\n    priority\n      - 1\n      + 2\n" in changed
    assert max(map(len, said.splitlines())) < 300
    assert "- monitor churn-score/at_risk/prod (" in said
    assert "(only with --prune)" in said


def test_a_plan_is_json_for_a_program(batchobs):
    found = json.loads(batchobs("plan", "--json")[1])
    assert found["counts"]["create"] == len(found["changes"]) > 10
    assert {one["action"] for one in found["changes"]} == {"create"}


def test_the_exit_code_is_that_of_terraform_where_it_is_asked_for(batchobs, datadog):
    assert batchobs("plan", "--detailed-exitcode")[0] == 2
    batchobs("apply")
    assert batchobs("plan", "--detailed-exitcode")[0] == 0
    # Something that only --prune would remove is no change that apply would make.
    assert batchobs("apply", "--env", "qa")[0] == 0
    assert batchobs("plan", "--detailed-exitcode")[0] == 0
    code, _, errors = batchobs("plan", "--detailed-exitcode", DD_APP_KEY="")
    assert (code, "DD_APP_KEY is not set" in errors) == (1, True)


def test_a_plan_changes_nothing(batchobs, datadog):
    batchobs("plan")
    assert {one.split()[0] for one in datadog.requests} == {"GET"}


# --- apply ---------------------------------------------------------------------------------------------------------


def test_it_is_applied_once(batchobs):
    code, said, errors = batchobs("apply")
    assert (code, errors) == (0, "")
    lines = said.splitlines()
    assert all(line.endswith(" created") for line in lines[:-1])
    assert lines[-1] == f"Done: {len(lines) - 1} created, 0 changed, 0 removed, 0 unchanged."
    code, said, _ = batchobs("apply")
    assert (code, said) == (0, f"Done: 0 created, 0 changed, 0 removed, {len(lines) - 1} unchanged.\n")


def test_what_is_refused_is_named_at_the_end(batchobs, datadog):
    datadog.refused.append("churn-score: a run failed")
    code, said, errors = batchobs("apply")
    assert (code, errors) == (1, "")
    assert "! monitor churn-score/failed/prod failed: create_monitor was answered 400, The value provided" in said
    assert "! monitor churn-score/page/prod skipped: needs monitor/churn-score/failed/prod, which was refused" in said
    last = said.splitlines()[-1]
    assert "1 failed, 1 skipped. Failed: monitor/churn-score/failed/prod. Mend it and run it again" in last


def test_a_wait_for_the_rate_limit_is_told(batchobs, datadog):
    datadog.faults[8] = LIMITED
    code, said, errors = batchobs("apply")
    assert (code, errors) == (0, "batchobs: Datadog's rate limit is reached: waiting 7 s\n")
    assert said.splitlines()[-1].startswith("Done: ")


def test_what_is_not_in_the_catalog_stays_and_is_told(batchobs, datadog):
    batchobs("apply", "--env", "qa", "--env", "prod")
    before = len(datadog.organization.monitors)
    code, said, _ = batchobs("apply")
    assert code == 0
    assert "managed resources are not in the catalog any more: --prune removes them" in said
    assert len(datadog.organization.monitors) == before


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("no", 1), (None, 1)])
def test_pruning_is_asked_for_at_a_terminal(batchobs, datadog, monkeypatch, answer, code):
    batchobs("apply", "--env", "qa", "--env", "prod")
    before = len(datadog.organization.monitors)
    terminal(monkeypatch, answer)
    found, said, _ = batchobs("apply", "--prune")
    assert found == code
    assert "- monitor churn-score/failed/qa (" in said
    assert (len(datadog.organization.monitors) < before) == (code == 0)


def test_without_a_terminal_only_yes_prunes(batchobs, datadog):
    batchobs("apply", "--env", "qa", "--env", "prod")
    code, _, errors = batchobs("apply", "--prune")
    assert code == 2
    assert "there is no terminal to ask at: add --yes" in errors
    assert batchobs("apply", "--prune", "--yes")[0] == 0
    assert not [one for one in datadog.organization.monitors.values() if "env:qa" in one["tags"]]
    assert batchobs("apply", "--prune")[0] == 0


def test_an_interrupt_says_how_to_go_on(batchobs, monkeypatch):
    from batch_observability.datadog.kinds import AT

    monkeypatch.setattr(AT["slo"], "make", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, said, _ = batchobs("apply")
    assert (code, said.splitlines()[-1].endswith("Interrupted: run it again, it goes on from here.")) == (130, True)
    monkeypatch.undo()


def test_an_interrupt_while_it_reads_changed_nothing(batchobs, datadog, monkeypatch):
    from batch_observability.datadog.kinds import AT

    monkeypatch.setattr(AT["slo"], "listed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    code, said, errors = batchobs("apply")
    assert (code, said, errors) == (130, "", "batchobs: interrupted: nothing was changed yet\n")


# --- destroy -------------------------------------------------------------------------------------------------------


def test_all_that_is_managed_is_removed(batchobs, datadog):
    batchobs("apply")
    code, _, errors = batchobs("destroy")
    assert (code, "add --yes" in errors) == (2, True)
    assert batchobs("destroy", "--yes")[0] == 0
    state = datadog.organization.state()
    assert not any(state.values())
    code, said, _ = batchobs("destroy")
    assert (code, said) == (0, "Done: 0 created, 0 changed, 0 removed, 0 unchanged.\n")


def test_a_no_destroys_nothing(batchobs, datadog, monkeypatch):
    batchobs("apply")
    before = datadog.organization.state()
    terminal(monkeypatch, "n")
    code, _, errors = batchobs("destroy")
    assert (code, errors) == (1, "batchobs: nothing was changed\n")
    assert datadog.organization.state() == before


# --- What can be wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("plan",), {"DD_API_KEY": ""}, "DD_API_KEY is not set: export an API key"),
        (("apply",), {"DD_APP_KEY": ""}, "DD_APP_KEY is not set: export an application key"),
        (("destroy",), {"DD_APP_KEY": ""}, "DD_APP_KEY is not set"),
        (("plan", "--url", "http://example.com"), {}, "would carry keys in the clear"),
        (("plan", "--site", "eu"), {}, "site 'eu' is none of Datadog's"),
        (("plan", "--env", "Prod"), {}, "environment 'Prod'"),
        (("apply", "--platform", "me"), {}, "handle 'me' notifies nobody"),
        (("plan", "--catalog", "nowhere.yaml"), {}, "nowhere.yaml cannot be read"),
        (("render", "--out", "/proc/x"), {}, "--out '/proc/x' cannot be written"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(batchobs, arguments, variables, words):
    code, said, errors = batchobs(*arguments, **variables)
    assert (code, said) == (2, "")
    assert words in errors
    assert errors.count("\n") == 1


def test_without_a_catalog_one_is_asked_for(here, datadog):  # noqa: F811
    code, _, errors = here("datadog", "plan", **datadog.environ)
    expected = "batchobs: no catalog is named, and this host has none: write --catalog batch_models.yaml\n"
    assert (code, errors) == (2, expected)


def test_the_catalog_of_the_host_is_rendered_if_none_is_named(here, catalog, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    assert here("datadog", "render", "--out", str(out), BATCHOBS_CATALOG=str(catalog))[0] == 0
    assert (out / "monitor/churn-score/failed/prod.json").exists()
    catalog.write_text("models:\n  - name: churn-score\n    tier: 0\n")
    code, _, errors = here("datadog", "render", "--out", str(out), BATCHOBS_CATALOG=str(catalog))
    assert (code, errors.startswith(f"batchobs: {catalog}:3: ")) == (2, True)


def test_without_the_client_the_command_that_installs_it_is_named(batchobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "datadog_api_client", None)
    code, _, errors = batchobs("plan")
    assert (code, "pip install 'airflow-batch-observability[datadog-api]'" in errors) == (2, True)


def test_what_datadog_answers_to_wrong_keys_is_one_line(batchobs, datadog):
    wrong = "x" * 32
    code, said, errors = batchobs("plan", DD_API_KEY=wrong)
    assert (code, said) == (1, "")
    assert "answered 401, Unauthorized: the keys are not accepted" in errors
    assert wrong not in errors
    assert errors.count("\n") == 1
    code, _, errors = batchobs("render", "--out", "x", "--format", "terraform", "--import", DD_API_KEY=wrong)
    assert (code, "answered 401" in errors) == (1, True)


def test_no_key_is_ever_printed(batchobs, datadog):
    datadog.refused.append("churn-score: a run failed")
    datadog.faults[9] = LIMITED
    printed = "".join(
        text
        for action in ("plan", "apply")
        for text in batchobs(action, "--prune" if action == "apply" else "--json")[1:]
    )
    assert printed
    assert not [key for key in datadog.keys.values() if key in printed]
