"""What a job was understood as is kept for its next start: it is used only as long as it is true, whole and ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_observability import config
from batch_observability.cron import preparing, ready
from batch_observability.cron.job import Job
from batch_observability.model import BatchModel
from tests.cron.jobs import COMMAND, captured, finished, run, state
from tests.live import wait_until

NOBODY = 54_321
# What only a start that reads its options loads.
READS = ("argparse", "batch_observability.cli.commands")


def kept() -> list[Path]:
    return sorted((state() / "ready").glob("*"))


def reads_options(*words: str, **how) -> bool:
    """Whether a start reads its options, as the first one does."""
    asked = [sys.executable, "-X", "importtime", *COMMAND, *words]
    done = subprocess.run(asked, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=True, **how)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "batch_observability.cron.runner" in loaded
    return loaded.issuperset(READS)


def told(count: int) -> list[dict]:
    return sorted(finished(count), key=lambda one: one["timestamp"])


def test_the_second_start_reads_no_options_and_tells_the_same():
    asked = ("--model", "churn", "--owner", "team-risk", "--sla-finish-within", "20m", "--", "echo", "hello")
    first = run(*asked)
    assert [path.stat().st_mode & 0o777 for path in kept()] == [0o600]
    assert not reads_options(*asked)
    assert (first.returncode, first.stdout) == (0, b"hello\n")
    one, other = told(2)
    changing = ("timestamp", "dd.trace_id", "dd.span_id", "batch_model.run_id", "process.pid")
    measured = ("duration", "cpu.time", "memory.peak", "sla_margin.finish_within")
    for name in (*changing, *(f"batch_model.{name}" for name in measured)):
        assert one.pop(name) != 0
        assert other.pop(name) != 0
    assert one == other


def test_a_named_job_is_known_whatever_it_runs():
    run("--model", "churn", "--", "echo", "one")
    assert not reads_options("--model", "churn", "--", "echo", "other")
    assert len(kept()) == 1


def test_a_job_with_an_empty_name_is_called_after_its_script(tmp_path):
    for name in ("one", "other"):
        (tmp_path / f"{name}.sh").write_text("")
        run("--model", "", "--", "sh", str(tmp_path / f"{name}.sh"))
    assert {record["batch_model.name"] for record in told(2)} == {"one", "other"}


@pytest.mark.parametrize(
    "other",
    [
        ("--model", "churn", "--owner", "b"),
        ("--model", "churn", "--owner", "a", "--tier", "1"),
        ("--owner", "a", "--model", "churn"),
    ],
)
def test_other_options_are_read(other):
    run("--model", "churn", "--owner", "a", "--", "true")
    assert reads_options(*other, "--", "true")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCHOBS_CAPTURE_MAX_MB", "0"),
        ("BATCHOBS_WHATEVER_COMES", "1"),
        ("AIRFLOW__BATCH_OBSERVABILITY__MAX_STAGES", "5"),
        ("DD_ENV", "production"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=risk"),
        ("PYTHONPATH", "/nowhere"),
    ],
)
def test_a_variable_that_a_setting_may_be_is_honoured(monkeypatch, name, value):
    run("--", "true")
    assert not reads_options("--", "true")
    monkeypatch.setenv(name, value)
    assert reads_options("--", "true")
    assert not reads_options("--", "true")
    monkeypatch.delenv(name)
    assert not reads_options("--", "true")


@pytest.mark.thorough
def test_a_setting_that_changes_counts_for_the_next_start(monkeypatch):
    run("--model", "quiet", "--", "echo", "heard")
    assert [line["event"] for line in captured("quiet")] == ["heard"]
    monkeypatch.setenv("BATCHOBS_CAPTURE_MAX_MB", "0")
    run("--model", "quiet", "--", "echo", "unheard")
    finished(2)
    assert [line["event"] for line in captured("quiet")] == ["heard"]


def test_the_variables_of_the_run_that_a_job_is_started_in_are_no_settings():
    nested = ("--model", "outer", "--", *COMMAND, "--model", "inner", "--", "true")
    run(*nested)
    # Its resource attributes have the run.
    before = len(kept())
    assert not reads_options(*nested)
    assert len(kept()) == before + 1


@pytest.mark.thorough
def test_a_section_in_airflow_cfg_counts_once_it_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    run("--model", "quiet", "--", "echo", "heard")
    assert not reads_options("--model", "quiet", "--", "true")
    # Their observers have read what settings there are.
    finished(2)
    (tmp_path / "airflow.cfg").write_text("[batch_observability]\ncapture_max_mb = 0\n")
    for _ in range(2):
        # It may change at any time, and is read each time.
        assert reads_options("--model", "quiet", "--", "echo", "unheard")
    finished(4)
    assert [line["event"] for line in captured("quiet")] == ["heard"]


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Return what looks up a job that was read from a file which need not be there; and the file."""
    monkeypatch.setattr(sys, "argv", ["batchobs", "run", "--", "true"])
    file = tmp_path / "batch_models.yaml"
    job, _ = preparing.prepared(Job(words=["true"], model=BatchModel(name="true")))
    ready.keep(job, ["--", "true"], 1, [str(file)])
    return lambda: ready.ready(["--", "true"]), file


def test_a_file_that_it_was_read_from_counts(known):
    look_up, file = known
    assert look_up()
    file.write_text("models: {}")
    assert look_up() is None
    job, _ = preparing.prepared(Job(words=["true"], model=BatchModel(name="true")))
    ready.keep(job, ["--", "true"], 1, [str(file)])
    assert look_up()
    file.write_text("models: []")
    os.utime(file, ns=(1, 1))
    assert look_up() is None
    file.unlink()
    assert look_up() is None


def test_another_version_reads_for_itself(known, monkeypatch):
    look_up, _ = known
    assert look_up()
    monkeypatch.setattr(ready, "__version__", "0.0.0")
    assert look_up() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_not_whole_is_not_used(known, data):
    look_up, _ = known
    (path,) = kept()
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(st.sampled_from((whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])))
    try:
        path.write_bytes(damaged)
        assert look_up() is None
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("damage", [b"", b"\0" * 2000, b"deadbeef\0name\0x", "ä".encode("latin-1") * 50])
def test_a_start_that_finds_no_whole_file_writes_it_anew(damage):
    run("--", "true")
    (path,) = kept()
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert run("--", "true").returncode == 0
    assert path.read_bytes() == whole
    assert not reads_options("--", "true")


def test_a_file_that_others_could_have_written_is_not_used(known):
    look_up, _ = known
    (path,) = kept()
    assert look_up()
    path.chmod(0o620)
    assert look_up() is None
    path.chmod(0o600)
    path.with_name("elsewhere").hardlink_to(path)
    assert look_up() is None
    path.with_name("elsewhere").unlink()
    assert look_up()
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))
    assert look_up() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_another_user_is_not_used(known):
    look_up, _ = known
    (path,) = kept()
    os.chown(path, NOBODY, NOBODY)
    assert look_up() is None


def test_a_fifo_in_its_place_keeps_no_job_waiting():
    run("--", "true")
    (path,) = kept()
    path.unlink()
    os.mkfifo(path, 0o600)
    assert run("--", "true").returncode == 0


def test_folders_are_private(tmp_path):
    run("--overlap", "skip", "--", "true")
    finished()
    folders = [path for path in (state(), *state().rglob("*")) if path.is_dir()]
    assert {path.name for path in folders} >= {"state", "ready", "locks", "runs", "logs"}
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}


def test_no_value_of_a_variable_is_in_what_is_kept(monkeypatch, tmp_path):
    secret = "hunter2-3f9c1d"
    monkeypatch.setenv("DD_API_KEY", secret)
    monkeypatch.setenv("BATCHOBS_LEDGER_URL", f"sqlite:///{tmp_path}/{secret}.db")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"postgresql://airflow:{secret}@db/airflow")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={secret}")
    (tmp_path / "env").write_text(f"PASSWORD={secret}\n")
    run("--env-file", str(tmp_path / "env"), "--model", "churn", "--", "sh", "-c", f": {secret}")
    assert kept()
    for path in (state() / "ready").iterdir():
        assert secret.encode() not in path.read_bytes()


def test_an_environment_file_is_read_each_time(tmp_path):
    file = tmp_path / "env"
    for value in ("one", "other"):
        file.write_text(f"NAME={value}\n")
        assert run("--env-file", str(file), "--", "sh", "-c", "echo $NAME").stdout == f"{value}\n".encode()
    file.write_text("NAME=third\nDD_ENV=staging\n")
    assert run("--env-file", str(file), "--", "sh", "-c", "echo $NAME").stdout == b"third\n"
    assert [one.get("dd.env") for one in told(3)] == [None, None, "staging"]
    file.unlink()
    done = run("--env-file", str(file), "--", "true")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1


def test_a_relative_state_folder_is_one_for_each_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHOBS_STATE_DIR", "here")
    for name in ("one", "other", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        run("--model", name, "--", "true", cwd=tmp_path / name)

    def names(name: str) -> int:
        path = tmp_path / name / "here/logs/batch_models.jsonl"
        return path.read_text().count("batch model run finished") if path.exists() else 0

    wait_until(lambda: (names("one"), names("other")) == (2, 1), "each is told in its folder", 30)


def test_the_state_folder_is_the_same_as_settings_have_it(monkeypatch, tmp_path):
    for environment in (
        {"BATCHOBS_STATE_DIR": "~/x"},
        {"AIRFLOW_HOME": f"{tmp_path}/airflow/"},
        {"XDG_STATE_HOME": f"{tmp_path}/xdg"},
        {"HOME": str(tmp_path)},
        {"BATCHOBS_STATE_DIR": " "},
    ):
        with monkeypatch.context() as patch:
            patch.delenv("BATCHOBS_STATE_DIR", raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            on_error = lambda _error: None  # noqa: E731  (a blank value is one)
            assert ready.state_folder() == str(config.load(on_error=on_error).state_path), environment


def test_jobs_that_nobody_asks_for_any_more_are_forgotten(monkeypatch):
    monkeypatch.setattr(preparing, "_MAX_KEPT", 3)
    folder = state() / "ready"
    folder.mkdir(parents=True)
    for number in range(6):
        (folder / f"{number}").write_text("")
        os.utime(folder / f"{number}", (1_000_000_000 + number,) * 2)
    preparing._tidy(folder)
    assert kept() == []
