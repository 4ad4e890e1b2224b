"""The JSON Schema of check files, and what it finds wrong in one, told so that a person can mend it."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ..errors import CheckFileInvalid
from .document import missing_extra, written
from .place import did_you_mean, mistake

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema import ValidationError

    from .document import Document, KeyPath

_OWN = {"type", "enum", "const", "pattern", "minLength", "minimum", "maximum", "format", "anyOf"}
"""Keywords that judge a value itself, and not what is below it."""

_KINDS = {dict: "a mapping of keys", list: "a list", bool: "true or false", type(None): "nothing"}


@cache
def schema() -> dict[str, Any]:
    """The schema that ships with the package."""
    text = files(__package__).joinpath("imagecheck.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate(document: Document) -> None:
    """Hold ``document`` against the schema.

    :raises CheckFileInvalid: with a line for each mistake, in the order of the file
    :raises CapabilityMissing: jsonschema is not installed
    """
    found = [told for error in _validator().iter_errors(document.value) for told in _tell(error, document)]
    if found:
        mistakes = [mistake(document.file, place, text) for place, text in sorted(set(found))]
        raise CheckFileInvalid(file=document.file, mistakes=mistakes)


@cache
def _validator() -> Any:
    try:
        import jsonschema
    except ImportError:
        raise missing_extra("jsonschema") from None
    checker = jsonschema.FormatChecker(formats=())
    checker.checks("python-regex", raises=re.error)(_is_regex)
    return jsonschema.Draft202012Validator(schema(), format_checker=checker)


def _is_regex(value: object) -> bool:
    if isinstance(value, str):
        re.compile(value)
    return True


def _tell(error: ValidationError, document: Document) -> Iterator[tuple[Any, str]]:
    """Places and texts for ``error``; of alternatives, only for the one that the user meant."""
    path: KeyPath = tuple(error.absolute_path)
    value: Any = error.instance
    own: Any = error.schema
    place = document.place(path)
    name = f"{path[-1]}: " if path and isinstance(path[-1], str) else ""
    if error.validator == "additionalProperties":
        known = list(own.get("properties", ()))
        for key in (key for key in value if key not in known):
            states = own.get("properties", {}).get("state", {}).get("enum", ())
            hint = f"; did you mean 'state: {key}'?" if key in states else did_you_mean(key, known)
            hint = hint or f"; known here: {', '.join(known)}"
            yield document.key_place((*path, key)), f"unknown key {key!r}{hint}"
    elif "propertyNames" in error.absolute_schema_path:
        yield document.key_place((*path, value)), f"{value!r} is not {own['x-expected']}"
    elif error.validator == "required":
        yield place, f"{name}{error.message}"
    elif value is None or value in ("", [], {}):
        key_place = document.key_place(path) if value is None else place
        yield key_place, f"{name}is empty, so that nothing would be checked; give a value, or remove it"
    elif error.validator == "anyOf":
        yield from _tell_alternatives(error, document, name)
    elif error.validator == "format":
        yield place, f"{name}{value!r} is no regular expression: {error.cause}"
    else:
        yield place, f"{name}{_quoted(value)} is not {_expected([error])}{_hint(value, [error])}"


def _tell_alternatives(error: ValidationError, document: Document, name: str) -> Iterator[tuple[Any, str]]:
    branches: dict[Any, list[ValidationError]] = {}
    for below in error.context or ():
        branches.setdefault(below.relative_schema_path[0], []).append(below)
    depth = len(error.absolute_path)
    for errors in branches.values():
        fits = not any(len(each.absolute_path) == depth and each.validator in _OWN - {"format"} for each in errors)
        # An anyOf in an anyOf (text or list of text): the value itself was of no form of it.
        if fits:
            for each in errors:
                yield from _tell(each, document)
            return
    place = document.place(tuple(error.absolute_path))
    flat = list(_leaves(error))
    own: Any = error.schema
    if hint := _hint(error.instance, flat):  # then it is known what was meant, and the other forms are not
        flat = [each for each in flat if _hint(error.instance, [each])]
    expected = own.get("x-expected") or _expected(flat)
    yield place, f"{name}{_quoted(error.instance)} is not {expected}{hint}"


def _leaves(error: ValidationError) -> Iterator[ValidationError]:
    """The errors that say what would do, of alternatives in alternatives too."""
    own: Any = error.schema
    for below in error.context or () if "x-expected" not in own else ():
        yield from _leaves(below)
    if not error.context or "x-expected" in own:
        yield error


def _expected(errors: Iterable[ValidationError]) -> str:
    """What the values are that would do, in words."""
    words: list[str] = []
    for error in errors:
        own: Any = error.schema
        if "x-expected" in own:
            said = own["x-expected"]
        elif "enum" in own:
            said = " or ".join(", ".join(own["enum"]).rsplit(", ", 1))
        elif own.get("type") == "object":
            said = "a mapping of keys"
        else:
            said = {"integer": "a whole number", "number": "a number", "array": "a list"}.get(own.get("type"), "text")
        if said not in words:
            words.append(said)
    return ", or ".join(words)


def _hint(value: object, errors: Iterable[ValidationError]) -> str:
    found = list(errors)
    if isinstance(value, bool) and any(_expected([error]).startswith("text") for error in found):
        return "; put it in quotes"
    schemas: list[Any] = [error.schema for error in found]
    choices = [word for own in schemas for word in own.get("enum", ()) if isinstance(word, str)]
    return did_you_mean(value, choices) if isinstance(value, str) else ""


def _quoted(value: object) -> str:
    if isinstance(value, str):
        return repr(value)
    return _KINDS[type(value)] if isinstance(value, (dict, list)) else written(value)
