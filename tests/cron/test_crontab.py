"""What the lines of a crontab are: read as cron reads them, and none of their bytes lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_observability.cron.crontab import decoded, encoded, is_system, read, split_stdin
from tests.cron.crontabs import CRONTABS

PIECES = [
    b"0 1 * * * ",
    b"@daily ",
    b"root ",
    b"/x",
    b"\t",
    b" ",
    b"\n",
    b"\r\n",
    b"%",
    b"\\",
    b"'",
    b'"',
    b"\xe9",
    b"#",
]
PIECES += [b"A=b", b"CRON_TZ=UTC", b"\x00", b"\x0b", b"\x0c", b"\x85", "\u2028".encode(), b"|", b"batchobs run -- "]
TEXTS = st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)


def jobs(text, **options):
    return [line.job for line in read(text, **options) if line.job]


@given(TEXTS, st.booleans())
def test_the_lines_are_the_text(content, system):
    lines = read(decoded(content), system=system)
    assert encoded("".join(line.text for line in lines)) == content
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert all(line.text == f"{line.job.lead}{line.job.command}{line.end}" for line in lines if line.job)


@pytest.mark.parametrize("name", CRONTABS)
def test_a_job_is_its_lead_and_its_command(name):
    for line in read(CRONTABS[name], system=name.startswith("system/")):
        assert line.job is None or line.text == f"{line.job.lead}{line.job.command}{line.end}"


def test_what_the_jobs_of_a_host_are():
    lines = read(CRONTABS["system/etc"], system=True)
    found = [(line.job.schedule.text, line.job.user, line.job.command) for line in lines if line.job]
    assert found[0] == ("17 * * * *", "root", "cd / && run-parts --report /etc/cron.hourly")
    assert [schedule for schedule, _, _ in found] == ["17 * * * *", "25 6 * * *", "47 6 * * 7", "52 6 1 * *"]


def test_variables_hold_from_where_they_stand():
    first, second, third = jobs(CRONTABS["zones"])
    assert (first.timezone, second.timezone, third.timezone) == ("", "America/New_York", "Asia/Tokyo")
    assert second.schedule.zone.key == "America/New_York"
    shells = [job.shell for job in jobs(CRONTABS["shells"])]
    assert shells == ["/bin/sh", "/bin/bash", "/usr/bin/zsh", "/bin/sh"]
    assert jobs(CRONTABS["environment"])[0].variables["HOME"] == "/home/ml"
    assert jobs(CRONTABS["environment"])[0].variables["PYTHONPATH"] == "/opt/ml/lib"


@pytest.mark.parametrize(
    ("command", "script", "stdin"),
    [
        ("cat", "cat", None),
        ("cat%", "cat", None),
        ("cat%a", "cat", "a\n"),
        ("cat%a%b%", "cat", "a\nb\n"),
        (r"date +\%F", "date +%F", None),
        (r"date +\%F%x\%y%z", "date +%F", "x%y\nz\n"),
        (r"cat \\%it", r"cat \\", "it\n"),
        (r"cat \\\%it", r"cat \\%it", None),
        (r"cat%a\\%b", "cat", "a\\%b\n"),
        (r"cat \a%\b", r"cat \a", "\\b\n"),
    ],
)
def test_percent_signs_are_taken_as_cron_takes_them(command, script, stdin):
    (job,) = jobs(f"0 1 * * * {command}\n")
    assert (job.script, job.stdin) == (script, stdin)


@given(st.text(alphabet="%\\ab'", max_size=12))
def test_percent_signs_are_taken_as_crons_own_code_takes_them(text):
    """After child_process() in do_command.c of Debian's cron."""
    command, place, escaped, rest = [], 0, False, ""
    for place, letter in enumerate(text):
        if escaped:
            if letter == "%":
                command.pop()
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == "%":
            rest = text[place + 1 :]
            break
        command.append(letter)
    given_, escaped = "", False
    for letter in rest:
        if escaped:
            given_ += "" if letter == "%" else "\\"
        one = "\n" if letter == "%" and not escaped else letter
        escaped = one == "\\"
        given_ += "" if escaped else one
    given_ += "\\" if escaped else ""
    script, stdin = split_stdin(f"x{text}")
    assert f"{script}{stdin}" == f"x{text}"
    (job,) = jobs(f"0 1 * * * x{text}\n")
    assert job.script == f"x{''.join(command)}"
    assert job.stdin == ((given_ if given_.endswith("\n") else f"{given_}\n") if rest else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("61 * * * * x\n", "schedule '61 * * * *' is wrong: minute '61' is not 0 to 59"),
        ("0/5 * * * * x\n", "write 0-59/5"),
        ("* * * * x\n", "'* * * * x' is no job: write schedule and command, for example 10 3 * * * /opt/score.py"),
        ("hello world\n", "'hello world' is no job: write schedule and command"),
        ("@sometimes x\n", "no such nickname"),
        ("0 1 * * *  \n", "is no job"),
        ("0 1 * * * x", "no newline ends it, and cron leaves it out: add one"),
        ("0 1 * * * x\r\n", r"it ends with \r\n"),
        ("CRON_TZ=Mars/Base\n", "time zone 'Mars/Base' is unknown: write an IANA name"),
        (f"0 1 * * * {'x' * 1200}\n", "its command has 1200 bytes, and cron takes 998: put it into a script"),
    ],
)
def test_what_is_wrong_with_a_line_is_told(text, said):
    (line,) = read(text)
    assert said in line.problem
    assert "\n" not in line.problem


def test_a_job_that_nobody_runs_is_told():
    (line,) = read("0 1 * * * /opt/x.sh\n", system=True)
    assert line.job is None
    assert "write schedule, user and command, for example 10 3 * * * root /opt/score.py" in line.problem


@pytest.mark.parametrize(
    ("path", "system"),
    [
        ("/etc/crontab", True),
        ("/etc/cron.d/php", True),
        ("/srv/image/etc/cron.d/x", True),
        ("/var/spool/cron/crontabs/root", False),
        ("/home/me/crontab", False),
    ],
)
def test_a_crontab_with_users_is_known_by_its_path(path, system):
    assert is_system(Path(path)) == system
