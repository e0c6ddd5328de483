"""A command under `batchobs run` is to its caller what it is without: a table of commands, each run both ways."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from tests.cron.side_by_side import BATCHOBS, Case, blocking, ignoring, limited, python, run, shell

# The signals that it ignores and blocks, as the system has them: without two that are the C library's own, which its
# posix_spawn(3) sets to be ignored.
SIGNALS = (
    "print([(line[:6], hex(int(line.split()[1], 16) & ~(3 << 31)))"
    " for line in open('/proc/self/status') if line[:6] in ('SigIgn', 'SigBlk')])"
)
MODES = "print([(n, oct(os.fstat(n).st_mode)[:5]) for n in range(3)])"
DESCRIPTORS = "print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1])"
EXIT_BY = "signal.signal(int(sys.argv[1]), signal.SIG_DFL); os.kill(os.getpid(), int(sys.argv[1])); signal.pause()"
GROUP = "print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid(), os.getsid(0) == os.getpgrp())"
LOUD = "head -c {} /dev/zero"


def inherit() -> None:
    """Have a descriptor that a command is to have too."""
    descriptor = os.open("/etc/hostname", os.O_RDONLY)
    os.dup2(descriptor, 7)
    os.close(descriptor)


def lead_session() -> None:
    """Be what cron and systemd make of a job: first of its session and its group, without a terminal."""
    os.setsid()


def join_group() -> None:
    """Be one of a group that another process leads."""
    os.setpgid(0, 0) if os.getpgrp() == os.getpid() else None


EXITS = {
    f"exit {code}": Case(shell(f"exit {code}")) for code in (0, 1, 2, 3, 42, 99, 124, 125, 126, 127, 128, 130, 143, 255)
}
DEATHS = {
    f"dies of SIG{name}": Case(python(EXIT_BY, str(int(signal.Signals[f"SIG{name}"]))))
    for name in (
        *(
            "HUP",
            "INT",
            "QUIT",
            "ILL",
            "ABRT",
            "BUS",
            "FPE",
        ),
        *(
            "KILL",
            "USR1",
            "SEGV",
            "USR2",
            "PIPE",
            "ALRM",
            "TERM",
        ),
        *(
            "XCPU",
            "XFSZ",
            "VTALRM",
            "SYS",
            "IO",
        ),
    )
}
OUTPUT = {
    "nothing": Case(("true",)),
    "a line on stdout": Case(("echo", "hello")),
    "a line on stderr": Case(shell("echo oops >&2")),
    "a line on each": Case(shell("echo out; echo err >&2; exit 4")),
    "half a line": Case(("printf", "no newline")),
    "binary": Case(("head", "-c", "100000", "/bin/sh")),
    "every byte": Case(python("os.write(1, bytes(range(256)) * 10)")),
    "nul bytes": Case(("printf", r"a\0b\0\0")),
    "carriage returns": Case(("printf", r"1%%\r2%%\r3%%\n")),
    "long line": Case(python("print('x' * 3_000_000)")),
    "many lines": Case(("seq", "200000")),
    "50 MB": Case(("head", "-c", "50M", "/dev/zero"), into="| md5sum"),
    "50 MB of lines": Case(shell("yes 0123456789012345678901234567890123456789 | head -c 50M"), into="| md5sum"),
    "both streams in one, in order": Case(
        python("for i in range(5000): os.write(1 + i % 2, b'%d\\n' % i)"), into="2>&1 | cat"
    ),
    "both streams in one file": Case(python("for i in range(5000): os.write(1 + i % 2, b'%d\\n' % i)"), into=">f 2>&1"),
    "streams exchanged": Case(shell("echo out; echo err >&2"), into="3>&1 1>&2 2>&3"),
    "into a file": Case(shell("echo one; echo two"), into=">f"),
    "appended to a file": Case(shell("echo one; echo two"), into=">>f; cat f"),
    "into two files": Case(shell("echo one; echo two >&2"), into=">f 2>g"),
    "one file opened twice": Case(shell("echo one; echo two, longer >&2"), into=">f 2>f"),
    "a file that it cuts and seeks in": Case(
        python("os.write(1, b'0123456789'); os.ftruncate(1, 5); os.lseek(1, 2, 0); os.write(1, b'xx')"), into=">f"
    ),
    "to /dev/null": Case(shell("echo one; echo two >&2"), into=">/dev/null"),
    "both to /dev/null": Case(shell("echo one; echo two >&2; exit 9"), into=">/dev/null 2>&1"),
    "a full disk": Case(("/bin/echo", "hello"), into=">/dev/full"),
    "a full disk, Python": Case(python("print('hello' * 10000)"), into=">/dev/full 2>/dev/null"),
    "a reader that leaves": Case(("yes",), into="| head -n 3"),
    "a reader that leaves Python": Case(
        # Its exit status would be 1 or 120, as its buffer happens to be.
        python("try:\n  while True: print('y' * 1000)\nexcept BrokenPipeError: os._exit(9)"), into="| head -c 5000"
    ),
    "a reader that has left": Case(shell("sleep 0.3; echo late; echo later"), into="| true"),
    "a slow reader of much": Case(("head", "-c", "3M", "/dev/zero"), into="| (sleep 0.5; md5sum)"),
    "a reader that leaves stderr": Case(shell("yes >&2"), into="2> >(head -n 2 >/dev/null)"),
    "output after close of stdout": Case(shell("echo one; exec >&-; echo two >&2; exit 3")),
    "a child that goes on writing": Case(shell("(sleep 0.4; echo background) & echo foreground")),
    "a child that goes on writing to stderr": Case(shell("(sleep 0.4; echo background >&2) & echo foreground; exit 5")),
    "a daemon that lets go": Case(shell("(sleep 5 >/dev/null 2>&1 </dev/null &) ; echo started")),
    "a process substitution": Case(("bash", "-c", "echo a | tee >(tr a b) | cat; wait")),
}  # fmt: skip
INPUT = {
    "stdin passed through": Case(("cat",), stdin=b"some\nbytes\0"),
    "much stdin": Case(("md5sum",), stdin=os.urandom(1 << 20)),
    "stdin not read": Case(("true",), stdin=b"x" * 60000),
    "one line of stdin": Case(shell("read a; echo $a; cat"), stdin=b"first\nsecond\nthird"),
    "stdin from /dev/null": Case(("wc", "-c")),
    "stdin is a file": Case(python("print(os.lseek(0, 0, 1), os.read(0, 4))"), into="</etc/passwd"),
}
CLOSED = {
    "stdin closed": Case(python("try: os.fstat(0)\nexcept OSError as e: print(e)"), closed=(0,)),
    "stdin closed, cat": Case(("cat",), closed=(0,)),
    "stdout closed": Case(python("try: os.fstat(1)\nexcept OSError as e: sys.stderr.write(str(e))"), closed=(1,)),
    "stdout closed, echo": Case(("sh", "-c", "echo hello"), closed=(1,)),
    "stderr closed": Case(python("try: os.fstat(2)\nexcept OSError as e: print(e)"), closed=(2,)),
    "stderr closed, ls": Case(("ls", "/nowhere"), closed=(2,)),
    "both closed": Case(shell("echo hello || exit 7"), closed=(1, 2)),
    "all closed": Case(shell("exit 6"), closed=(0, 1, 2)),
    "first opened after close": Case(python("sys.stderr.write(str(os.open('/', 0)))"), closed=(0, 1)),
    "descriptors": Case(python(DESCRIPTORS)),
    "descriptors, stdin closed": Case(python(DESCRIPTORS), closed=(0,)),
    "a descriptor inherited": Case(python(f"{DESCRIPTORS}; os.lseek(7, 0, 0); print(os.read(7, 100))"), before=inherit),
    "a descriptor from a shell": Case(shell("cat <&9"), into="9</etc/hostname"),
}
PROCESS = {
    "working directory": Case(("pwd",)),
    "umask": Case(shell("umask; touch f; stat -c %a f"), before=lambda: os.umask(0o137)),
    "niceness": Case(("nice",), before=lambda: os.nice(5)),
    "limit of files": Case(shell("ulimit -n"), before=limited(resource.RLIMIT_NOFILE, 200)),
    "limit of cores": Case(shell("ulimit -c"), before=limited(resource.RLIMIT_CORE, 0)),
    # Python would leave half a file of bytecode behind.
    "limit of file size": Case(
        shell("exec head -c 100K /dev/zero >f"),
        before=limited(resource.RLIMIT_FSIZE, 4096),
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    ),
    "signals": Case(python(SIGNALS)),
    "HUP ignored, as by nohup": Case(python(SIGNALS), before=ignoring(signal.SIGHUP)),
    "INT and QUIT ignored, as in the background": Case(python(SIGNALS), before=ignoring(signal.SIGINT, signal.SIGQUIT)),
    "CHLD ignored": Case(python(SIGNALS), before=ignoring(signal.SIGCHLD)),
    "CHLD ignored, exit 3": Case(shell("echo x; exit 3"), before=ignoring(signal.SIGCHLD)),
    "CHLD ignored, not found": Case(("sh", "-c", "no-such-command 2>/dev/null"), before=ignoring(signal.SIGCHLD)),
    "USR1 blocked": Case(python(SIGNALS), before=blocking(signal.SIGUSR1)),
    "TERM and CHLD blocked": Case(python(SIGNALS), before=blocking(signal.SIGTERM, signal.SIGCHLD)),
    "SIGPIPE in a shell": Case(("bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}")),
    "group of a job of cron": Case(python(GROUP), before=lead_session),
    "setsid as leader": Case(("setsid", "sh", "-c", "sleep 0.2; echo done"), before=lead_session),
    "in a group of others": Case(python("print(os.getpgrp() == os.getpid())")),
    "an argument of every kind": Case(("printf", "%s|", "", " ", "*", "$HOME", "a'b", 'a"b', "--", "\n", "é", ";")),
    "an argument that is not UTF-8": Case(("printf", "%s", os.fsdecode(b"\xff\xfe"))),
    "its name": Case(python("print(open('/proc/self/cmdline').read().split(chr(0))[5:])", "a", "--model", "b")),
    "no shebang": Case(shell("printf 'echo plain $1; exit 8' >s; chmod +x s; exec ./s one")),
    "a Python error": Case(python("raise ValueError('bad')")),
    "sys.exit with text": Case(python("sys.exit('stopped')")),
    "os._exit": Case(python("print('lost'); os._exit(17)")),
    "time in a group": Case(shell("exec 3>&1; (echo deep >&3)")),
    "children that are waited for": Case(shell("sleep 0.1 & sleep 0.1 & wait; echo $?")),
    "a pipeline": Case(("bash", "-c", "set -o pipefail; seq 100 | tac | head -n 1")),
    "traps": Case(shell("trap 'echo bye' EXIT; trap 'echo term; exit 9' TERM; kill $$; sleep 1")),
}  # fmt: skip
CASES = {**EXITS, **DEATHS, **OUTPUT, **INPUT, **CLOSED, **PROCESS}


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same(name, tmp_path):
    without = run(CASES[name], tmp_path / "without", ())
    observed = run(CASES[name], tmp_path / "observed", BATCHOBS)
    assert (observed.status, observed.out[-2000:], observed.err[-2000:]) == (
        without.status,
        without.out[-2000:].replace(b"/without", b"/observed"),
        without.err[-2000:],
    )
    assert observed.out == without.out.replace(b"/without", b"/observed")
    assert observed.files == without.files


def test_the_table_is_long():
    assert len(CASES) >= 80


DOCUMENTED = {"TRACEPARENT", "OTEL_RESOURCE_ATTRIBUTES", "BATCHOBS_CHANNEL", "BATCHOBS_RUN"}
ENVIRONMENTS = {
    "as it is": {},
    "as cron has it": {"PATH": "/usr/bin:/bin", "LANG": None, "LC_ALL": None, "HOME": None, "SHELL": "/bin/sh"},
    "in locale C": {"LANG": "C", "LC_ALL": None},
    "with LC_CTYPE C": {"LC_CTYPE": "C", "LC_ALL": None, "LANG": None},
    "with LC_ALL C": {"LC_ALL": "C"},
    "with a value that is not UTF-8": {"ODD": os.fsdecode(b"\xff=")},
    "with an empty one": {"EMPTY": "", "ZZ": "1", "AA": "2"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environment_is_the_same_apart_from_the_documented_variables(name, tmp_path):
    case = Case(("/usr/bin/env", "-0"), environment=ENVIRONMENTS[name])
    without = run(case, tmp_path / "without", ()).out.split(b"\0")
    observed = run(case, tmp_path / "observed", BATCHOBS).out.split(b"\0")
    ours = [line for line in observed if line.partition(b"=")[0].decode("latin-1") in DOCUMENTED]
    assert len(ours) == len(DOCUMENTED)
    assert [line for line in observed if line not in ours] == [
        line.replace(b"/without", b"/observed") for line in without
    ]


@pytest.mark.parametrize(
    ("words", "status"),
    [(("no-such-command",), 127), (("./none",), 127), (("/etc",), 126), (("/etc/passwd",), 126), (("",), 127)],
)
def test_what_cannot_be_started_exits_as_in_a_shell_and_is_told_in_one_line(words, status, tmp_path):
    came = run(Case(words), tmp_path / "observed", BATCHOBS)
    assert (came.status, came.out, came.err.count(b"\n")) == (status, b"", 1)
    assert came.err.startswith(b"batchobs: ")
