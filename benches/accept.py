"""What accepting one message a process costs: mailspool, the floor, dma.

  floor      benches/floor.c: one file, fsync, rename, fsync of the directory
  mailspool  mailspool --spool DIR send --queue-only -f a@example.org -- b@example.org
  dma        dma's sendmail with DEFER in its dma.conf, so that it queues and does not deliver

Interleaved rounds, the message on standard input.

dma is not installed (it would displace the system's mail server): its Debian package is fetched and
unpacked into a temporary directory. Its configuration and queue have fixed places; this moves to a
mount namespace of its own and mounts private directories there. Nothing of the system's is changed,
and the mounts are gone with the last process. Without root or apt-get, dma is left out.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess

import common
from common import median

SENDER, RECIPIENT = "a@example.org", "b@example.org"


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
        for point in (self.CONFIGURATION, self.QUEUE):
            make_mount_point(point, work, stack)
        stack.enter_context(common.mounted("--bind", private, self.CONFIGURATION))

    @contextlib.contextmanager
    def ready(self, place):
        with common.fresh_directory(place) as directory:
            # dma gives root up for user and group mail.
            shutil.chown(directory, "root", "mail")
            directory.chmod(0o2770)
            with common.mounted("--bind", directory, self.QUEUE):
                yield [self.program, "-i", "-f", SENDER, RECIPIENT]
                if not any(directory.glob("Q*")):
                    common.fail("dma said it queued the messages, but its queue is empty")


def make_mount_point(path, work, stack):
    """Makes a directory in a place of the system's that only this namespace sees: where it is
    missing, its parent is covered by links to what is behind."""
    if path.is_dir():
        return
    behind = pathlib.Path(work) / ("behind" + str(path.parent).replace("/", "-"))
    behind.mkdir()
    stack.enter_context(common.mounted("--bind", path.parent, behind))
    stack.enter_context(common.mounted("-t", "tmpfs", "-o", "mode=755", "tmpfs", path.parent))
    for name in os.listdir(behind):
        (path.parent / name).symlink_to(behind / name)
    path.mkdir()


def fetch_dma(work):
    """The path of a dma that can be run, or else (None, why not)."""
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


def named_program(text):
    name, _, path = text.rpartition("=")
    if not os.access(path, os.X_OK):
        common.fail(f"{path}: not a program")
    return Mailspool(os.path.abspath(path), name or "mailspool")


def measure(options, programs, message, place, title):
    device, runs = common.Device(place), {}
    for number in range(options.rounds):
        for at_once in options.at_once:
            # Each round starts with another, so that none always follows the same neighbour.
            turn = number % len(programs)
            for program in programs[turn:] + programs[:turn]:
                with program.ready(place) as argv:
                    # One before the clock starts: a spool may have to be made first. And nothing
                    # of other programs' is waiting to be written: mailspool looks at that.
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
        # Round by round, so that a slow minute of the disk is in both.
        return " / ".join(
            "{:.2f}".format(median([pick(a) / pick(b)
                                    for a, b in zip(runs[name, n], runs[other, n])]))
            for n in options.at_once)

    print(f"### {title}\n")
    common.print_table(
        [" / ".join(map(str, options.at_once)) + " at once", "msg/s", "rate ÷ floor", "rate ÷ dma",
         "flushes/msg", "writes/msg", "CPU ms/msg"],
        [[
            program.name,
            cells(program.name, lambda r: r.rate, "{:.0f}"),
            ratios(program.name, "floor", lambda r: r.rate),
            ratios(program.name, "dma", lambda r: r.rate),
            cells(program.name, lambda r: r.flushes, "{:.2f}"),
            cells(program.name, lambda r: r.writes, "{:.1f}"),
            cells(program.name, lambda r: r.cpu_ms, "{:.2f}"),
        ] for program in programs],
    )


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
        message = pathlib.Path(work) / "message"
        message.write_bytes(common.message(SENDER, RECIPIENT, options.size))
        common.print_conditions(options)
        for place, title in common.places(options, work):
            measure(options, programs, str(message), place, title)
