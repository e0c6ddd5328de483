"""`batchobs catalog` checks and begins a catalog; `batchobs models` says what holds of a model, and why."""

from __future__ import annotations

import json

import pytest

from batch_observability import BatchModel, cli
from batch_observability.airflow.attempt import as_text
from batch_observability.catalog import Match, read
from batch_observability.cron import known

TEXT = """\
owners: {team-risk: {oncall: "@slack-risk"}}
models:
  - name: churn
    owner: team-risk
    tier: 1
    sla: {finish_within: 20m}
    match: {dag_id: nightly}
  - name: roll
    schedule: "@daily"
"""


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file."""

    def write(text, name="batch_models.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def batchobs(capsys, monkeypatch, tmp_path):
    """Return a function that runs the command, and gives its exit code, what it printed and what it complained of."""
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))

    def run(*arguments):
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


# --- catalog check and schema ------------------------------------------------------------------------------------


def test_a_catalog_without_mistakes_is_said_to_be_so(batchobs, file, monkeypatch):
    path = file(TEXT)
    assert batchobs("catalog", "check", path) == (0, "nothing is wrong (2 models in 1 file)\n", "")
    monkeypatch.setenv("BATCHOBS_CATALOG", path)
    assert batchobs("catalog", "check")[0] == 0


def test_all_mistakes_are_printed_in_their_order(batchobs, file):
    first = file("models:\n  - name: a\n    schedule: 61 * * * *\n    tier: 0\n", "a.yaml")
    second = file("models:\n  - name: b\n    schedule: '@daily'\n    timezone: Europe/Lundon\n  - name: a\n", "b.yaml")
    code, out, err = batchobs("catalog", "check", first, second, "nowhere.yaml")
    assert (code, err) == (2, "")
    said = out.splitlines()
    assert said[0] == "catalog nowhere.yaml cannot be read: No such file or directory; name another, or none"
    assert said[1].startswith(f"{first}:3: schedule of model 'a': schedule '61 * * * *' is wrong")
    assert said[2].startswith(f"{first}:4: tier of batch model 'a' is '0': ")
    assert said[3].startswith(f"{second}:4: timezone of model 'b': ")
    assert said[4] == f"{second}:5: model 'a' is in {first}:2 already: join the two"
    assert len(said) == 5


def test_where_there_is_no_catalog_it_is_said_where_one_may_be(batchobs, tmp_path):
    code, out, err = batchobs("catalog", "check")
    remedy = f"name its files, set BATCHOBS_CATALOG, or write {tmp_path}/airflow/batch_models.yaml"
    assert (code, out, err) == (2, "", f"batchobs: there is no catalog: {remedy}\n")


def test_the_schema_is_printed_as_json(batchobs):
    code, out, _ = batchobs("catalog", "schema")
    assert code == 0
    assert json.loads(out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


# --- catalog init ------------------------------------------------------------------------------------------------

DAG_FILE = """\
from airflow.sdk import DAG, TaskGroup, dag, task, task_group
from airflow.providers.standard.operators.bash import BashOperator
DAG_ID = "named"
with DAG(DAG_ID, default_args={"owner": "team-risk"}) as one:
    BashOperator(task_id="load", bash_command="true") >> BashOperator(task_id="score", bash_command="true")
    with TaskGroup("publish"):
        BashOperator(task_id="send", bash_command="true")
    for name in ("a", "b"):
        BashOperator(task_id=f"part_{name}", bash_command="true")

@task(task_id="called")
def work(): ...

@task_group
def pair():
    work()
    work.override(task_id="again")()

@dag(default_args={"owner": "airflow"})
def decorated():
    work()
    pair()
    pair()
    work.partial(x=1).expand(y=[1])

decorated()
other = DAG(dag_id="other")
try:
    BashOperator(task_id="alone", bash_command="true", dag=other)
except Exception:
    pass

def make(name):
    with DAG(f"made_{name}"):
        BashOperator(task_id="x", bash_command="true")
"""
CRONTAB = """\
CRON_TZ=Europe/London
10 3 * * * cd /opt && PASSWORD=hunter2 python score.py --day today
@daily batchobs run --model roll -- /opt/roll.sh
@hourly /opt/score.py
not a job
"""


def test_a_first_catalog_has_all_tasks_and_jobs(batchobs, file, tmp_path):
    dags = file(DAG_FILE, "dags/one.py")
    file("def (", "dags/broken.py")
    file("import os\n", "dags/none.py")
    code, out, err = batchobs("catalog", "init", "--dags", str(tmp_path / "dags"), "--crontab", file(CRONTAB, "jobs"))
    assert (code, err) == (0, "")
    catalog, mistakes = read([tmp_path / file(out, "first.yaml")])
    assert mistakes == []
    tasks = {name: one.match[0] for name, one in catalog.models.items() if one.match}
    assert tasks == {
        "named.load": Match("named", "load"),
        "named.score": Match("named", "score"),
        "named.publish.send": Match("named", "publish.send"),
        "decorated.called": Match("decorated", "called"),
        "decorated.pair.called": Match("decorated", "pair.called"),
        "decorated.pair.again": Match("decorated", "pair.again"),
        "decorated.pair__1.called": Match("decorated", "pair__1.called"),
        "decorated.pair__1.again": Match("decorated", "pair__1.again"),
        "decorated.called__1": Match("decorated", "called__1"),
        "other": Match("other", "alone"),
    }
    assert catalog.models["named.load"].model.owner == "team-risk"
    assert catalog.models["decorated.called"].model.owner == ""
    jobs = {one.model.name: (one.schedule, one.timezone) for one in catalog.scheduled()}
    zone = "Europe/London"
    assert jobs == {"score": ("10 3 * * *", zone), "roll": ("@daily", zone), "score-2": ("@hourly", zone)}
    assert "hunter2" not in out
    assert f"--- {dags}\n" in out
    assert "# In lines 9, 35 ids are computed: write match" in out
    for word in ("# owner: ", "# tier: ", "# runbook: ", "yaml-language-server"):
        assert word in out


def test_what_is_filled_in_can_be_read(batchobs, file, tmp_path):
    _, out, _ = batchobs("catalog", "init", "--crontab", file(CRONTAB, "jobs"))
    keys = ("owner: ", "tier: ", "runbook: ", "sla: ", "owners:", "  team-name: ")
    filled = "\n".join(
        line.replace("# ", "", 1)
        if line.lstrip().removeprefix("#").lstrip(" ").startswith(tuple(k.strip() for k in keys))
        else line
        for line in out.splitlines()
    )
    _, mistakes = read([tmp_path / file(filled, "first.yaml")])
    assert mistakes == []


def test_a_first_catalog_of_nothing_can_be_read(batchobs, file, tmp_path):
    _, out, _ = batchobs("catalog", "init", "--crontab", file("# nothing\n", "jobs"))
    assert read([tmp_path / file(out, "first.yaml")])[1] == []


def test_a_file_that_is_there_is_kept(batchobs, file, tmp_path):
    jobs, out = file(CRONTAB, "jobs"), tmp_path / "new.yaml"
    assert batchobs("catalog", "init", "--crontab", jobs, "--out", str(out))[0] == 0
    out.write_text("mine")
    refused = f"batchobs: {out} is there already: name another file, or add --force\n"
    assert batchobs("catalog", "init", "--crontab", jobs, "--out", str(out)) == (2, "", refused)
    assert out.read_text() == "mine"
    assert batchobs("catalog", "init", "--crontab", jobs, "--out", str(out), "--force")[0] == 0
    assert "score" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is nothing to begin with: write --dags FOLDER, --crontab FILE, or both"),
        (("--dags", "nowhere"), "--dags nowhere is not there: name the folder of the DAG files"),
        (("--crontab", "nowhere"), "crontab nowhere cannot be read: No such file or directory; name another, or - for"),
        (
            ("--crontab", "/dev/null", "--out", "/nowhere/x"),
            "/nowhere/x cannot be written: No such file or directory; n",
        ),
    ],
)
def test_a_mistake_in_what_is_asked_is_one_line(batchobs, arguments, said):
    code, out, err = batchobs("catalog", "init", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


# --- models ------------------------------------------------------------------------------------------------------


@pytest.fixture
def host(file, monkeypatch, tmp_path):
    """A host with a catalog, a DAG file that was parsed, and a job that has run."""
    monkeypatch.setenv("BATCHOBS_CATALOG", file(TEXT))
    tasks = {
        "score": {"model": as_text(BatchModel("churn", tier=2)), "since_ns": 1, "code": {"name": "churn", "tier": "2"}},
        "load": {"model": as_text(BatchModel("churn")), "since_ns": 1, "code": None},
        "own": {"model": as_text(BatchModel("own", owner="me")), "since_ns": 1, "code": {"name": "own", "owner": "me"}},
    }
    file(json.dumps({"dag_id": "nightly", "tasks": tasks}), "state/dag.json")
    (tmp_path / "state" / "models").mkdir()
    (tmp_path / "state" / "dag.json").rename(tmp_path / "state" / "models" / "dag.json")
    job = BatchModel("sweep", owner="ops").as_text()
    known.note(tmp_path / "state", "sweep", job, "@hourly", "", by=known.BY_RUN)
    return tmp_path / "batch_models.yaml"


def test_models_are_listed_with_who_knows_them(batchobs, host):
    code, out, err = batchobs("models", "list")
    assert (code, err) == (0, "")
    head, *rows = (line.split("  ") for line in out.splitlines())
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert head[0] == "MODEL"
    assert cells == [
        ["churn", "team-risk", "2", "churn", "code, catalog", "nightly.load, nightly.score"],
        ["own", "me", "3", "own", "code", "nightly.own"],
        ["roll", "-", "3", "roll", "catalog", "cron job"],
        ["sweep", "ops", "3", "sweep", "job", "cron job"],
    ]
    listed = json.loads(batchobs("models", "list", "--json")[1])["models"]
    assert listed[0]["runs_as"] == ["nightly.load", "nightly.score"]


def test_a_model_is_shown_with_why(batchobs, host):
    _, out, _ = batchobs("models", "show", "churn", "--why")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()}
    assert rows["tier"] == ["2", "code: nightly.score"]
    assert rows["owner"] == ["team-risk", f"catalog: {host}:4"]
    assert rows["sla.finish_within"] == ["20m", f"catalog: {host}:6"]
    assert rows["version"] == ["0", "default"]
    fields = json.loads(batchobs("models", "show", "churn", "--why", "--json")[1])["fields"]
    assert {"key": "tier", "value": "2", "source": "code: nightly.score"} in fields
    plain = batchobs("models", "show", "churn")[1]
    assert "runbook" not in plain
    assert "catalog" not in plain


def test_a_job_says_what_holds_for_it(batchobs, host):
    rows = [line.split() for line in batchobs("models", "show", "sweep", "--why")[1].splitlines()]
    assert ["schedule", "@hourly", "job"] in rows
    assert ["owner", "ops", "job"] in rows


def test_an_unknown_model_is_a_mistake(batchobs, host):
    said = "batchobs: model 'chrn' is not known here: write 'churn'\n"
    assert batchobs("models", "show", "chrn") == (2, "", said)
    assert "batchobs models list says which are" in batchobs("models", "show", "zzz")[2]


def test_where_nothing_is_known_it_is_said_how_to_begin(batchobs):
    assert batchobs("models", "list") == (
        0,
        "no models are known here: batchobs catalog init writes a first catalog\n",
        "",
    )


def test_what_is_wrong_in_the_hosts_catalog_is_said_and_the_rest_is_used(batchobs, file, monkeypatch):
    text = TEXT.replace("tier: 1", "tier: 0").replace("@daily", "61 * * * *")
    path = file(text)
    monkeypatch.setenv("BATCHOBS_CATALOG", path)
    code, out, err = batchobs("models", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["MODEL", "churn", "roll"]
    assert "cron job" not in out
    assert f"batchobs: {path}:5: tier of batch model 'churn' is '0'" in err
    assert f"batchobs: {path}:9: schedule of model 'roll': " in err
    # One that is named has to be right.
    assert batchobs("models", "list", "--catalog", path)[0] == 2


def test_check_goes_by_the_hosts_catalog_and_several_may_be_named(batchobs, file, monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHOBS_EXPORT", "spool")
    monkeypatch.setenv("BATCHOBS_CATALOG", file(TEXT))
    assert batchobs("check")[0] == 0
    assert set(known.known(tmp_path / "state")) == {"roll"}
    others = [file(f"models: [{{name: {name}, schedule: '@daily'}}]", f"{name}.yaml") for name in ("a", "b")]
    assert batchobs("check", *(word for path in others for word in ("--catalog", path)))[0] == 0
    assert set(known.known(tmp_path / "state")) == {"a", "b"}
    hint = batchobs("watch", "--install-hint", "--catalog", others[0], "--catalog", others[1])[1]
    assert f"check --catalog {others[0]} --catalog {others[1]}\n" in hint
