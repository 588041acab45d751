"""`python -m tests.upgrade.wire`: what the programs in `sys.path` read and write, as JSON.

The file runs with the programs of the version before as well, so it imports nothing that came later.
"""

import importlib
import json
import pkgutil
import sys
from typing import Any

from pydantic import BaseModel


def fields(kind: type[BaseModel]) -> dict[str, Any]:
    """The fields of a type: whether a reader needs each of them, and its values as JSON Schema."""
    schema = kind.model_json_schema()
    parts = schema.get("$defs", {})
    found = {}
    for name, field in kind.model_fields.items():
        key = field.alias or name
        found[key] = {"needed": field.is_required(), "values": bare(schema["properties"].get(key), parts)}
    return {"strict": kind.model_config.get("extra") == "forbid", "fields": found}


def bare(value: Any, parts: dict[str, Any], inside: tuple[str, ...] = ()) -> Any:
    """A schema without texts for people, and with the schemas that it refers to."""
    match value:
        case {"$ref": str(ref)}:
            name = ref.rpartition("/")[2]
            return name if name in inside else bare(parts[name], parts, (*inside, name))
        case dict():
            texts = {"title", "description"} if "properties" not in inside else set()
            return {key: bare(each, parts, inside) for key, each in sorted(value.items()) if key not in texts}
        case list():
            return [bare(each, parts, inside) for each in value]
        case _:
            return value


def messages() -> dict[str, Any]:
    """The types of `domain/contract/`, by module and name."""
    package = importlib.import_module("domain.contract")
    found = {}
    for module in pkgutil.iter_modules(package.__path__, "domain.contract."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.name:
                found[f"{module.name.rpartition('.')[2]}.{value.__name__}"] = fields(value)
    return found


def events() -> dict[str, Any]:
    """The types of events, by wire name, with the version of each."""
    from eventstore.log.upcast import all_types

    return {topic: {"version": kind.VERSION, **fields(kind)} for topic, kind in all_types().items()}


def read_models() -> dict[str, Any]:
    """The version of each read model, and the kinds that it follows; None for all."""
    from projections.books import MODELS

    return {
        model.name: {"version": model.version, "kinds": None if model.kinds is None else sorted(model.kinds)}
        for model in MODELS
    }


if __name__ == "__main__":
    json.dump({"messages": messages(), "events": events(), "read_models": read_models()}, sys.stdout)
