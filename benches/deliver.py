"""The cost of delivering a full queue, over SMTP, over LMTP or into a Maildir: mailspool, Postfix, and
the limit.

  mailspool    mailspool run, a transport with `host` and N connections, or one with `path`
  Postfix      a private instance with the same messages deferred, from `postqueue -f` until the last
               one is removed; N connections at once from the beginning, kept open for the next
               message, no pause between the parts of the queue; virtual(8) for a Maildir
  smtp-source  -d: N connections, each used again; no queue, no disk: the limit of the sink

All deliver to one smtp-sink on loopback, or into one Maildir, in interleaved rounds. Each queue holds the
messages durably before the clock starts. Needs root, because Postfix does, and Debian's postfix.
"""

import contextlib
import os
import pathlib
import pwd
import socket
import subprocess
import tempfile
import time

import common
import run
from common import median

SINK, SOURCE, POSTFIX = "/usr/sbin/smtp-sink", "/usr/sbin/smtp-source", "/usr/sbin/postfix"
# The account that the sink runs as, and that owns Postfix's Maildir.
USER = "nobody"
# Seconds; a longer wait fails the benchmark.
PATIENCE = 600


def add_arguments(parser):
    common.add_arguments(parser, rounds=5)
    parser.add_argument("--messages", type=int, default=5000,
                        help="in the queue [default: 5000]")
    parser.add_argument("--connections", default=[20, 50], type=common.numbers,
                        help="at once [default: 20,50]")
    parser.add_argument("--by", default="smtp", choices=["smtp", "lmtp", "maildir"],
                        help="[default: smtp]")
    parser.add_argument("--program", help="measure this mailspool [default: build it]")


def free_port():
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return end.getsockname()[1]


def until(what, holds, pause=0.01):
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > PATIENCE:
            common.fail(f"timed out waiting until {what}")
        time.sleep(pause)


def listens(port):
    with socket.socket() as end:
        return end.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def sink(by):
    """The port of a new smtp-sink."""
    port = free_port()
    protocol = ["-L"] if by == "lmtp" else []
    argv = [SINK, *protocol, "-u", USER, f"127.0.0.1:{port}", "1000"]
    with subprocess.Popen(argv) as process:
        try:
            until("smtp-sink listens", lambda: listens(port))
            yield port
        finally:
            process.kill()


class Mailspool:
    def __init__(self, program, queue, by):
        self.program, self.queue, self.by = program, queue, by

    def seconds(self, place, port, connections):
        with common.fresh_directory(place) as directory:
            spool = self.queue.copy_to(directory)
            where = 'path = "out"' if self.by == "maildir" else f'host = "[127.0.0.1]:{port}"'
            pathlib.Path(spool, "config.toml").write_text(
                f'[log]\nto = "none"\n[run]\njobs = {connections * 2}\n[transport.out]\n'
                f'type = "{self.by}"\n{where}\nconcurrency = {connections}\n'
                '[[route]]\ndomain = "*"\ntransport = "out"\n')
            os.sync()
            begin = time.monotonic()
            subprocess.run([self.program, "--spool", spool, "run", "--quiet"], check=True)
            wall = time.monotonic() - begin
            if any(os.scandir(os.path.join(spool, "info/sender"))):
                common.fail("mailspool: messages are left in the queue")
            if self.by == "maildir" and mails(spool, "out") != self.queue.count:
                common.fail("mailspool: messages are missing in the Maildir")
            return wall


def mails(*maildir):
    return len(os.listdir(os.path.join(*maildir, "new")))


class Source:
    def __init__(self, count, size, by):
        self.count, self.size, self.by = count, size, by

    def seconds(self, _place, port, connections):
        return self.send(port, connections, *(["-L"] if self.by == "lmtp" else []))

    def send(self, port, connections, *more):
        begin = time.monotonic()
        subprocess.run([SOURCE, "-d", "-s", str(connections), "-m", str(self.count),
                        "-l", str(self.size), "-f", "a@example.org", "-t", "b@example.org", *more,
                        f"inet:127.0.0.1:{port}"], check=True)
        return time.monotonic() - begin


class Postfix:
    def __init__(self, source):
        self.source = source

    def seconds(self, place, port, connections):
        with common.fresh_directory(place) as directory:
            common.open_to_all(directory)
            with self.running(directory, port, connections) as (control, log, own_port):
                # All messages wait, because their transport is deferred.
                self.source.send(own_port, 20)
                taken = lambda: log.read_bytes().count(b"status=deferred") >= self.source.count
                until("Postfix has deferred all messages", taken, 0.1)
                control("postconf", "-e", "defer_transports=")
                control("postfix", "reload")
                os.sync()
                before = log.stat().st_size
                begin = time.monotonic()
                control("postqueue", "-f")
                self.until_removed(log, before)
                wall = time.monotonic() - begin
                maildir = directory / "box"
                if self.source.by == "maildir" and mails(maildir) != self.source.count:
                    common.fail("Postfix: messages are missing in the Maildir")
                return wall

    def until_removed(self, log, at):
        removed = 0
        with log.open("rb") as lines:
            lines.seek(at)

            def through():
                nonlocal removed
                removed += lines.read().count(b": removed\n")
                return removed >= self.source.count

            until("Postfix has delivered all messages", through)

    @contextlib.contextmanager
    def running(self, directory, port, connections):
        own_port = free_port()
        for name in ("conf", "queue", "data", "box"):
            (directory / name).mkdir()
        os.chown(directory / "data", pwd.getpwnam("postfix").pw_uid, -1)
        owner = pwd.getpwnam(USER)
        os.chown(directory / "box", owner.pw_uid, owner.pw_gid)
        ways = {"smtp": f"smtp:[127.0.0.1]:{port}", "lmtp": f"lmtp:inet:127.0.0.1:{port}",
                "maildir": "virtual"}
        way = ways[self.source.by]
        fill = {"DIR": directory, "OWN": own_port, "PORT": port, "MANY": connections, "WAY": way,
                "NAME": way.split(":")[0], "UID": owner.pw_uid, "GID": owner.pw_gid}
        for name, text in (("main.cf", MAIN_CF), ("master.cf", MASTER_CF)):
            for word, value in fill.items():
                text = text.replace(word, str(value))
            (directory / "conf" / name).write_text(text)

        def control(name, *arguments):
            with tempfile.TemporaryFile() as said:  # a file, because the daemon inherits it
                argv = [f"/usr/sbin/{name}", "-c", directory / "conf", *arguments]
                if subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                  cwd="/").returncode != 0:
                    said.seek(0)
                    common.fail(f"{name} {' '.join(arguments)}: {said.read().decode()}")

        control("postfix", "start")
        try:
            until("Postfix listens", lambda: listens(own_port))
            yield control, directory / "log", own_port
        finally:
            control("postfix", "stop")


MAIN_CF = """\
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/log
maillog_file_prefixes = DIR
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.bench.test
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
default_transport = WAY
defer_transports = NAME
default_process_limit = 500
default_destination_concurrency_limit = MANY
initial_destination_concurrency = MANY
smtp_connection_cache_destinations = [127.0.0.1]:PORT
smtp_connection_cache_time_limit = 10s
lmtp_connection_cache_destinations = inet:127.0.0.1:PORT
lmtp_connection_cache_time_limit = 10s
virtual_mailbox_domains =
virtual_mailbox_base = DIR
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:UID
virtual_gid_maps = static:GID
virtual_minimum_uid = 1
in_flow_delay = 0s
"""

MASTER_CF = """\
127.0.0.1:OWN inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


def main(options):
    if os.geteuid() != 0 or not os.path.exists(POSTFIX):
        common.fail("this benchmark needs root and Debian's postfix")
    program = os.path.abspath(options.program) if options.program else common.build_mailspool()
    load = common.cargo_build("--example", "load")
    with common.working_directory(options) as (stack, work):
        memory = stack.enter_context(tempfile.TemporaryDirectory(
            prefix="mailspool-bench.", dir=run.MEMORY if os.path.isdir(run.MEMORY) else work))
        source = Source(options.messages, options.size, options.by)
        queue = run.Queue(load, memory, options.messages, options.size)
        ways = {"mailspool": Mailspool(program, queue, options.by), "Postfix": Postfix(source)}
        if options.by != "maildir":
            ways["smtp-source"] = source
        common.print_conditions(options)
        for place, title in common.places(options, work, 2048):
            print(f"### {title}\n")
            measure(options, ways, place)


def measure(options, ways, place):
    times = {}
    for number in range(options.rounds):
        for connections in options.connections:
            # Each round starts with another program.
            turn = number % len(ways)
            names = list(ways)[turn:] + list(ways)[:turn]
            for name in names:
                with sink(options.by) as port:
                    wall = ways[name].seconds(place, port, connections)
                times.setdefault((name, connections), []).append(wall)
    rows = []
    for name in ways:
        for connections in options.connections:
            walls = times[name, connections]
            rates = [options.messages / wall for wall in walls]
            over = [a / b for a, b in zip(times["Postfix", connections], walls)]
            rows.append([name, connections, f"{median(walls):.2f}", f"{median(rates):.0f}",
                         f"{min(rates):.0f}–{max(rates):.0f}", f"{median(over):.2f}"])
    common.print_table(
        ["", "connections", "seconds", "msg/s", "from–to", "rate ÷ Postfix"], rows)
