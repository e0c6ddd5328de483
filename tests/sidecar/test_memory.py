"""What the control group of a process tells: of a real out-of-memory kill, and of every layout there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability.sidecar.memory import MemoryLimit
from tests.live import wait_until

PID = 4711
EXITING = 0x4
V1_UNLIMITED = "9223372036854771712\n"
MB = 1_000_000


# --- Every layout there is ---------------------------------------------------------------------------------------


class System:
    """A /proc and mounted hierarchies below a folder, whose name has a space as mount points may have."""

    def __init__(self, folder):
        self.folder = folder / "a system"
        self.proc = self.folder / "proc"
        self.write("proc/self/mountinfo", "22 1 0:20 / /proc rw - proc proc rw\nnonsense\n")
        self.write(f"proc/{PID}/cgroup", "")
        self.has_flags(0x400000)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def has_flags(self, flags):
        self.write(f"proc/{PID}/stat", f"{PID} (a (b) c) S 1 1 1 0 -1 {flags} 0 0")

    def mount(self, kind, options, point, root="/"):
        where = str(self.folder / point).replace(" ", r"\040")
        with (self.proc / "self" / "mountinfo").open("a") as file:
            file.write(f"30 22 0:30 {root} {where} rw,relatime shared:9 - {kind} {kind} {options}\n")

    def is_in(self, *lines):
        self.write(f"proc/{PID}/cgroup", "".join(f"{line}\n" for line in lines))

    def v1(self, group, kills=0, limit=V1_UNLIMITED, peak="123\n"):
        self.write(f"{group}/memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")
        self.write(f"{group}/memory.limit_in_bytes", limit)
        self.write(f"{group}/memory.max_usage_in_bytes", peak)

    def v2(self, group, kills=0, limit="max\n", peak="456\n"):
        self.write(f"{group}/memory.events", f"low 0\nhigh 0\nmax 9\noom 5\noom_kill {kills}\noom_group_kill 0\n")
        self.write(f"{group}/memory.max", limit)
        self.write(f"{group}/memory.peak", peak)

    def memory(self):
        return MemoryLimit(PID, proc=self.proc)


@pytest.fixture
def system(tmp_path):
    return System(tmp_path)


def sees_a_kill(memory, kill):
    """Whether a kill is told from none."""
    memory.look()
    before = memory.killed_by_oom()
    kill()
    return not before and memory.killed_by_oom()


def test_v1_tells_limit_peak_and_kills(system):
    system.mount("cgroup", "rw,cpu", "cg/cpu")
    system.mount("cgroup", "rw,memory", "cg/memory")
    system.is_in("9:cpu:/elsewhere", "4:memory:/jobs/one", "0::/")
    for group, limit in (("", V1_UNLIMITED), ("/jobs", "5000\n"), ("/jobs/one", "7000\n")):
        system.v1(f"cg/memory{group}", limit=limit, peak="6000\n")
    memory = system.memory()
    assert (memory.limit, memory.peak()) == (5000, 6000)
    assert sees_a_kill(memory, lambda: system.v1("cg/memory/jobs/one", kills=1))


def test_v2_tells_limit_peak_and_kills(system):
    system.mount("cgroup2", "rw,nsdelegate", "cg")
    system.is_in("0::/system.slice/worker: a.service")
    system.v2("cg/system.slice", limit="7000\n")
    system.v2("cg/system.slice/worker: a.service", limit="5000\n")
    memory = system.memory()
    assert (memory.limit, memory.peak()) == (5000, 456)
    assert sees_a_kill(memory, lambda: system.v2("cg/system.slice/worker: a.service", kills=1))


@pytest.mark.parametrize("limit", ["max\n", "", "garbage", "-1\n", V1_UNLIMITED, "9223372036854710272\n"])
def test_no_limit_is_none(system, limit):
    system.mount("cgroup2", "rw", "cg")
    system.is_in("0::/job")
    system.v2("cg/job", limit=limit)
    assert system.memory().limit is None


def test_in_a_hybrid_system_the_hierarchy_with_the_memory_counts(system):
    """The hybrid mode of systemd mounts v2 with no controllers beside v1."""
    system.mount("cgroup2", "rw", "cg/unified")
    system.mount("cgroup", "rw,memory", "cg/memory")
    system.is_in("0::/user.slice", "4:memory:/job")
    system.write("cg/unified/user.slice/cgroup.procs", "")
    system.v1("cg/memory/job", limit="5000\n")
    memory = system.memory()
    assert (memory.limit, memory.peak()) == (5000, 123)
    assert sees_a_kill(memory, lambda: system.v1("cg/memory/job", kills=1))


def test_in_a_hybrid_system_v2_counts_where_it_has_the_memory(system):
    system.mount("cgroup", "rw,cpu", "cg/cpu")
    system.mount("cgroup2", "rw", "cg/unified")
    system.is_in("2:cpu:/job", "1:name=systemd:/job", "0::/job")
    system.v2("cg/unified/job", limit="5000\n")
    assert system.memory().limit == 5000


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("/docker/ab", "/docker/ab"),  # no namespace: the mount shows the container's own group
        ("/", "/"),  # a namespace of its own
        ("/", "/docker/ab"),  # no namespace, and a mount that hides where it is from
        ("/..", "/"),  # the mount was made before the namespace
        ("/", "/../other"),  # the process is outside of our namespace
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_in_a_container_its_own_group_is_the_root_of_the_mount(system, root, path, version):
    kind, options, line = ("cgroup", "rw,memory", "3:memory:") if version == 1 else ("cgroup2", "rw", "0::")
    write = system.v1 if version == 1 else system.v2
    system.mount(kind, options, "cg", root=root)
    system.is_in(f"{line}{path}")
    write("cg", limit="5000\n")
    memory = system.memory()
    assert memory.limit == 5000
    assert sees_a_kill(memory, lambda: write("cg", kills=1))


def test_a_group_below_that_of_the_container_is_found(system):
    system.mount("cgroup2", "rw", "cg", root="/docker/ab")
    system.is_in("0::/docker/ab/inner")
    system.v2("cg", limit="5000\n")
    system.v2("cg/inner", peak="7\n")
    memory = system.memory()
    assert (memory.limit, memory.peak()) == (5000, 7)
    assert sees_a_kill(memory, lambda: system.v2("cg/inner", kills=1))


def test_where_memory_is_not_controlled_in_a_group_its_ancestor_counts(system):
    system.mount("cgroup2", "rw", "cg")
    system.is_in("0::/slice/inner")
    system.write("cg/slice/inner/cgroup.procs", "")
    system.v2("cg/slice", limit="5000\n", peak="7\n")
    memory = system.memory()
    assert (memory.limit, memory.peak()) == (5000, 7)
    assert sees_a_kill(memory, lambda: system.v2("cg/slice", kills=1))


def test_the_mount_that_shows_the_group_is_taken(system):
    system.mount("cgroup2", "rw", "not there")
    system.mount("cgroup2", "rw", "cg")
    system.is_in("0::/job")
    system.v2("cg/job", limit="5000\n")
    assert system.memory().limit == 5000


# --- Whose kill it was -------------------------------------------------------------------------------------------


@pytest.fixture
def job(system):
    system.mount("cgroup2", "rw", "cg")
    system.is_in("0::/job")
    system.v2("cg/job", kills=3)
    return system


def test_kills_before_the_process_are_not_its_own(job):
    memory = job.memory()
    memory.look()
    assert not memory.killed_by_oom()


def test_a_kill_that_the_last_look_saw_is_the_process_s_own(job):
    memory = job.memory()
    memory.look()
    memory.look()
    job.v2("cg/job", kills=4)
    memory.look()
    assert memory.killed_by_oom()


def test_a_kill_before_the_last_looks_was_of_another_process(job):
    memory = job.memory()
    job.v2("cg/job", kills=4)
    for _ in range(4):
        memory.look()
    assert not memory.killed_by_oom()


def test_a_process_that_takes_long_to_die_is_not_looked_at_any_more(job):
    memory = job.memory()
    memory.look()
    job.v2("cg/job", kills=4)
    job.has_flags(EXITING | 0x400000)
    for _ in range(5):
        memory.look()
    (job.proc / str(PID) / "stat").unlink()
    memory.look()
    assert memory.killed_by_oom()


def test_a_group_that_goes_with_the_process_has_told_what_it_could(job):
    memory = job.memory()
    memory.look()
    job.v2("cg/job", kills=4)
    memory.look()
    (job.folder / "cg/job/memory.events").unlink()
    (job.folder / "cg/job/memory.peak").unlink()
    assert memory.killed_by_oom()
    assert memory.peak() is None


# --- Whatever the system is like ---------------------------------------------------------------------------------


def is_inert(memory):
    memory.look()
    return (memory.limit, memory.peak(), memory.killed_by_oom()) == (None, None, False)


def test_it_is_inert_where_there_is_no_procfs(tmp_path):
    assert is_inert(MemoryLimit(PID, proc=tmp_path / "none"))


def test_it_is_inert_for_a_process_that_is_gone(job):
    assert is_inert(MemoryLimit(PID + 1, proc=job.proc))


def test_it_is_inert_in_the_root_group_of_v2(system):
    """The kernel has no counters there."""
    system.mount("cgroup2", "rw", "cg")
    system.is_in("0::/")
    system.write("cg/cgroup.procs", "")
    assert is_inert(system.memory())


def test_a_kernel_without_a_peak_has_all_else(job):
    (job.folder / "cg/job/memory.peak").unlink()
    memory = job.memory()
    assert memory.peak() is None
    assert sees_a_kill(memory, lambda: job.v2("cg/job", kills=4))


def test_a_long_table_of_mounts_is_read_to_its_end(system):
    for number in range(2000):
        system.mount("overlay", "rw", f"container {number}/merged")
    system.mount("cgroup2", "rw", "cg")
    system.is_in("0::/job")
    system.v2("cg/job", limit="5000\n")
    assert system.memory().limit == 5000


junk = st.binary(max_size=30) | st.sampled_from(
    [b"oom_kill", b"oom_kill x\n", b"oom_kill 1\n", b"max", b"\0", b"9" * 9999]
)
tables = junk | st.sampled_from(
    [b"0::\n", b"0::/\0\n", b"0::/job\n", b"::\n", b":memory:\n", b"4:memory:/../..\n", b" - \n"]
)


@given(st.tuples(tables, tables, junk, junk, junk, junk))
@settings(deadline=None, max_examples=100)
def test_garbage_is_survived(tmp_path_factory, contents):
    system = System(tmp_path_factory.mktemp("garbage"))
    system.mount("cgroup2", "rw", "cg")
    system.mount("cgroup", "rw,memory", "cg")
    cgroup, mountinfo, *files, stat = contents
    system.write(f"proc/{PID}/cgroup", cgroup)
    with (system.proc / "self" / "mountinfo").open("ab") as file:
        file.write(mountinfo)
    for group in ("cg", "cg/job"):
        for name, content in zip(("memory.events", "memory.max", "memory.peak"), files, strict=True):
            system.write(f"{group}/{name}", content)
    system.write(f"proc/{PID}/stat", stat)
    memory = system.memory()
    memory.look()
    assert memory.killed_by_oom() in {True, False}
    assert memory.limit is None or memory.limit >= 0
    assert memory.peak() is None or memory.peak() >= 0


def test_what_should_be_a_file_and_is_a_folder_is_survived(job):
    for name in ("memory.events", "memory.max", "memory.peak"):
        (job.folder / "cg/job" / name).unlink()
        (job.folder / "cg/job" / name).mkdir()
    assert is_inert(job.memory())


@pytest.mark.skipif(sys.platform != "linux", reason="cgroups are Linux's")
def test_a_look_costs_little():
    """Measured at the time of writing: 0.06 ms; a look comes once a second."""
    memory = MemoryLimit(os.getpid())
    best = min(_seconds(memory.look) for _ in range(200))
    assert best < 0.0003


def _seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


# --- A real kernel -----------------------------------------------------------------------------------------------

# Reads a line first, so that it is in its group before it allocates; memory of zeros would not be touched.
GREEDY = "import sys; sys.stdin.readline(); print(len(b'x' * 300_000_000))"
PATIENT = "import sys; sys.stdin.readline()"


@dataclass(frozen=True)
class Group:
    """A real control group with a limit of 60 MB, and the processes that were started in it."""

    path: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    def make(self):
        """Make it; return whether memory can be limited there."""
        self.path.mkdir()
        for limit, swap, swap_value in (
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", 60 * MB),
            ("memory.max", "memory.swap.max", 0),
        ):
            if (self.path / limit).exists():
                (self.path / limit).write_text(str(60 * MB))
                with suppress(OSError):  # a kernel that does not account for swap
                    (self.path / swap).write_text(str(swap_value))
                return True
        return False

    def remove(self):
        for process in self.processes:
            with process:
                process.kill()
        if self.path.is_dir():
            # The kernel may take a moment to see that its last process is gone.
            wait_until(self._is_removed, "the end of the group", 5, every=0.01)

    def _is_removed(self):
        with suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()

    def run(self, code):
        """Start a Python process in the group."""
        command = [sys.executable, "-I", "-S", "-c", code]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.processes.append(process)
        (self.path / "cgroup.procs").write_text(str(process.pid))
        return process


@pytest.fixture
def group():
    for mount in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        made = Group(mount / f"batchobs-test-{os.getpid()}")
        usable = False
        try:
            with suppress(OSError):
                usable = made.make()
            if usable:
                yield made
                return
        finally:
            made.remove()
    pytest.skip("no control group can be made here")


def test_a_real_kill_for_want_of_memory_is_told_from_a_plain_one(group):
    greedy = group.run(GREEDY)
    memory = MemoryLimit(greedy.pid)
    memory.look()
    assert 59 * MB < memory.limit <= 60 * MB
    greedy.communicate(b"\n", timeout=30)
    assert greedy.returncode == -signal.SIGKILL
    assert memory.killed_by_oom()
    assert memory.peak() is None or 50 * MB < memory.peak() <= 60 * MB

    # The group has seen a kill now, and another process in it dies of something else.
    patient = group.run(PATIENT)
    memory = MemoryLimit(patient.pid)
    memory.look()
    patient.kill()
    assert patient.wait(timeout=30) == -signal.SIGKILL
    assert not memory.killed_by_oom()


def test_a_real_kill_is_known_however_long_the_dead_is_looked_at(group):
    greedy = group.run(GREEDY)
    memory = MemoryLimit(greedy.pid)
    greedy.stdin.write(b"\n")
    greedy.stdin.close()
    # Not reaped: it stays a zombie, as under a supervisor that is busy.
    os.waitid(os.P_PID, greedy.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(3):
        memory.look()
    assert memory.killed_by_oom()
