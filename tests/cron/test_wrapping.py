"""A crontab is wrapped and unwrapped without a byte lost, and a wrapped command does what it did."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from batch_observability.cron.crontab import MAX_COMMAND, decoded, encoded, read
from batch_observability.cron.naming import name_of_script
from batch_observability.cron.wrapping import is_wrapped, model_of, option_of, unwrap, wrap, written
from batch_observability.model import BatchModel
from tests.cron.crontabs import CRONTABS
from tests.cron.test_crontab import TEXTS, jobs


def wrapped(text, **options):
    return written(wrap(text, **options))


def unwrapped(text, **options):
    return written(unwrap(text, **options))


@pytest.mark.parametrize("name", [name for name in CRONTABS if "observed" not in name])
def test_a_crontab_is_the_same_after_wrap_and_unwrap(name):
    system, text = name.startswith("system/"), CRONTABS[name]
    there = wrapped(text, system=system)
    assert unwrapped(there, system=system) == text
    assert wrapped(there, system=system) == there
    assert encoded(decoded(encoded(text))) == encoded(text)


@pytest.mark.parametrize("name", CRONTABS)
def test_wrap_changes_commands_only(name):
    system, text = name.startswith("system/"), CRONTABS[name]
    before, after = read(text, system=system), read(wrapped(text, system=system), system=system)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old.job is None:
            assert new.text == old.text
        else:
            assert (new.job.lead, new.end, new.job.stdin) == (old.job.lead, old.end, old.job.stdin)
            assert new.job.schedule == old.job.schedule


@settings(max_examples=500)
@given(TEXTS, st.booleans())
def test_any_text_is_the_same_after_wrap_and_unwrap(content, system):
    text = decoded(content)
    assume(not any(is_wrapped(job.command) for job in jobs(text, system=system)))
    there = wrapped(text, system=system)
    assert encoded(unwrapped(there, system=system)) == content
    assert wrapped(there, system=system) == there


@settings(max_examples=500)
@given(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=60), st.sampled_from(["", "\n", "\r\n"]))
def test_any_command_is_the_same_after_wrap_and_unwrap(command, end):
    text = f"0 1 * * *\t{command}{end}"
    assume(not is_wrapped(command.lstrip(" \t")))
    assert unwrapped(wrapped(text)) == text


@settings(max_examples=300)
@given(TEXTS)
def test_unwrap_leaves_nothing_to_unwrap_and_wrap_stays(content):
    once = unwrapped(decoded(content))
    assert wrapped(wrapped(once)) == wrapped(once)


def test_what_is_observed_already_stays():
    lines = wrap(CRONTABS["observed already"])
    assert [bool(line.model) for line in lines] == [False, False, False, False, True]


def test_unwrap_takes_away_what_was_written_or_changed_by_hand():
    assert unwrapped(CRONTABS["observed already"]) == (
        "10 3 * * * /opt/churn/score.py\n"
        "0 4 * * * cd /opt && ./a.sh | ./b.sh\n"
        "0 5 * * * python /opt/x.py\n"
        "0 6 * * * batchobs  run --model 'odd name' -- /opt/y.py\n"
        "0 7 * * * /opt/z.py\n"
    )


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("10 3 * * * /opt/score.py", "10 3 * * * batchobs run --model score --schedule '10 3 * * *' -- /opt/score.py"),
        (
            "@daily /opt/x.sh > /dev/null 2>&1",
            "@daily batchobs run --model x --schedule @daily -- /opt/x.sh > /dev/null 2>&1",
        ),
        ("@reboot /opt/x.sh", "@reboot batchobs run --model x -- /opt/x.sh"),
        ("@hourly cd /x && ./y", "@hourly batchobs run --model y --schedule @hourly -- /bin/sh -c 'cd /x && ./y'"),
        ("@hourly x 'a' %b", "@hourly batchobs run --model x --schedule @hourly -- x 'a' %b"),
        ("@hourly y|x 'a'", "@hourly batchobs run --model y --schedule @hourly -- /bin/sh -c 'y|x '\\''a'\\'''"),
    ],
)
def test_a_wrapped_line_reads_well(line, meant):
    assert wrapped(f"{line}\n") == f"{meant}\n"


def test_the_time_zone_of_the_crontab_is_that_of_the_schedule():
    found = [option_of(job.command, "timezone") for job in jobs(wrapped(CRONTABS["zones"]))]
    assert found == ["", "America/New_York", "Asia/Tokyo"]


@pytest.mark.parametrize("name", CRONTABS)
def test_each_job_has_a_name_of_its_own_that_a_model_may_have(name):
    lines = wrap(CRONTABS[name], system=name.startswith("system/"))
    models = [line.model for line in lines if line.model]
    assert len(set(models)) == len(models)
    for model in models:
        assert BatchModel(name=model).name == model


def test_a_name_that_is_taken_is_not_taken_again():
    assert [line.model for line in wrap(CRONTABS["half observed"])] == ["", "a-2", "a-3"]


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("/opt/churn/score.py --x", "score"),
        ("python3 -m ml.forecast.train", "ml.forecast.train"),
        ("/opt/ml/.venv/bin/python -W ignore -u /opt/ml/fraud.py", "fraud"),
        ("cd / && run-parts --report /etc/cron.hourly", "cron.hourly"),
        ("test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }", "cron.daily"),
        ("[ -x /a/b ] && if [ ! -d /c ]; then /usr/lib/php/sessionclean; fi", "sessionclean"),
        ("flock -n /var/lock/sync.lock /opt/sync/run.sh", "run"),
        ("flock -w 10 /tmp/l -c 'cd /opt && ./score.sh'", "score"),
        ("nice -n 19 ionice -c 3 /opt/jobs/heavy.sh", "heavy"),
        ("timeout -k 30 1h python3 -u /opt/jobs/hard.py", "hard"),
        ("FOO=1 BAR=2 /opt/x.sh | logger -t x", "x"),
        ("env -i A=b /opt/bare.sh", "bare"),
        ("sudo -u postgres /usr/bin/vacuumdb --all", "vacuumdb"),
        ("java -Xmx2g -jar /opt/java/etl.jar --full", "etl"),
        ("/bin/bash -l -c 'cd /srv && bundle exec rake x'", "bundle"),
        ("sleep 30; /opt/late.sh", "late"),
        ("it's open", "it-s"),
        ("echo hello", "job"),
    ],
)
def test_a_job_is_called_after_what_it_runs(script, name):
    assert name_of_script(script) == name


def test_jobs_of_other_shells_are_left_alone():
    for name in ("csh", "fish"):
        lines = wrap(CRONTABS[name])
        assert written(lines) == CRONTABS[name]
        assert "only jobs of a POSIX shell are wrapped" in lines[-1].problem


def test_a_job_that_would_be_too_long_for_cron_is_left_alone():
    text = f"0 1 * * * /opt/x.sh {'x' * (MAX_COMMAND - 20)}\n"
    (line,) = wrap(text)
    assert line.text == text
    assert "wrapped, its command would have" in line.problem
    assert line.problem.endswith("put it into a script")


def test_what_a_wrapped_command_is_asked_for_can_be_read():
    command = "/a/b/batchobs run --model=x --schedule '1 2 * * *' --owner \"a b\" -- y --model z"
    found = [option_of(command, name) for name in ("model", "schedule", "owner", "timezone")]
    assert found == ["x", "1 2 * * *", "a b", ""]
    assert model_of("/opt/x --model y") == ""


# --- What the command does ---------------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""
SHOW = """#!/bin/sh
for one in "$@"; do printf '<%s>' "$one"; done
printf ' stdin:'; cat; printf ' env:%s:%s' "$X" "$Y"; echo oops >&2
exit ${#}
"""


@pytest.fixture(scope="module")
def cron(tmp_path_factory):
    """Return a function that starts the job of a crontab as cron does; gives exit status, output and files."""
    folder = tmp_path_factory.mktemp("cron")
    for name, script in (("batchobs", STAND_IN), ("show", SHOW)):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)

    def run(text):
        work = folder / "work"
        work.mkdir(exist_ok=True)
        for name in ("a.txt", "b.txt", "a b"):
            (work / name).write_text(name)
        (job,) = jobs(text)
        environ = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(work), "X": "x  y", "LC_ALL": "C"}
        stdin = encoded(job.stdin or "")
        command = [job.shell, "-c", os.fsencode(job.script)]
        ended = subprocess.run(
            command, input=stdin, capture_output=True, env=environ, cwd=work, timeout=30, check=False
        )
        files = {path.name: path.read_bytes() for path in sorted(work.iterdir())}
        for path in work.iterdir():
            path.unlink()
        # Where one shell waits for another, a signal is 128 and its number.
        status = 128 - ended.returncode if ended.returncode < 0 else ended.returncode
        return status, ended.stdout, files

    return run


@pytest.mark.parametrize(
    "command",
    [
        "show",
        "show a 'b c' \"d  e\" f\\ g",
        'show $X "$X" ${X} \'$X\' "${X}z"',
        "show *.txt '*.txt' ?.txt [ab].txt",
        "show ~ ~/x '~'",
        "show a > out",
        "show a >> a.txt 2>&1",
        "show 2>/dev/null < a.txt",
        "show 2>&1 >out",
        "show a#b # c",
        "show $(echo one two) `echo three`",
        "show \"$(echo 'one  two')\"",
        "show $((1 + 2))",
        "Y=2 show a",
        "show a | cat -A",
        "show a; show b c",
        "false || show a && show b",
        "false && show a",
        "cd / && show $PWD",
        "! show",
        "(show a; exit 3)",
        "{ show a; show b; } > out 2>&1",
        "if true; then show yes; fi",
        'for f in *.txt; do show "$f"; done',
        "exec show a",
        "exit 7",
        "echo 'a\\nb'",
        "echo it's not closed",
        "show it\\'s \"it's\" 'it'\\''s'",
        'show \\\\ \\$X "\\$X" "\\\\" \'\\\\\'',
        "show \\% \"\\%\" '\\%F' a\\%b",
        "show a%first%second\\%third%",
        "show a | cat%first%second",
        "show 'a%b'",
        "show \\\\%in",
        "/bin/sh -c 'show a | cat'",
        "/bin/sh -c 'show a'%x",
        "sh -c 'echo $0 $1' zero one",
        "show ''  \"\"",
        "show a\tb \t c",
        "show --model x -- y",
        "show é \udce9",
        "show {a,b} a=b",
        "not-there a",
        "show ]",
        "kill -9 $$",
        "show &",
        "test -f a.txt",
        "[ -f none ]",
        "time",
        "a.txt",
        'show $UNSET "$UNSET"',
        "show a; ",
        "show -- -x",
        "show !x !!",
    ],
)
def test_a_wrapped_command_does_what_it_did(cron, command):
    text = f"0 1 * * * {command}\n"
    there = wrapped(text)
    assert is_wrapped(jobs(there)[0].command)
    assert cron(there) == cron(text)


PARTS = ["show", "show a", "'q  q'", '"d $X"', "$X", "\\%", "%", "%x", "|", "&&", "||", ";", "> out", "2>&1", "< a.txt"]
PARTS += ["$(echo x)", "*", "~", "#", "\\", '"', "'", "cd /", "true", "false", "(", ")", "!", "Y=1", "{", "}", "é", "`"]


@pytest.mark.thorough
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=7), st.sampled_from(["", " "]))
def test_any_wrapped_command_does_what_it_did(cron, parts, between):
    # Two that write to one file at once leave now this in it, now that.
    assume("|" not in parts or parts.count("> out") < 2)
    text = f"0 1 * * * show {between.join(parts)}\n"
    assert cron(wrapped(text)) == cron(text)
