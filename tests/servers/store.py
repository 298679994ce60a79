"""An SMTP server that stores what it receives, octet by octet.

    store.py FOLDER

Prints its port. Each message becomes N.message and N.envelope (sender, recipients and MAIL's
parameters, one per line) in FOLDER, counted from 0; absent@... is refused.
"""

import asyncio
import pathlib
import sys

from aiosmtpd.smtp import SMTP


class Store:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("absent@"):
            return "550 5.1.1 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 fine"

    async def handle_DATA(self, server, session, envelope):
        name = self.folder / str(self.count)
        self.count += 1
        lines = [envelope.mail_from or "", *envelope.rcpt_tos, *envelope.mail_options]
        name.with_suffix(".envelope").write_text("\n".join(lines), encoding="utf-8")
        name.with_suffix(".message").write_bytes(envelope.original_content)
        return "250 2.0.0 stored"


class LongLines(SMTP):
    line_length_limit = 1024 * 1024


async def main(folder):
    store = Store(folder)
    make = lambda: LongLines(store, enable_SMTPUTF8=True, hostname="store.test")
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(sys.argv[1]))
