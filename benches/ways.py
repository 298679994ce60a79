"""The ways in which one short-lived process can make a new message durable.

benches/ways.c has the ways and says what each rests on. Every way is run in interleaved rounds with
1, 8 and 32 processes at once; with --beside, also one message at a time while a program dirties
gigabytes on the same file system.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import common
from common import median, percentile

WAYS = [
    "none",
    "syncfs",
    "syncfs-fsync",
    "settled-syncfs",
    "fsync-each",
    "range-fsync-each",
    "parallel",
    "settled",
    "uring",
    "adaptive",
]
SPOOL = ["new", "active", "info/sender", "info/recipients", "info/transport"]

# Between two messages beside the dirtier: what it dirtied meanwhile is what syncfs has to write.
INTERVAL = 0.05

# Runs as a process of its own: rewrites one file, unsynced, at most so many bytes a second.
DIRTIER = """
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


def add_arguments(parser):
    common.add_arguments(parser, rounds=3)
    common.add_process_arguments(parser, messages=300)
    parser.add_argument("--ways", default=",".join(WAYS), help="[default: all of them]")
    parser.add_argument("--beside", action="store_true",
                        help="also one message at a time beside a program that dirties the disk")
    parser.add_argument("--dirtier-seconds", type=int, default=5, help="a way [default: 5]")
    parser.add_argument("--dirtier-megabytes", type=int, default=2048, help="[default: 2048]")
    parser.add_argument("--dirtier-rate", type=int, default=300, help="MB/s [default: 300]")


def measure_rates(options, program, message, place):
    device, runs = common.Device(place), {}
    for number in range(options.rounds):
        for at_once in options.at_once:
            # Each round starts with another way, so that none always follows the same neighbour.
            turn = number % len(options.ways)
            for way in options.ways[turn:] + options.ways[:turn]:
                with common.fresh_directory(place, SPOOL) as spool:
                    run = common.run_processes([program, way, str(spool)], message,
                                                 options.messages, at_once, device)
                runs.setdefault((way, at_once), []).append(run)

    def cells(way, pick, form):
        return [form.format(median([pick(r) for r in runs[way, n]])) for n in options.at_once]

    def row(way):
        first = runs[way, options.at_once[0]]
        alone = [s * 1000 for run in first for s in run.latencies]
        return [
            way,
            " / ".join(cells(way, lambda r: r.rate, "{:.0f}")),
            " / ".join(cells(way, lambda r: r.flushes, "{:.2f}")),
            " / ".join(cells(way, lambda r: r.writes, "{:.1f}")),
            " / ".join(cells(way, lambda r: r.cpu_ms, "{:.2f}")),
            f"{percentile(alone, 0.5):.1f} / {percentile(alone, 0.99):.1f}",
        ]

    at_once = " / ".join(str(n) for n in options.at_once)
    common.print_table(
        [f"way ({at_once} at once)", "msg/s", "flushes/msg", "writes/msg", "CPU ms/msg",
         "ms p50 / p99 at " + str(options.at_once[0])],
        [row(way) for way in options.ways],
    )


def dirty_megabytes():
    lines = dict(line.split(":") for line in open("/proc/meminfo"))
    return sum(int(lines[key].split()[0]) for key in ("Dirty", "Writeback")) // 1024


def measure_beside_dirtier(options, program, message, place):
    megabytes = min(options.dirtier_megabytes, shutil.disk_usage(place).free // (2 << 20))
    device, rows = common.Device(place), []
    for way in options.ways:
        junk = pathlib.Path(place) / f"dirty-{os.getpid()}"
        with common.fresh_directory(place, SPOOL) as spool:
            dirtier = subprocess.Popen(
                [sys.executable, "-c", DIRTIER, str(junk), str(megabytes << 20),
                 str(options.dirtier_rate << 20), str(options.dirtier_seconds + 5)])
            try:
                deadline = time.monotonic() + 4
                while dirty_megabytes() < megabytes // 2 and time.monotonic() < deadline:
                    time.sleep(0.05)
                dirty = dirty_megabytes()
                run = common.run_processes([program, way, str(spool)], message, 2000, 1, device,
                                             seconds=options.dirtier_seconds, interval=INTERVAL)
            finally:
                dirtier.kill()
                dirtier.wait()
                junk.unlink(missing_ok=True)
        ms = [s * 1000 for s in run.latencies]
        rows.append([way, run.count, f"{percentile(ms, 0.5):.1f}", f"{percentile(ms, 0.99):.1f}",
                     f"{max(ms):.0f}", dirty])
    print(f"A message every {INTERVAL * 1000:.0f} ms beside a program that dirties {options.dirtier_rate} MB/s "
          f"in a file of {megabytes} MB:\n")
    common.print_table(["way", "messages", "p50 ms", "p99 ms", "max ms", "MB dirty at start"], rows)


def main(options):
    options.ways = options.ways.split(",")
    with common.working_directory(options) as (_stack, work):
        program = common.build_c("ways", work)
        message = os.path.join(work, "message")
        pathlib.Path(message).write_bytes(
            common.message("a@example.org", "b@example.org", options.size))
        common.print_conditions(options)
        print(subprocess.check_output([program, "cost", work], text=True))
        room = options.dirtier_megabytes + 1024 if options.beside else 1024
        for place, title in common.places(options, work, room):
            print(f"### {title}\n")
            measure_rates(options, program, message, place)
            if options.beside:
                measure_beside_dirtier(options, program, message, place)
