"""What people write in several ways is taken as one, or the part at fault is named."""

import hashlib
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from domain.image.values import Word
from domain.image_source import Source
from domain.spellings import GivenArchitecture, GivenSha256, GivenSha512, GivenUuid
from runtime.text.explained import errors_in, explained

SHA256, SHA512 = hashlib.sha256(b"image").hexdigest(), hashlib.sha512(b"image").hexdigest()
ID = "2a4eac9a-8cad-4466-8f01-db5cb1899700"


def taken(kind: Any, given: object) -> object:
    return TypeAdapter(kind).validate_python(given)


def told(kind: Any, given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(given)
    return explained(errors_in(caught.value)[0])


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        (GivenSha256, SHA256.upper(), SHA256),
        (GivenSha256, f"sha256:{SHA256}", SHA256),
        (GivenSha256, f"SHA256:{SHA256.upper()}", SHA256),
        (GivenSha512, f"sha512:{SHA512}", SHA512),
        (GivenArchitecture, "amd64", "x86_64"),
        (GivenArchitecture, "AMD64", "x86_64"),
        (GivenArchitecture, "x86-64", "x86_64"),
        (GivenArchitecture, "arm64", "aarch64"),
        (GivenUuid, ID.upper(), ID),
        (Word, "Debian", "debian"),
        (Source, "HTTP://Example.ORG/Image", "http://Example.ORG/Image"),
        (Source, "hTTpS://[2001:DB8::1]/i", "https://[2001:DB8::1]/i"),
        (Source, "/var/lib/my first disk.raw", "/var/lib/my first disk.raw"),
    ],
)
def test_taken(kind: Any, given: str, meant: str) -> None:
    assert taken(kind, given) == meant
    assert taken(kind, meant) == meant


@pytest.mark.parametrize(
    ("kind", "given", "part"),
    [
        (GivenSha256, SHA256[:-1], "has 63 digits: a sha256 has 64"),
        (GivenSha256, SHA512, "as many as a sha512 has"),
        (GivenSha256, f"md5:{SHA256}", "'md5' before the colon"),
        (GivenSha256, f"{SHA256[:-1]}g", "'g' in it"),
        (GivenSha256, f"{SHA256} ", "' ' in it"),
        (GivenSha256, "", "has 0 digits"),
        (GivenSha256, 7, "has to be text"),
        (GivenArchitecture, "riscv64", "x86_64 or aarch64"),
        (GivenUuid, f"{{{ID}}}", "8-4-4-4-12"),
        (Source, "ftp://example.org/i", "'ftp'"),
        (Source, "file:///srv/i", "give the path itself"),
        (Source, "images/i.raw", "absolute path"),
        (Source, "http://example.org/my image", "%20"),
        (Source, "/srv/i\n", r"'\n'"),
        (Source, "", "at least 2 characters"),
    ],
)
def test_told(kind: Any, given: object, part: str) -> None:
    assert part in told(kind, given)
