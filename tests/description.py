"""The description of the API (OpenAPI), held against a call: what is asked, and what is answered.

It is stricter than the description is for clients: a document of the platform has no fields but those described.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from gateway.table.reads import described

Document = dict[str, Any]
#: Documents that may have more fields than are described: the extensions of CloudEvents.
OPEN = frozenset({"EventView"})


@cache
def document() -> Document:
    """The description, with its views closed."""
    made: Document = json.loads(described())
    for name, schema in made["components"]["schemas"].items():
        if name.endswith("View") and name not in OPEN:
            closed(schema)
    return made


def closed(schema: Document) -> Document:
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


@cache
def templates() -> list[tuple[re.Pattern[str], str]]:
    """The paths of the API; those with the fewest parameters come first."""
    paths = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), path) for path in paths]


def route(path: str) -> tuple[str, Mapping[str, str]] | None:
    """The path of the API that a target is, and the values of its parameters."""
    for pattern, template in templates():
        if found := pattern.fullmatch(path):
            return template, found.groupdict()
    return None


@cache
def validator(schema: str) -> Any:
    """Of a schema, written as JSON."""
    whole = {**json.loads(schema), "components": document()["components"]}
    return jsonschema_rs.validator_for(whole, pattern_options=jsonschema_rs.FancyRegexOptions(size_limit=1 << 30))


def faults(schema: Document, value: object) -> list[str]:
    found = validator(json.dumps(schema)).iter_errors(value)
    return [f"{'.'.join(map(str, error.instance_path)) or '(all)'}: {error.message}" for error in found]


def text_fits(schema: Document, text: str) -> bool:
    """Whether a parameter or a header may be this text; it may stand for a number."""
    values: Iterable[object] = (text, int(text)) if text.isdecimal() else (text,)
    return any(validator(json.dumps(schema)).is_valid(value) for value in values)


def wrong_parameters(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> list[str]:
    """The parameters and headers of a call that the API does not take."""
    found = route(path)
    operation = found and document()["paths"][found[0]].get(method.lower())
    if not found or not operation:
        return []
    _, values = found
    given = {"path": values, "query": query, "header": {name.lower(): value for name, value in headers.items()}}
    wrong = [name for name in query if name not in {each["name"] for each in operation["parameters"]}]
    for each in operation["parameters"]:
        name = each["name"].lower() if each["in"] == "header" else each["name"]
        value = given[each["in"]].get(name)
        if value is not None and not text_fits(each["schema"], value):
            wrong.append(each["name"])
    return wrong


def wrong_answer(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> list[str]:
    """What is wrong with an answer; empty when the API may give it."""
    found = route(path)
    operation = found and document()["paths"][found[0]].get(method.lower())
    components = document()["components"]["responses"]
    response = operation["responses"].get(str(status)) if operation else components.get(f"Problem{status}")
    if response is None:
        return [f"{method} {path} has no answer {status}"]
    if "$ref" in response:
        response = components[response["$ref"].rsplit("/", 1)[-1]]
    given = {name.lower(): value for name, value in headers.items()}
    wrong = []
    for name, header in response.get("headers", {}).items():
        value = given.get(name.lower())
        if value is None and header["required"]:
            wrong.append(f"the header {name} is missing")
        elif value is not None and not text_fits(header["schema"], value):
            wrong.append(f"the header {name}: {value!r}")
    kind = given.get("content-type", "").partition(";")[0]
    if kind not in response["content"]:
        wrong.append(f"the type {kind!r}")
    elif kind.endswith("json"):
        wrong += faults(closed(dict(response["content"][kind]["schema"])), json.loads(body))
    return [f"{method} {path} {status}: {each}" for each in wrong]
