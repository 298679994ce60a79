"""What Python's email package and flufl.bounce find in the notice on standard input, as JSON."""

import email
import email.policy
import json
import sys

from flufl.bounce import all_failures

raw = sys.stdin.buffer.read()
plain = email.message_from_bytes(raw)
message = email.message_from_bytes(raw, policy=email.policy.default)
defects = []


def collect(part, path):
    defects.extend(f"{path}: {type(one).__name__}" for one in part.defects)
    for name, value in part.items():
        defects.extend(f"{path} {name}: {one}" for one in getattr(value, "defects", []))


def text_of(payload):
    """Returns bytes, or a text with undecodable bytes, as text for JSON."""
    if isinstance(payload, bytes):
        return payload.decode("utf-8", "replace")
    return str(payload).encode("utf-8", "replace").decode()


def blocks(part):
    """The fields of each block: Python parses message/delivery-status, but not message/global-delivery-status."""
    if part.get_content_type() == "message/delivery-status":
        found = [list(block.items()) for block in part.get_payload()]
    else:
        first = part.get_payload(0)
        rest = first.get_payload(decode=True).decode()
        found = [list(first.items())]
        found += [list(email.message_from_string(one).items()) for one in rest.split("\n\n")]
    unfolded = [[(name, " ".join(str(value).split("\n "))) for name, value in one] for one in found]
    return [dict(one) for one in unfolded if one]


collect(message, "notice")
text, status, original = message.get_payload()
for part, path in ((text, "text"), (status, "status"), (original, "original")):
    collect(part, path)
if original.get_content_type().startswith("message/") and original.is_multipart():
    returned = original.get_payload(0)
    about = {"subject": text_of(returned["subject"]), "body": text_of(returned.get_payload(decode=True) or b"")}
else:
    payload = original.get_payload(decode=True) if not original.is_multipart() else b""
    if original.is_multipart():
        payload = bytes(original.get_payload(0))
    about = {"subject": text_of(email.message_from_bytes(payload)["subject"]), "body": text_of(payload)}

temporary, permanent = all_failures(plain)
print(
    json.dumps(
        {
            "header": {name: str(value) for name, value in message.items()},
            "kind": message.get_content_type(),
            "report_type": message.get_param("report-type"),
            "parts": [part.get_content_type() for part in message.get_payload()],
            "encodings": [str(part["content-transfer-encoding"]) for part in message.get_payload()],
            "text": text.get_content(),
            "status": blocks(status),
            "original": about,
            "defects": defects,
            "longest": max(len(line) for line in raw.split(b"\n")),
            "temporary": sorted(one.decode() for one in temporary),
            "permanent": sorted(one.decode() for one in permanent),
        }
    )
)
