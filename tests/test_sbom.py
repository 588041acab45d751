"""The bill of materials: nothing is installed that is not pinned, and each licence is known."""

import json
from pathlib import Path

import pytest

from scripts.sbom import CONSOLE, VERSION, faults, locked, of_npm, violations

HASH = "0" * 64
LOCK = f"""\
Some.Package==1.2 ; python_version < '4' \\
    --hash=sha256:{HASH} \\
    --hash=sha256:{HASH}
bare==3.0
"""
MIT = [{"license": {"id": "MIT"}}]


def test_each_fault_is_named() -> None:
    lock = locked(LOCK)
    assert lock == {"some-package": "1.2"}, "a package without a hash is not pinned"
    good = {"name": "some_package", "version": "1.2", "licenses": MIT}
    assert faults({"components": [good]}, lock) == []
    assert faults({"components": [good | {"version": "1.3"}]}, lock) == [
        "some-package 1.3 is installed, requirements.lock has 1.2"
    ]
    assert faults({"components": [{"name": "bare", "version": "3.0", "licenses": MIT}]}, lock) == [
        "bare 3.0 is installed, requirements.lock has none"
    ]
    (unknown,) = faults({"components": [good | {"licenses": []}]}, lock)
    assert "licence" in unknown
    assert faults({"components": [{"name": "libvirt-python", "version": "9"}]}, {"libvirt-python": "9"}) == []


def test_all_of_our_lock_is_pinned_by_hashes() -> None:
    text = (Path(__file__).parents[1] / "requirements.lock").read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith(("#", " "))]
    assert len(locked(text)) == len(pins) > 50


def test_a_bill_that_does_not_match_the_schema_is_found() -> None:
    bill, bare = {"bomFormat": "CycloneDX", "specVersion": VERSION}, {"type": "library", "name": "bare"}
    assert violations(json.dumps(bill | {"components": [bare]})) == []
    for wrong in ({"type": "book", "name": "bare"}, {"type": "library"}, {"type": "library", "name": "b", "new": 1}):
        assert violations(json.dumps(bill | {"components": [wrong]})) != [], wrong
    for url, count in (("https://a.example/b?c=%20#d", 0), ("../é", 0), ("a b", 1), ("<a>", 1), ("100%", 1)):
        linked = bare | {"externalReferences": [{"type": "website", "url": url}]}
        assert len(violations(json.dumps(bill | {"components": [linked]}))) == count, url


def test_the_packages_that_browsers_get_are_in_the_bill() -> None:
    lock = CONSOLE.read_text()
    components = of_npm(lock)
    names = {each["name"] for each in components}
    assert {"lit-html", "@xterm/xterm", "@novnc/novnc", "uplot"} <= names
    assert "resolved" not in lock, "the host of a registry is in no file"
    bill = {"bomFormat": "CycloneDX", "specVersion": VERSION, "components": components}
    assert violations(json.dumps(bill)) == []
    assert faults({"components": components}, {}) == []
    for missing in ("version", "integrity", "license"):
        package = {"version": "1.0.0", "integrity": "sha512-AAAA", "license": "MIT"}
        del package[missing]
        with pytest.raises(KeyError, match=missing):
            of_npm(json.dumps({"packages": {"": {}, "node_modules/some": package}}))
