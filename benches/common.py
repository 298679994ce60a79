"""Shared by the benchmarks: building programs, running many short processes at once, counting the
requests to the device, file systems in loop devices, tables.

Standard library only. Nothing here outlives the script: every resource is entered into an ExitStack,
and signals that end the script unwind it.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SOURCES = pathlib.Path(__file__).resolve().parent
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IN_NAMESPACE = "MAILSPOOL_BENCH_IN_NAMESPACE"


def fail(text):
    sys.exit(f"bench: {text}")


# ---- the frame of a benchmark --------------------------------------------------------------


def add_arguments(parser, rounds):
    """The options that every benchmark has."""
    parser.add_argument("--fs", default="native",
                        help="native (that of --dir), " + ", ".join(FILE_SYSTEMS)
                        + " in loop devices; several with commas [default: native]")
    parser.add_argument("--dir", default="/var/tmp",
                        help="where spools and images go [default: /var/tmp]")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"[default: {rounds}]")
    parser.add_argument("--size", type=int, default=4096,
                        help="octets of a message [default: 4096]")


def add_process_arguments(parser, messages):
    """The options of the benchmarks that run a process for each message."""
    parser.add_argument("--messages", type=int, default=messages,
                        help=f"for a figure [default: {messages}]")
    parser.add_argument("--at-once", default=[1, 8, 32], type=numbers,
                        help="processes [default: 1,8,32]")


def numbers(text):
    return [int(word) for word in text.split(",")]


@contextlib.contextmanager
def working_directory(options):
    """(ExitStack, temporary directory), after a check of the options."""
    options.fs = options.fs.split(",")
    for kind in options.fs:
        if kind != "native" and kind not in FILE_SYSTEMS:
            fail(f"{kind}: unknown file system")
    if options.fs != ["native"] and os.geteuid() != 0:
        fail("loop devices take root; --fs native does not")
    for name in ("MAILSPOOL_SPOOL", "MAILSPOOL_CONFIG"):
        os.environ.pop(name, None)
    with cleanup() as stack:
        yield stack, stack.enter_context(
            tempfile.TemporaryDirectory(prefix="mailspool-bench.", dir=options.dir))


def places(options, work, megabytes=1024):
    """(directory, heading) for each file system in the options."""
    image = None
    for kind in options.fs:
        if kind == "native":
            name, _source = mount_of(work)
            yield work, f"{name}, the file system of {options.dir}"
            continue
        image = image or LoopImage(work, megabytes)
        point = os.path.join(work, "mount")
        os.makedirs(point, exist_ok=True)
        with image.mounted(kind, point):
            yield point, f"{kind} in a loop device"


def print_conditions(options):
    uname = os.uname()
    print(f"{time.strftime('%Y-%m-%d')}, {uname.sysname} {uname.release.split('-')[0]}, "
          f"{os.cpu_count()} CPUs; messages of {options.size} octets, "
          f"medians of {options.rounds} rounds.\n", flush=True)


def message(sender, recipient, size):
    text = f"From: {sender}\nTo: {recipient}\nSubject: benchmark\n\n".encode()
    line = b"x" * 71 + b"\n"
    text += line * ((size - len(text)) // len(line))
    return text + b"\n" * (size - len(text))


def in_namespace():
    return IN_NAMESPACE in os.environ


def enter_namespace():
    """Starts this script again in a mount namespace, so that its mounts are private."""
    if os.geteuid() != 0 or in_namespace() or not shutil.which("unshare"):
        return
    os.environ[IN_NAMESPACE] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable,
                          os.path.abspath(sys.argv[0]), *sys.argv[1:]])


@contextlib.contextmanager
def cleanup():
    """An ExitStack that also unwinds when the script is told to end."""

    def unwind(number, _frame):
        for ignored in ENDING:  # a second signal must not stop the unwinding
            signal.signal(ignored, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ENDING:
        signal.signal(number, unwind)
    with contextlib.ExitStack() as stack:
        yield stack


def build_c(name, directory):
    """Compiles benches/NAME.c, statically, into `directory`."""
    source, program = SOURCES / f"{name}.c", pathlib.Path(directory) / name
    command = ["gcc", "-O2", "-static", "-pthread", "-Wall", "-Wextra", "-o", program, source]
    if subprocess.run(command).returncode != 0:
        fail(f"cannot build {source}")
    return str(program)


def cargo_build(*what):
    """Builds in release mode; returns the executable's path."""
    command = ["cargo", "build", "--release", "--quiet", "--message-format=json", *what]
    built = subprocess.run(command, cwd=SOURCES.parent, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        fail("cannot build " + " ".join(what))
    return [artifact["executable"] for artifact in map(json.loads, built.stdout.splitlines())
            if artifact.get("executable")][-1]


def build_mailspool():
    """Builds the program as for use; returns its path."""
    built = subprocess.run([SOURCES.parent / "scripts" / "build"], stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        fail("cannot build mailspool")
    return built.stdout.strip()


# ---- processes -----------------------------------------------------------------------------


class Run:
    """The measurement for one cell of a table: `count` processes, `at_once` at a time."""

    def __init__(self, count, wall, cpu, latencies, flushes, writes):
        self.count = count
        self.rate = count / wall
        self.cpu_ms = cpu * 1000 / count
        self.latencies = latencies
        self.flushes = flushes / count
        self.writes = writes / count


def run_processes(argv, message, count, at_once, device, seconds=None,
                  interval=0.0):
    """Runs argv `count` times (or until `seconds` are over), each with the message on standard
    input, never more than `at_once` at a time, each `interval` seconds after one has ended. The
    driver is one thread that spawns and waits: it costs the same for every program compared."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, message, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    running, latencies, cpu, started = {}, [], 0.0, 0
    before, begin = device.counts(), time.monotonic()
    try:
        while True:
            over = seconds is not None and time.monotonic() - begin > seconds
            if started < count and not over and len(running) < at_once:
                at = time.monotonic()
                running[os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)] = at
                started += 1
                continue
            if not running:
                break
            pid, status, usage = os.wait4(-1, 0)
            at = running.pop(pid, None)
            if at is None:
                continue  # a background program of this script
            latencies.append(time.monotonic() - at)
            cpu += usage.ru_utime + usage.ru_stime
            if status != 0:
                fail(f"{' '.join(argv)}: wait status {status}")
            time.sleep(interval)
    finally:
        for pid in running:  # they use the file system that is to be unmounted
            os.waitpid(pid, 0)
    wall = time.monotonic() - begin
    after = device.counts()
    return Run(started, wall, cpu, latencies, after[0] - before[0], after[1] - before[1])


# ---- devices -------------------------------------------------------------------------------


class Device:
    """The block device under a path, for its counters of flushes and writes. On a shared disk they
    also count the requests of other processes; a loop device is private."""

    def __init__(self, path):
        self.stat = None
        number = source_number(path)
        if number is None:
            return
        stat = pathlib.Path(f"/sys/dev/block/{number}").resolve()
        if (stat / "partition").exists():  # flushes are counted for the whole disk only
            stat = stat.parent
        self.stat = stat / "stat"
        self.name = stat.name

    def counts(self):
        """(flush requests, writes) completed; a flush is not a write. See Documentation/block/stat.rst."""
        if self.stat is None:
            return 0, 0
        fields = [int(word) for word in self.stat.read_text().split()]
        return (fields[15] if len(fields) > 15 else 0), fields[4]


def mount_of(path):
    """(type, source) of the mount that holds the path."""
    path, best = os.path.realpath(path), ("", "", "")
    for line in open("/proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, *right.split()[:2])
    return best[1], best[2]


def source_number(path):
    """major:minor of the mounted device. btrfs has st_dev numbers without a device."""
    source = mount_of(path)[1]
    try:
        number = os.stat(source).st_rdev
    except OSError:
        number = os.stat(path).st_dev
    text = f"{os.major(number)}:{os.minor(number)}"
    return text if os.path.exists(f"/sys/dev/block/{text}") else None


# name: (command that makes it, mount options)
FILE_SYSTEMS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"], []),
    "ext4-nojournal": (
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0"],
        [],
    ),
    "xfs": (["mkfs.xfs", "-q", "-f"], []),
    "btrfs": (["mkfs.btrfs", "-q", "-f"], []),
    "btrfs-ssd": (["mkfs.btrfs", "-q", "-f"], ["-o", "ssd"]),
}


class LoopImage:
    """A file in a loop device. The file is really written, so that its blocks are allocated. The loop device
    bypasses the page cache: otherwise a flush of the loop device would write other data back too."""

    def __init__(self, directory, megabytes):
        self.file = pathlib.Path(directory) / "image"
        chunk = bytes(1 << 20)
        with open(self.file, "wb") as image:
            for _ in range(megabytes):
                image.write(chunk)
            os.fsync(image.fileno())

    @contextlib.contextmanager
    def mounted(self, kind, mount_point):
        make, options = FILE_SYSTEMS[kind]
        command = ["losetup", "--find", "--show", "--direct-io=on", self.file]
        device = subprocess.check_output(command, text=True).strip()
        try:
            subprocess.run([*make, device], check=True, stdout=subprocess.DEVNULL)
            with mounted(*options, device, mount_point):
                yield mount_point
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def mounted(*arguments):
    """mount(8) with these arguments, of which the last is the mount point."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


def syncfs(path):
    subprocess.run(["sync", "--file-system", path], check=True)


@contextlib.contextmanager
def fresh_directory(parent, subdirectories=()):
    """An empty directory that is durable, and durably removed afterwards: the data of one cell must not
    be written during the next one."""
    directory = pathlib.Path(parent) / f"spool-{os.getpid()}-{time.monotonic_ns()}"
    for name in ("", *subdirectories):
        (directory / name).mkdir(parents=True)
    syncfs(parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
        syncfs(parent)


# ---- tables --------------------------------------------------------------------------------


def open_to_all(directory):
    """Lets other users through to a directory below a temporary one."""
    for above in (directory, *directory.parents):
        if above.stat().st_mode & 0o005 != 0o005 and above != pathlib.Path("/"):
            above.chmod(0o755)


def median(values):
    return statistics.median(values)


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def print_table(header, rows):
    """Markdown, columns aligned; the first one is text, the others are numbers."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells):
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "| " + " | ".join(padded) + " |"

    print(line(header))
    print("|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|")
    for row in rows:
        print(line(row))
    print(flush=True)
