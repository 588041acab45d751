"""Messages for people about wrong values: one text for each kind of pydantic's errors."""

from pydantic_core import ErrorDetails, ValidationError

from runtime import subjects

#: Texts instead of a regular expression, by its beginning.
PATTERNS = {
    f"^{subjects.SLUG}": "lower-case letters, digits and inner hyphens, 1 to 63 characters",
    f"^{subjects.UUID}": "a UUID: 8-4-4-4-12 hexadecimal digits",
    "^[0-9a-f]{64}": "64 hexadecimal digits",
    "^[0-9a-f]{128}": "128 hexadecimal digits",
    "^[a-z0-9]([a-z0-9._-]{0,61}": "letters, digits and inner dots, hyphens, underscores, 1 to 63 in all",
    "^/v1/(projects/": "the path of a feed, such as /v1/projects/default/feed",
    "^http://": "a URL such as http://192.168.122.1:8775/: http, ending in /, without user, query and blanks",
    "^52:54:00": "a MAC address that begins with 52:54:00",
}
#: The type of value that pydantic names for a limit of length behind a validator (`Annotated[Remark, MaxLen(60)]`),
#: whatever the value is: text, an array, an object.
OF_ANY_TYPE = "Value"
#: Texts by type of error.
TEXTS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field; remove it",
    "string_unicode": "has a lone surrogate, which is half a character; remove it",
    "finite_number": "has to be a finite number",
    "timezone_aware": "has to be a time with its time zone, such as 2026-11-22T19:00:00Z",
    "json_invalid": "is not valid JSON",
    "none_required": "has to be null",
    "invalid_key": "has a member whose name is not text",
}
#: Texts by the beginning of the type of error.
TYPES = {
    "string": "has to be text, in quotes",
    "int": "has to be a whole number, without quotes and without a point",
    "float": "has to be a number, without quotes",
    "bool": "has to be true or false, without quotes",
    "tuple": "has to be an array",
    "list": "has to be an array",
    "set": "has to be an array",
    "frozen_set": "has to be an array",
    "iterable": "has to be an array",
    "dict": "has to be an object",
    "mapping": "has to be an object",
    "model": "has to be an object",
    "dataclass": "has to be an object",
    "bytes": "has to be text, in quotes",
    "datetime": "has to be a time, such as 2026-11-22T19:00:00Z",
    "url": "has to be a URL",
    "path": "has to be a path",
}


def errors_in(error: ValidationError) -> list[ErrorDetails]:
    """The errors in it, for `explained`. They have their inputs only if a message depends on one, because a large
    input is expensive to convert.
    """
    errors = error.errors(include_url=False, include_input=False)
    if any(each.get("ctx", {}).get("field_type") == OF_ANY_TYPE for each in errors):
        return error.errors(include_url=False)
    return errors


def unit(error: ErrorDetails) -> str:
    """The unit of a wrong length."""
    match error["type"].partition("_too_")[0], error.get("ctx", {}).get("field_type"), error.get("input"):
        case ("string" | "url", _, _) | (_, "Value", str()):
            return "characters"
        case ("bytes", _, _) | (_, "Value", bytes()):
            return "bytes"
        case (_, "Dictionary", _) | (_, "Value", dict()):
            return "members"
    return "items"


def explained(error: ErrorDetails) -> str:
    """The message about one error of pydantic. It does not repeat the value."""
    kind, context = error["type"], error.get("ctx") or {}
    match kind:
        case "value_error" | "assertion_error":
            return str(context.get("error"))
        case "string_pattern_mismatch":
            pattern = str(context.get("pattern"))
            known = next((text for start, text in PATTERNS.items() if pattern.startswith(start)), None)
            return f"has to be {known or f'of the form {pattern}'}"
        case "greater_than_equal":
            return f"has to be at least {context['ge']}"
        case "greater_than":
            return f"has to be more than {context['gt']}"
        case "less_than_equal":
            return f"may be at most {context['le']}"
        case "less_than":
            return f"has to be less than {context['lt']}"
        case "string_too_short" | "bytes_too_short" | "too_short":
            least = context["min_length"]
            return "may not be empty" if least == 1 else f"has to have at least {least} {unit(error)}"
        case "string_too_long" | "bytes_too_long" | "url_too_long" | "too_long":
            return f"may have at most {context['max_length']} {unit(error)}"
        case "enum" | "literal_error":
            return f"has to be {str(context['expected']).replace(chr(39), '')}"
    if kind in TEXTS:
        return TEXTS[kind]
    words = kind.split("_")
    starts = ("_".join(words[:end]) for end in range(len(words) - 1, 0, -1))
    return next((TYPES[start] for start in starts if start in TYPES), f"cannot be what was given ({kind})")
