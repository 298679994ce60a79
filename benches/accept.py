"""The cost of accepting one message for each process: mailspool, the floor, dma, Postfix.

  floor      benches/floor.c: one file, fsync, rename, fsync of the directory
  mailspool  mailspool --spool DIR send --queue-only -f a@example.org -- b@example.org
  dma        dma's sendmail with DEFER in its dma.conf, so that it queues and does not deliver
  Postfix    its sendmail, which leaves the message in maildrop/ of a private instance; cleanup(8), which
             writes it once more before it can be delivered, does not run

Interleaved rounds, the message on standard input. With --beside, also one message at a time while another
program dirties gigabytes on the same file system: acceptance must not wait for that program's data.

dma is not installed (it would replace the system's mail server): its Debian package is fetched and
unpacked into a temporary directory. Its configuration and queue have fixed paths, so this script enters a
private mount namespace and mounts private directories there. The system is not changed, and the mounts
are gone with the last process. Without root or apt-get, dma is left out; without root or Debian's postfix,
Postfix is.
"""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import common
from common import median, percentile

SENDER, RECIPIENT = "a@example.org", "b@example.org"

# Seconds between two messages while the writer runs.
INTERVAL = 0.05

# Runs as a separate process: rewrites one file, unsynced, at most `rate` bytes a second.
WRITER = """
import os, sys, time
path, size, rate, seconds = sys.argv[1], *map(int, sys.argv[2:])
chunk, end = bytes(1 << 20), time.monotonic() + seconds
file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
start, written = time.monotonic(), 0
while time.monotonic() < end:
    written += os.pwrite(file, chunk, written % size)
    ahead = (written - size // 2) / rate - (time.monotonic() - start)
    if ahead > 0:
        time.sleep(ahead)
"""


class Floor:
    name = "floor"

    def __init__(self, work):
        self.program = common.build_c("floor", work)

    @contextlib.contextmanager
    def ready(self, place):
        with common.fresh_directory(place) as directory:
            yield [self.program, str(directory)]


class Mailspool:
    def __init__(self, program, name="mailspool"):
        self.program, self.name = program, name

    @contextlib.contextmanager
    def ready(self, place):
        with common.fresh_directory(place) as directory:
            program = [self.program, "--spool", str(directory / "spool")]
            subprocess.run([*program, "init"], check=True, stdout=subprocess.DEVNULL)
            yield [*program, "send", "--queue-only", "-f", SENDER, "--", RECIPIENT]


class Dma:
    name = "dma"
    CONFIGURATION, QUEUE = pathlib.Path("/etc/dma"), pathlib.Path("/var/spool/dma")

    def __init__(self, program, work, stack):
        self.program = program
        private = pathlib.Path(work) / "etc-dma"
        private.mkdir(mode=0o755)
        (private / "mailname").write_text("bench.example.org\n")
        (private / "dma.conf").write_text(f"MAILNAME {self.CONFIGURATION}/mailname\nDEFER\n")
        # dma reads /etc as the user mail, perhaps by links through this directory.
        os.chmod(work, 0o711)
        for point in (self.CONFIGURATION, self.QUEUE):
            make_mount_point(point, work, stack)
        stack.enter_context(common.mounted("--bind", private, self.CONFIGURATION))

    @contextlib.contextmanager
    def ready(self, place):
        with common.fresh_directory(place) as directory:
            # dma changes from root to user and group mail.
            shutil.chown(directory, "root", "mail")
            directory.chmod(0o2770)
            with common.mounted("--bind", directory, self.QUEUE):
                yield [self.program, "-i", "-f", SENDER, RECIPIENT]
                if not any(directory.glob("Q*")):
                    common.fail("dma said it queued the messages, but its queue is empty")


class Postfix:
    name = "Postfix"
    MAIN_CF = """\
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/log
maillog_file_prefixes = DIR
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.bench.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
"""

    @staticmethod
    @contextlib.contextmanager
    def pickup(path):
        """Answers in the place of pickup(8), which each message wakes."""
        def answer():
            with contextlib.suppress(OSError):
                while True:
                    socket_.accept()[0].close()

        with socket.socket(socket.AF_UNIX) as socket_:
            socket_.bind(str(path))
            path.chmod(0o666)
            socket_.listen(128)
            thread = threading.Thread(target=answer)
            thread.start()
            try:
                yield
            finally:
                socket_.shutdown(socket.SHUT_RDWR)
                thread.join()

    @classmethod
    def missing(cls):
        """Why it cannot be measured, if it cannot."""
        if not common.in_namespace():
            return "it takes root and unshare(1)"
        return None if pathlib.Path("/usr/sbin/postdrop").exists() else "Debian's postfix is not installed"

    @contextlib.contextmanager
    def ready(self, place):
        with common.fresh_directory(place) as directory:
            common.open_to_all(directory)
            for name in ("conf", "queue", "data"):
                (directory / name).mkdir()
            shutil.chown(directory / "data", "postfix")
            conf = directory / "conf"
            (conf / "main.cf").write_text(self.MAIN_CF.replace("DIR", str(directory)))
            shutil.copy("/etc/postfix/master.cf", conf)
            subprocess.run(["/usr/sbin/postfix", "-c", conf, "check"], check=True)
            with self.pickup(directory / "queue/public/pickup"):
                yield ["/usr/sbin/sendmail", "-C", str(conf), "-i", "-f", SENDER, RECIPIENT]
            if not any((directory / "queue/maildrop").iterdir()):
                common.fail("Postfix said it queued the messages, but maildrop/ is empty")


def make_mount_point(path, work, stack):
    """Makes a directory at a path of the system, visible in this namespace only. If it is missing, a tmpfs
    covers its parent, with links to the parent's contents."""
    if path.is_dir():
        return
    covered = pathlib.Path(work) / ("covered" + str(path.parent).replace("/", "-"))
    covered.mkdir()
    stack.enter_context(common.mounted("--bind", path.parent, covered))
    stack.enter_context(common.mounted("-t", "tmpfs", "-o", "mode=755", "tmpfs", path.parent))
    for name in os.listdir(covered):
        (path.parent / name).symlink_to(covered / name)
    path.mkdir()


def fetch_dma(work):
    """(path of a dma that can be run, None), or else (None, why not)."""
    if not common.in_namespace():
        return None, "it takes root and unshare(1)"
    package = pathlib.Path(work) / "dma"
    package.mkdir()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": package}
    try:
        subprocess.run(["apt-get", "download", "dma"], check=True, **quiet)
        [archive] = package.glob("dma_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, package], check=True, **quiet)
        program = str(package / "usr/sbin/dma")
        libraries = subprocess.check_output(["ldd", program], text=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        return None, f"fetching its Debian package: {error}"
    missing = [line.split()[0] for line in libraries.splitlines() if "not found" in line]
    return (None, "no " + ", ".join(missing)) if missing else (program, None)


def add_arguments(parser):
    common.add_arguments(parser, rounds=5)
    common.add_process_arguments(parser, messages=400)
    parser.add_argument("--program", action="append", metavar="[NAME=]FILE", default=[],
                        help="measure this mailspool; several are compared [default: build it]")
    parser.add_argument("--beside", action="store_true",
                        help="also one message at a time while a program dirties the disk")
    parser.add_argument("--beside-seconds", type=int, default=5,
                        help="for each program [default: 5]")
    parser.add_argument("--beside-megabytes", type=int, default=2048,
                        help="rewritten by that program [default: 2048]")
    parser.add_argument("--beside-rate", type=int, default=300, help="MB/s [default: 300]")


def named_program(text):
    name, _, path = text.rpartition("=")
    if not os.access(path, os.X_OK):
        common.fail(f"{path}: not a program")
    return Mailspool(os.path.abspath(path), name or "mailspool")


def measure(options, programs, message, place, title):
    device, runs = common.Device(place), {}
    for number in range(options.rounds):
        for at_once in options.at_once:
            # Each round starts with another program, so that none always follows the same one.
            turn = number % len(programs)
            for program in programs[turn:] + programs[:turn]:
                with program.ready(place) as argv:
                    # One message before the clock starts: a spool may have to be made first. The sync
                    # leaves no data of other programs to be written.
                    common.run_processes(argv, message, 1, 1, device)
                    os.sync()
                    result = common.run_processes(argv, message, options.messages, at_once, device)
                runs.setdefault((program.name, at_once), []).append(result)

    def cells(name, pick, form):
        return " / ".join(form.format(median([pick(run) for run in runs[name, n]]))
                          for n in options.at_once)

    def ratios(name, other, pick):
        if (other, options.at_once[0]) not in runs or name == other:
            return "–"
        # Round by round, so that a slow minute of the disk affects both.
        return " / ".join(
            "{:.2f}".format(median([pick(a) / pick(b)
                                    for a, b in zip(runs[name, n], runs[other, n])]))
            for n in options.at_once)

    print(f"### {title}\n")
    common.print_table(
        [" / ".join(map(str, options.at_once)) + " at once", "msg/s", "rate ÷ floor", "rate ÷ dma",
         "rate ÷ Postfix", "flushes/msg", "writes/msg", "CPU ms/msg"],
        [[
            program.name,
            cells(program.name, lambda r: r.rate, "{:.0f}"),
            ratios(program.name, "floor", lambda r: r.rate),
            ratios(program.name, "dma", lambda r: r.rate),
            ratios(program.name, "Postfix", lambda r: r.rate),
            cells(program.name, lambda r: r.flushes, "{:.2f}"),
            cells(program.name, lambda r: r.writes, "{:.1f}"),
            cells(program.name, lambda r: r.cpu_ms, "{:.2f}"),
        ] for program in programs],
    )


def dirty_megabytes():
    lines = dict(line.split(":") for line in open("/proc/meminfo"))
    return sum(int(lines[key].split()[0]) for key in ("Dirty", "Writeback")) // 1024


def measure_beside(options, programs, message, place):
    megabytes = min(options.beside_megabytes, shutil.disk_usage(place).free // (2 << 20))
    device, rows = common.Device(place), []
    for program in programs:
        junk = pathlib.Path(place) / f"dirty-{os.getpid()}"
        with program.ready(place) as argv:
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(junk), str(megabytes << 20),
                 str(options.beside_rate << 20), str(options.beside_seconds + 5)])
            try:
                deadline = time.monotonic() + 4
                while dirty_megabytes() < megabytes // 2 and time.monotonic() < deadline:
                    time.sleep(0.05)
                dirty = dirty_megabytes()
                run = common.run_processes(argv, message, 2000, 1, device,
                                           seconds=options.beside_seconds, interval=INTERVAL)
            finally:
                writer.kill()
                writer.wait()
                junk.unlink(missing_ok=True)
        ms = [s * 1000 for s in run.latencies]
        rows.append([program.name, run.count, f"{percentile(ms, 0.5):.1f}",
                     f"{percentile(ms, 0.99):.1f}", f"{max(ms):.0f}", dirty])
    print(f"A message every {INTERVAL * 1000:.0f} ms while a program dirties "
          f"{options.beside_rate} MB/s in a file of {megabytes} MB:\n")
    common.print_table(["", "messages", "p50 ms", "p99 ms", "max ms", "MB dirty at start"], rows)


def main(options):
    common.enter_namespace()
    programs = [named_program(text) for text in options.program]
    programs = programs or [Mailspool(common.build_mailspool())]
    with common.working_directory(options) as (stack, work):
        programs.insert(0, Floor(work))
        dma, why_not = fetch_dma(work)
        if dma is None:
            print(f"dma is left out: {why_not}.\n")
        else:
            programs.append(Dma(dma, work, stack))
        why_not = Postfix.missing()
        if why_not:
            print(f"Postfix is left out: {why_not}.\n")
        else:
            programs.append(Postfix())
        message = pathlib.Path(work) / "message"
        message.write_bytes(common.message(SENDER, RECIPIENT, options.size))
        common.print_conditions(options)
        room = options.beside_megabytes + 1024 if options.beside else 1024
        for place, title in common.places(options, work, room):
            measure(options, programs, str(message), place, title)
            if options.beside:
                measure_beside(options, programs, str(message), place)
