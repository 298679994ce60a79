"""The cost of a run over a queue, and of commands that look at a queue.

First, a run over N queued messages, each to one recipient: into the Maildir of a new spool's
configuration, and with a transport that does nothing (examples/load.rs), which leaves only the
queue's own work. Then run, list and count over N messages that are deferred and not due. Then the
bounce of a message to N recipients, which send -t took from its header.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import common
from common import median

MEMORY = "/dev/shm"


def add_arguments(parser):
    common.add_arguments(parser, rounds=3)
    parser.add_argument("--messages", default=[1000, 10000], type=common.numbers,
                        help="in the queue [default: 1000,10000]")
    parser.add_argument("--deferred", type=int, default=10000,
                        help="messages for the idle commands [default: 10000]")
    parser.add_argument("--recipients", default=[25000, 50000, 100000], type=common.numbers,
                        help="of a message that bounces [default: 25000,50000,100000]")
    parser.add_argument("--program", help="measure this mailspool [default: build it]")


class Queue:
    """A spool with messages, made in memory if possible, and copied for every run."""

    def __init__(self, load, directory, count, size, deferred=False):
        self.count, self.path = count, pathlib.Path(directory) / f"queue-{count}-{deferred}"
        subprocess.run([load, "fill", self.path, str(count), str(size)], check=True,
                       stdout=subprocess.DEVNULL)
        (self.path / "config.toml").write_text(
            '[log]\nto = "none"\n[transport.outbox]\ntype = "maildir"\npath = "outbox"\n'
            '[[route]]\ndomain = "*"\ntransport = "outbox"\n')
        if deferred:
            subprocess.run([load, "defer", self.path], check=True, stdout=subprocess.DEVNULL)

    def copy_to(self, directory):
        subprocess.run(["cp", "-a", self.path, directory / "spool"], check=True)
        common.syncfs(directory)
        return str(directory / "spool")


def once(argv, device):
    return common.run_processes(argv, "/dev/null", 1, 1, device)


def measure_runs(options, program, load, queues, place):
    device, runs = common.Device(place), {}
    ways = {"Maildir": lambda spool: [program, "--spool", spool, "run", "--quiet"],
            "nothing": lambda spool: [load, "deliver", spool]}
    for number in range(options.rounds):
        for queue in queues:
            for name in sorted(ways, reverse=number % 2):
                with common.fresh_directory(place) as directory:
                    spool = queue.copy_to(directory)
                    result = once(ways[name](spool), device)
                    if any(os.scandir(os.path.join(spool, "info/sender"))):
                        common.fail(f"{name}: messages are left in the queue")
                runs.setdefault((name, queue.count), []).append(result)
    common.print_table(
        ["transport", "messages", "msg/s", "CPU ms/msg", "flushes/msg", "writes/msg"],
        [[name, f"{count:,}"] + [form.format(median([pick(run) for run in some]))
                                 for form, pick in (
                                     ("{:.0f}", lambda run: run.rate * count),
                                     ("{:.2f}", lambda run: run.cpu_ms / count),
                                     ("{:.2f}", lambda run: run.flushes / count),
                                     ("{:.1f}", lambda run: run.writes / count))]
         for (name, count), some in sorted(runs.items())])


def system_calls(argv):
    """How many it makes, by strace(1)."""
    if not shutil.which("strace"):
        return "–"
    with tempfile.NamedTemporaryFile() as report:
        subprocess.run(["strace", "-c", "-f", "-o", report.name, *argv], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        total = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+)", report.read().decode(), re.MULTILINE)
    return f"{int(total[1]):,}"


def measure_idle(options, program, queue, place):
    device, rows = common.Device(place), []
    with common.fresh_directory(place) as directory:
        spool = queue.copy_to(directory)
        for words in ("run --quiet", "count", "list", "list --json"):
            argv = [program, "--spool", spool, *words.split()]
            once(argv, device)  # warms the cache, as on a system that runs this often
            some = [once(argv, device) for _ in range(options.rounds * 2 + 1)]
            rows.append([words, f"{median([1000 / run.rate for run in some]):.1f}",
                         f"{median([run.cpu_ms for run in some]):.1f}", system_calls(argv)])
    print(f"With {queue.count:,} messages deferred:\n")
    common.print_table(["command", "wall ms", "CPU ms", "system calls"], rows)


def measured(argv, letter=None):
    """(wall ms, CPU ms, peak megabytes, standard output) of one process."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout:
        stdin.write(letter or b"")
        stdin.seek(0)
        process = subprocess.Popen(argv, stdin=stdin, stdout=stdout)
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            common.fail(f"{argv}: status {process.returncode}")
        stdout.seek(0)
        return (1000 * (time.monotonic() - begin), 1000 * (usage.ru_utime + usage.ru_stime),
                usage.ru_maxrss / 1000, stdout.read().decode().strip())


def measure_bounces(options, program, place):
    rows = []
    for count in options.recipients:
        header = "Bcc: " + ",".join(f"r{n:05x}@x" for n in range(count))
        letter = f"Subject: benchmark\n{header}\n\n".encode()
        runs, size = {"send -t": [], "run": []}, 0
        for _ in range(options.rounds):
            with common.fresh_directory(place) as directory:
                of = [program, "--spool", str(directory / "spool")]
                subprocess.run([*of, "init"], check=True, stdout=subprocess.DEVNULL)
                with open(directory / "spool/config.toml", "a") as config:
                    config.write('\n[log]\nto = "none"\n')
                send = measured([*of, "send", "--queue-only", "-t", "-f", "a@example.org"], letter)
                runs["send -t"].append(send)
                subprocess.run([*of, "bounce", "--queue-only", send[3]], check=True,
                               stdout=subprocess.DEVNULL)
                runs["run"].append(measured([*of, "run", "--quiet"]))
                size = sum(file.stat().st_size for file in (directory / "spool/outbox/new").iterdir())
        for what, some in runs.items():
            rows.append([what, f"{count:,}", *(f"{median([one[n] for one in some]):.0f}"
                                               for n in range(3)),
                         f"{size / 1e6:.1f}" if what == "run" else "–"])
    print("A message to many recipients, accepted and bounced:\n")
    common.print_table(["command", "recipients", "wall ms", "CPU ms", "memory MB", "bounce MB"], rows)


def main(options):
    program = os.path.abspath(options.program) if options.program else common.build_mailspool()
    load = common.cargo_build("--example", "load")
    with common.working_directory(options) as (stack, work):
        memory = stack.enter_context(tempfile.TemporaryDirectory(
            prefix="mailspool-bench.", dir=MEMORY if os.path.isdir(MEMORY) else work))
        queues = [Queue(load, memory, count, options.size) for count in options.messages]
        deferred = Queue(load, memory, options.deferred, options.size, deferred=True)
        common.print_conditions(options)
        for place, title in common.places(options, work, 2048):
            print(f"### {title}\n")
            measure_runs(options, program, load, queues, place)
            measure_idle(options, program, deferred, place)
            measure_bounces(options, program, place)
