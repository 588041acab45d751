"""Write the software bill of materials, sbom.cdx.json (CycloneDX), of what is installed, and check it.

It fails if a package is installed that requirements.lock does not pin with a hash, or in another version, or if nobody
knows the licence of one, or if the bill does not match the schema of CycloneDX. The npm packages that the console
serves to browsers are in it, too, as its lock file names them.
"""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SBOM = ROOT / "sbom.cdx.json"
CONSOLE = ROOT / "gateway" / "console" / "package-lock.json"
#: The version of CycloneDX.
VERSION = "1.6"
#: Packages whose metadata lack what everybody knows.
LICENCES = {"libvirt-python": "LGPL-2.1-or-later"}

#: Packages that Python itself puts into every new environment; nothing of ours uses them.
OF_PYTHON = {"pip", "setuptools"}

#: A URL, or a reference to one: what RFC 3987 does not forbid anywhere, and a percent sign before two digits only.
REFERENCE = re.compile(r"""(?:[^\x00-\x20\x7f-\x9f<>"{}|\\^`%]|%[0-9A-Fa-f]{2})*""")


def name_of(text: str) -> str:
    """The normalized name of a package (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text).lower()


def locked(text: str) -> dict[str, str]:
    """The version of each package of a lock file that has at least one hash."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)[^\n]*\\\n\s+--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    return {name_of(name): version for name, version in found}


def faults(sbom: dict[str, object], lock: dict[str, str]) -> list[str]:
    """What is wrong with the components of a bill of materials, in sentences."""
    components = sbom["components"]
    assert isinstance(components, list)
    found = []
    for each in components:
        name, version = name_of(each["name"]), each["version"]
        if name in OF_PYTHON or each.get("purl", "").startswith("pkg:npm/"):
            continue
        if lock.get(name) != version:
            found.append(f"{name} {version} is installed, requirements.lock has {lock.get(name, 'none')}")
        if not each.get("licenses") and name not in LICENCES:
            found.append(f"{name} {version} has no licence in its metadata: find it out, and add it to LICENCES")
    return found


def of_npm(lock: str) -> list[dict[str, object]]:
    """The components of an npm lock file. Raises KeyError for one without version, integrity or licence."""
    found: list[dict[str, object]] = []
    for path, each in sorted(json.loads(lock)["packages"].items()):
        if not path:
            continue  # our own package
        name = path.rpartition("node_modules/")[2]
        algorithm, _, digest = each["integrity"].partition("-")
        purl = f"pkg:npm/{name.replace('@', '%40')}@{each['version']}"
        hashes = [{"alg": algorithm.upper().replace("SHA", "SHA-"), "content": base64.b64decode(digest).hex()}]
        found.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": each["version"],
                "purl": purl,
                "licenses": [{"license": {"id": each["license"]}}],
                "hashes": hashes,
            }
        )
    return found


def is_reference(text: object) -> bool:
    return not isinstance(text, str) or REFERENCE.fullmatch(text) is not None


def violations(text: str) -> list[str]:
    """Where a bill of materials does not match the schema, in sentences."""
    from cyclonedx.schema import SchemaVersion  # the tests import this module, and these take a second
    from cyclonedx.validation.json import JsonStrictValidator
    from jsonschema import Draft7Validator

    # Instead of the full grammar, which takes 6 seconds for the URLs of our packages.
    Draft7Validator.FORMAT_CHECKER.checks("iri-reference")(is_reference)
    found = JsonStrictValidator(SchemaVersion.from_version(VERSION)).validate_str(text, all_errors=True)
    return [f"the schema of CycloneDX is violated: {str(each).splitlines()[0]}" for each in found or ()]


def main() -> int:
    program = Path(sys.executable).parent / "cyclonedx-py"
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--no-validate"]
    options += ["--sv", VERSION, "--of", "JSON", "-o", str(SBOM)]
    made = subprocess.run([program, "environment", sys.prefix, *options], check=False, capture_output=True, text=True)
    if made.returncode:
        sys.stderr.write(made.stderr)  # otherwise it says that it has not validated
        return made.returncode
    sbom = json.loads(SBOM.read_text())
    sbom["components"] += of_npm(CONSOLE.read_text())
    text = json.dumps(sbom, indent=2, ensure_ascii=False) + "\n"
    SBOM.write_text(text)
    wrong = violations(text) + faults(sbom, locked((ROOT / "requirements.lock").read_text()))
    sys.stderr.write("".join(f"sbom: {line}\n" for line in wrong))
    sys.stdout.write(f"{SBOM.name}: {len(sbom['components'])} packages, {len(wrong)} faults\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
