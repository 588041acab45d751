"""What is said of user-data when it is taken: nothing of what cloud-init takes, and a notice of what it ignores."""

import base64
import gzip
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given, settings, strategies as st

from handlers.commands.bounded_yaml import TooMuch, load
from handlers.commands.user_data import MALFORMED, SILENT, UNKNOWN, cleaned, notices

CONFIG = b"#cloud-config\nhostname: web-1\n"
BROKEN = b"#cloud-config\nusers: [\n  - {name: hunter2"


def mime(*parts: tuple[str, str]) -> bytes:
    message = MIMEMultipart()
    for content, subtype in parts:
        message.attach(MIMEText(content, subtype))
    return message.as_bytes()


MIME = b"MIME-Version: 1.0\n"


def packed(content: bytes, kind: str = "application/gzip") -> bytes:
    """The rest of a MIME message of one part that is said to be compressed."""
    head = f"Content-Type: {kind}\nContent-Transfer-Encoding: base64\n\n"
    return head.encode() + base64.encodebytes(content)


FINE = {
    "nothing": b"",
    "blanks": b" \n\n",
    "config": CONFIG,
    "config of nothing": b"#cloud-config\n",
    "config with CRLF": CONFIG.replace(b"\n", b"\r\n"),
    "config in capitals, behind blanks": b"\n  #CLOUD-CONFIG\na: 1\n",
    "script": b"#!/bin/sh\n: not YAML [\n",
    "script beyond ASCII": "#!/bin/sh\n: é😀\n".encode(),
    "script with NUL": b"#!/bin/sh\n\0\n",
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
    "MIME of a kind that another part may bring": mime(("hello", "x-mine"), ("#part-handler\n", "part-handler")),
    "MIME of a kind that may come": mime(("hello", "x-mine"), ("#include\nhttp://192.0.2.1/x\n", "plain")),
    "MIME in a comment": b"#cloud-config\n# mime-version: 1.0\nhostname: web-1\n",
    "MIME in a script": b"#!/bin/sh\ncat <<END\nMIME-Version: 1.0\nEND\n",
    "MIME, compressed part by part": MIME + packed(gzip.compress(CONFIG)),
    "MIME in capitals": MIME.upper() + b"CONTENT-TYPE: TEXT/CLOUD-CONFIG\n\na: 1\n",
    "MIME that says nothing of its part": MIME + b"\n#cloud-config\na: 1\n",
    "MIME, cut behind its last part": MIME + b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\n" + CONFIG,
    "MIME whose file names are not ASCII": MIME + 'Content-Disposition: x; filename="é"\n\n'.encode() + CONFIG,
    "several members of gzip": gzip.compress(CONFIG) + gzip.compress(b"fqdn: a.b\n"),
    "gzip, padded": gzip.compress(CONFIG) + bytes(16),
    "archive of what says nothing of itself": b"#cloud-config-archive\n- 'a: 1'\n- {content: 'b: 1', type: ''}\n- {}\n",
    "archive of its own kinds": b"#cloud-config-archive\n- {type: text/x-a, content: b}\n- '#part-handler'\n",
    "patch of nothing": b"#cloud-config-jsonp\n[]",
    "template of a script": b"## template: jinja\n#!/bin/sh\n",
    "template of whatever comes out": b"## template: jinja\n{% if a %}#cloud-config{% endif %}\n",
    "merge keys": b"#cloud-config\na: &a {b: 1}\nc: {<<: *a}\nd: {<<: [*a, *a]}\n",
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
    "MIME whose boundary is in no character set": (
        b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary*=%00''x\n\n--x\n\nhunter2\n--x--\n",
        SILENT,
    ),
    "Latin-1 in a script": (b"#!/bin/sh\n: \xe9\n", MALFORMED),
    "Latin-1 in a boothook": (b"#cloud-boothook\n#!/bin/sh\n: \xe9\n", MALFORMED),
    "Latin-1 in a part": (MIME + b"Content-Transfer-Encoding: quoted-printable\n\n#!/bin/sh\n: =E9\n", MALFORMED),
    "Latin-1 in MIME": (MIME + b"\n#!/bin/sh\n: \xe9\n", SILENT),
    "UTF-8 in MIME": (MIME + "Content-Transfer-Encoding: 8bit\n\n#!/bin/sh\n: é\n".encode(), MALFORMED),
    "MIME in a comment beyond ASCII": ("#cloud-config\n# MIME-Version: é\n".encode(), MALFORMED),
    "a kind that is misspelt": (mime((CONFIG.decode(), "cloud-confg")), UNKNOWN),
    "a part of any bytes": (MIME + b"Content-Type: application/octet-stream\n\n" + CONFIG, UNKNOWN),
    "a part that is compressed and does not say so": (
        MIME + packed(gzip.compress(CONFIG), "text/cloud-config"),
        MALFORMED,
    ),
    "a part that says that it is compressed": (MIME + packed(CONFIG), SILENT),
    "a message in a message": (MIME + b"Content-Type: message/rfc822\n\n" + CONFIG, SILENT),
    "a config that calls itself a script": (mime((BROKEN.decode(), "x-shellscript")), MALFORMED),
    "a script that calls itself a config": (mime(("#!/bin/sh\necho\n", "cloud-config")), MALFORMED),
    "a blank line before MIME": (b"\n" + mime((CONFIG.decode(), "cloud-config")), UNKNOWN),
    "twice compressed": (gzip.compress(gzip.compress(CONFIG)), UNKNOWN),
    "gzip and a line break": (gzip.compress(CONFIG) + b"\n", MALFORMED),
    "an upstart job": (b"#upstart-job\n", UNKNOWN),
    "a template of nothing known": (b"## template: jinja\nhello {{ v1.region }}\n", UNKNOWN),
    "a template of a boothook": (b"## template: jinja\n#cloud-boothook\n", UNKNOWN),
    "a template of broken YAML": (b"## template: jinja\n" + BROKEN, MALFORMED),
    "a template that silences": (b"## template: jinja\n#cloud-config\nvendor_data: {enabled: false}\n", SILENT),
    "an archive of an archive": (b"#cloud-config-archive\n- \"#cloud-config-archive\\n- 'a: 1'\"\n", UNKNOWN),
    "an archive that includes": (b"#cloud-config-archive\n- '#include http://192.0.2.1/x'\n", UNKNOWN),
    "an archive of plain text": (b"#cloud-config-archive\n- {type: text/plain, content: '#!/bin/sh'}\n", UNKNOWN),
    "an archive of broken YAML": (b"#cloud-config-archive\n- 'a: ['\n", MALFORMED),
    "an archive of a list": (b"#cloud-config-archive\n- [a]\n", MALFORMED),
    "an archive of no text": (b"#cloud-config-archive\n- {content: {a: 1}}\n", SILENT),
    "an archive of a kind that is none": (b"#cloud-config-archive\n- {type: x, content: 'a: 1'}\n", SILENT),
    "an archive with a number for a header": (b"#cloud-config-archive\n- {content: 'a: 1', n: 1}\n", SILENT),
    "a patch of something else": (b'#cloud-config-jsonp\n["a"]', MALFORMED),
    "a time that is none": (b"#cloud-config\na: !!timestamp hunter2\n", MALFORMED),
    "a number that is none": (b"#cloud-config\na: !!int ''\n", MALFORMED),
    "neither yes nor no": (b"#cloud-config\na: !!bool hunter2\n", MALFORMED),
    "an archive that is a mapping": (b"#cloud-config-archive\na: 1\n", MALFORMED),
    "a patch that is no JSON": (b"#cloud-config-jsonp\n[", MALFORMED),
    "vendor-data that is off": (b"#cloud-config\nvendor_data: {enabled: false}\n", SILENT),
    "vendor-data that is nothing": (b"#cloud-config\nvendor_data: no\n", SILENT),
    "boothooks that are off": (b"#cloud-config\nvendor_data: {disabled_handlers: [text/cloud-boothook]}\n", SILENT),
    "boothooks that are off, in a word": (
        b"#cloud-config\nvendor_data: {disabled_handlers: text/cloud-boothook}\n",
        SILENT,
    ),
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
        part = MIMEApplication(gzip.compress(b"#cloud-config\na: " + b"[" * 100_000), "gzip")
        message.attach(part)
    found = notices(message.as_bytes())
    assert [notice.code for notice in found] in ([], [MALFORMED])


def merges(levels: int) -> str:
    """Each of its mappings merges the one before it twice."""
    each = "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, levels))
    return f"#cloud-config\na0: &a0 {{k: v}}\n{each}"


WIDE = "#cloud-config\na: &a {k: v}\nb: {<<: [" + "*a, " * 20_000 + "]}\n"
LONG = "#cloud-config\na: &a {" + ", ".join(f"k{n}: v" for n in range(1000)) + "}\nb:\n" + "- {<<: *a}\n" * 100


@pytest.mark.parametrize("text", [WIDE, LONG], ids=["wide", "long"])
def test_merges_that_stand_for_much_are_not_read(text: str) -> None:
    with pytest.raises(TooMuch):
        load(text)
    assert notices(text.encode()) == ()


def test_a_few_merges_that_stand_for_more_than_memory_holds() -> None:
    assert notices(merges(64).encode()) == ()


def test_what_is_compressed_twice_is_said_to_be() -> None:
    (notice,) = notices(gzip.compress(gzip.compress(CONFIG)))
    assert "compressed twice" in notice.detail


STRANGE = st.one_of(
    st.sampled_from([*FINE.values(), *(data for data, _ in WRONG.values())]),
    st.binary(max_size=64),
    st.text(max_size=64).map(str.encode),
    st.sampled_from(
        [CONFIG, MIME, b"Content-Type: ", b"#cloud-config-archive\n- ", b"## template: jinja\n", b"!!int ", b"\n\n"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STRANGE, max_size=5).map(b"".join))
def test_any_bytes_will_do(data: bytes) -> None:
    for notice in notices(cleaned(data)):
        assert notice.detail.isprintable()
