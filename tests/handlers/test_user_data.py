"""What is said of user-data when it is taken: nothing of what cloud-init takes, and a notice of what it ignores."""

import gzip
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from handlers.user_data import MALFORMED, SILENT, UNKNOWN, cleaned, notices

CONFIG = b"#cloud-config\nhostname: web-1\n"
BROKEN = b"#cloud-config\nusers: [\n  - {name: hunter2"


def mime(*parts: tuple[str, str]) -> bytes:
    message = MIMEMultipart()
    for content, subtype in parts:
        message.attach(MIMEText(content, subtype))
    return message.as_bytes()


FINE = {
    "nothing": b"",
    "blanks": b" \n\n",
    "config": CONFIG,
    "config of nothing": b"#cloud-config\n",
    "config with CRLF": CONFIG.replace(b"\n", b"\r\n"),
    "config in capitals, behind blanks": b"\n  #CLOUD-CONFIG\na: 1\n",
    "script": b"#!/bin/sh\n: not YAML [\n",
    "script with any bytes": b"#!/bin/sh\n\xff\xfe\n",
    "include": b"#include\nhttp://192.0.2.1/x\n",
    "include once": b"#include-once\nhttp://192.0.2.1/x\n",
    "boothook": b"#cloud-boothook\n#!/bin/sh\n",
    "part handler": b"#part-handler\n",
    "template": b"## template: jinja\n#cloud-config\nx: {{ v1.region }}\n",
    "archive": b"#cloud-config-archive\n- '#!/bin/sh'\n- {type: text/cloud-config, content: 'a: 1'}\n",
    "patch": b'#cloud-config-jsonp\n[{"op": "add", "path": "/a", "value": 1}]',
    "gzip": gzip.compress(CONFIG),
    "much of it, compressed": gzip.compress(b"#!/bin/sh\n" + bytes(4 * 1024 * 1024)),
    "gzip of MIME": gzip.compress(mime((CONFIG.decode(), "cloud-config"))),
    "MIME": mime((CONFIG.decode(), "cloud-config"), ("#!/bin/sh\n", "x-shellscript"), ("#!/bin/sh\n", "plain")),
    "MIME of a kind of its own": mime(("hello", "x-mine")),
    "vendor-data that is on": b"#cloud-config\nvendor_data: {enabled: true, prefix: x}\n",
    "its own phone_home": b"#cloud-config\nphone_home: {url: 'http://192.0.2.1/'}\n",
}
WRONG = {
    "a config without its first line": (b"hostname: web-1\n", UNKNOWN),
    "words": (b"hello", UNKNOWN),
    "any bytes": (bytes(range(256)), UNKNOWN),
    "a comment before it": (b"# mine\n#cloud-config\n", UNKNOWN),
    "zip": (b"PK\x03\x04", UNKNOWN),
    "compressed words": (gzip.compress(b"hello"), UNKNOWN),
    "a mark inside of gzip": (gzip.compress(b"\xef\xbb\xbf" + CONFIG), UNKNOWN),
    "cut gzip": (gzip.compress(CONFIG)[:-9], MALFORMED),
    "broken gzip": (b"\x1f\x8bnothing", MALFORMED),
    "broken YAML": (BROKEN, MALFORMED),
    "a tab": (b"#cloud-config\nusers:\n\t- hunter2\n", MALFORMED),
    "a list": (b"#cloud-config\n- a\n", MALFORMED),
    "an alias of nothing": (b"#cloud-config\na: *hunter2\n", MALFORMED),
    "a tag of nobody": (b"#cloud-config\na: !hunter2 b\n", MALFORMED),
    "too deep": (b"#cloud-config\na: " + b"[" * 1000, MALFORMED),
    "a date that is none": (b"#cloud-config\na: 2026-13-40\n", MALFORMED),
    "Latin-1": (b"#cloud-config\na: \xe9\n", MALFORMED),
    "a broken part": (mime((CONFIG.decode(), "cloud-config"), (BROKEN.decode(), "cloud-config")), MALFORMED),
    "a part that says nothing of itself": (mime(("hello", "plain")), UNKNOWN),
    "MIME without parts": (b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\nhello\n", MALFORMED),
    "MIME in a comment": (b"#cloud-config\n# mime-version: 1.0\nhostname: web-1\n", UNKNOWN),
    "an archive that is a mapping": (b"#cloud-config-archive\na: 1\n", MALFORMED),
    "a patch that is no JSON": (b"#cloud-config-jsonp\n[", MALFORMED),
    "vendor-data that is off": (b"#cloud-config\nvendor_data: {enabled: false}\n", SILENT),
    "vendor-data that is nothing": (b"#cloud-config\nvendor_data: no\n", SILENT),
    "boothooks that are off": (b"#cloud-config\nvendor_data: {disabled_handlers: [text/cloud-boothook]}\n", SILENT),
    "the same in words": (b"#cloud-config\nvendor_data:\n  enabled: 'no'\n", SILENT),
    "the same compressed": (gzip.compress(b"#cloud-config\nvendor_data: {enabled: 0}\n"), SILENT),
    "the same in a part": (mime(("#cloud-config\nvendor_data: {enabled: off}", "plain")), SILENT),
}


@pytest.mark.parametrize("data", FINE.values(), ids=FINE)
def test_what_cloud_init_takes_is_worth_no_notice(data: bytes) -> None:
    assert (cleaned(data), notices(data)) == (data, ())


@pytest.mark.parametrize(("data", "code"), WRONG.values(), ids=WRONG)
def test_what_it_ignores_is_said_and_not_quoted(data: bytes, code: str) -> None:
    found = notices(cleaned(data))
    assert [notice.code for notice in found] == [code]
    assert "hunter2" not in repr(found)


def test_a_byte_order_mark_goes_with_what_it_marks() -> None:
    text = CONFIG.decode() + "# \N{GRINNING FACE}\n"
    for encoded in (
        text.encode("utf-8-sig"),
        text.encode("utf-16"),
        "\ufeff".encode("utf-16-be") + text.encode("utf-16-be"),
    ):
        assert cleaned(encoded) == text.encode()
        assert notices(cleaned(encoded)) == ()


def test_what_only_seems_to_be_utf_16_stays_as_it_is() -> None:
    assert cleaned(odd := b"\xff\xfe\x00") == odd
    assert [notice.code for notice in notices(odd)] == [UNKNOWN]


def test_a_line_at_fault_is_named() -> None:
    (notice,) = notices(b"#cloud-config\na: 1\nb: c: d\n")
    assert "line 3, column 5" in notice.detail


def test_what_takes_long_to_read_is_not_read() -> None:
    message = MIMEMultipart()
    for _ in range(50):
        part = MIMEApplication(gzip.compress(b"#cloud-config\na: " + b"[" * 100_000))
        message.attach(part)
    found = notices(message.as_bytes())
    assert [notice.code for notice in found] in ([], [MALFORMED])
