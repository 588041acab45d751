"""SSH keys as people paste them, and as cloud-init's YAML reader and `authorized_keys` take them in."""

import base64
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, strategies as st

from projections import guest_answers, ssh
from projections.seeds import Seed

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKl2a0cT4rPcPMB0t1tCkm2bs8LPmZSUhjxS3nO3c8nO"


def made(type_: str, *parts: bytes) -> str:
    """What looks like a key of that type, of any parts."""
    raw = b"".join(len(part).to_bytes(4) + part for part in (type_.encode(), *parts))
    return f"{type_} {base64.b64encode(raw).decode()}"


def keygen(line: str, file: Path) -> str | None:
    """What OpenSSH says of the key in a line; None where it takes it for none."""
    file.write_text(f"{line}\n")
    told = subprocess.run(["ssh-keygen", "-l", "-f", file], check=False, capture_output=True, text=True)
    return told.stdout if told.returncode == 0 else None


def seed(*keys: str) -> Seed:
    return Seed("default", "11111111-2222-4333-8444-555555555555", "web-1", keys, None, 1, 0)


def as_the_guest_reads(*keys: str) -> list[str]:
    found: list[str] = yaml.safe_load(guest_answers.meta_data(seed(*keys)).encode())["public-keys"]
    return found


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@example("me@laptop 😀")
@example("\ufeff \ufffe \x85 \u2028 ssh-ed25519 AAAA")
@example("\\u0041 'it''s' \"quoted\" #: & * ! | > % @ ` - ? {} []")
@example("é\u0301\u200d\U0010ffff\ud7ff")
def test_every_comment_that_is_accepted_is_read_as_it_was_meant(comment: str) -> None:
    try:
        key = str(ssh.parse(f"{KEY} {comment}"))
    except ValueError:
        return
    assert as_the_guest_reads(key, KEY) == [key, KEY]
    assert key.splitlines() == [key], "it is one line of authorized_keys"


@given(st.text(max_size=60))
def test_a_comment_that_was_accepted_long_ago_costs_nobody_a_key(comment: str) -> None:
    """Earlier versions took more: what is stored is told so that it can be read."""
    told = as_the_guest_reads(f"{KEY} {comment}", KEY)
    assert told[0].startswith(KEY)
    assert len(told[0].splitlines()) == 1
    assert told[1] == KEY


@pytest.mark.parametrize("comment", ["me@laptop 😀", "José \u00a0 ünïcode", "\u202e bidi", "zero\u200bwidth", "日本語"])
def test_openssh_takes_the_same_line(comment: str, tmp_path: Path) -> None:
    told = keygen(as_the_guest_reads(str(ssh.parse(f"{KEY} {comment}")))[0], tmp_path / "key.pub")
    assert ssh.parse(KEY).fingerprint in (told or "")


def test_padding_that_openssh_does_not_take_is_taken_away(tmp_path: Path) -> None:
    """With it the key would be passed by, and everybody locked out."""
    for line in (f"{KEY}= me", f"{KEY}== me"):
        assert keygen(line, tmp_path / "key.pub") is None
        assert str(ssh.parse(line)) == f"{KEY} me"


@pytest.mark.parametrize("type_", ["ed25519", "rsa", "ecdsa"])
def test_what_openssh_makes_is_a_key(type_: str, tmp_path: Path) -> None:
    bits = ("-b", "1024") if type_ == "rsa" else ()
    subprocess.run(["ssh-keygen", "-q", "-t", type_, *bits, "-N", "", "-f", tmp_path / "k"], check=True)
    line = (tmp_path / "k.pub").read_text()
    assert str(ssh.parse(line)) == line.strip()


@pytest.mark.parametrize(
    "line",
    [
        f"\ufeff{KEY} me",
        KEY.replace(" ", "\t") + "\tme",
        KEY.replace(" ", " \t ") + "  me \t",
        f"\r\n{KEY} me\r\n",
    ],
)
def test_blanks_tabs_and_a_byte_order_mark_do_not_matter(line: str) -> None:
    assert str(ssh.parse(line)) == f"{KEY} me"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (f'restrict,command="echo hi" {KEY} me', "options"),
        (f"no-pty {KEY}", "options"),
        (f"{KEY} one\u2028{KEY} two", "more than one line"),
        (f"{KEY} one\n{KEY} two", "more than one line"),
        (f"{KEY} be\x07ll", "control characters"),
        (f"{KEY} c\x9b1", "control characters"),
        ("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n", "private key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
        (made("ssh-ed25519", bytes(31)), "contents"),
        (made("ssh-ed25519", bytes(32), b""), "contents"),
        (made("ssh-rsa", b"\1\0\1"), "contents"),
        (made("ecdsa-sha2-nistp256", b"nistp384", bytes(65)), "contents"),
        (made("sk-ssh-ed25519@openssh.com", bytes(32)), "contents"),
        ("ssh-ed25519 AAAA$AAA me", "base64"),
        ("ssh-dss AAAA", "key type"),
        ("hello", "not a public key"),
        ("", "not a public key"),
    ],
)
def test_what_is_no_key_is_told_which_part_is_at_fault(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ssh.parse(line)


@pytest.mark.parametrize(
    "line",
    [
        f'environment="TOKEN=hunter2" {KEY} me',
        f"hunter2 {KEY}",
        "PuTTY-User-Key-File-3: ssh-ed25519 hunter2",
        "hunter2 c2VjcmV0",
        "AGE-SECRET-KEY-1hunter2",
        "-----BEGIN RSA PRIVATE KEY----- hunter2",
        f"{KEY} a\x07 hunter2",
        "ssh-ed25519 hunter2$",
    ],
)
def test_what_is_no_key_is_not_repeated(line: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        ssh.parse(line)
    assert "hunter2" not in str(caught.value)
