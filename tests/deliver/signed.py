"""Signs messages with DKIM and verifies signatures, with dkimpy (Debian's python3-dkim).

    signed.py sign FOLDER         signs each file in it, in place, in two canonicalisations: FILE.simple, FILE.relaxed
    signed.py verify FILE...      prints `true` or `false` for each
"""

import base64
import pathlib
import sys

import dkim
import nacl.signing

SEED = b"a key for this test, and no more"
KEY = nacl.signing.SigningKey(SEED)
RECORD = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(bytes(KEY.verify_key))
FIELDS = [b"from", b"to", b"subject", b"date", b"message-id"]


def sign(folder):
    for path in sorted(pathlib.Path(folder).iterdir()):
        message = path.read_bytes()
        for name in (b"simple", b"relaxed"):
            signature = dkim.sign(
                message,
                b"s",
                b"example.org",
                base64.b64encode(SEED),
                canonicalize=(name, name),
                signature_algorithm=b"ed25519-sha256",
                include_headers=FIELDS,
            )
            # Like a signer in a mail system, use the line ends of the message.
            if b"\r\n" not in message:
                signature = signature.replace(b"\r\n", b"\n")
            path.with_suffix("." + name.decode()).write_bytes(signature + message)


def verify(files):
    for file in files:
        message = pathlib.Path(file).read_bytes()
        print("true" if dkim.verify(message, dnsfunc=lambda name, timeout=5: RECORD) else "false")


if sys.argv[1] == "sign":
    sign(sys.argv[2])
else:
    verify(sys.argv[2:])
