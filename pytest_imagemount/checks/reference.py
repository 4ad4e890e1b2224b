"""The reference part of docs/checks.md, written from the schema: ``python -m pytest_imagemount.checks.reference``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .first_sections import quoted
from .schema import schema

BEGIN = "<!-- keys: begin (written by python -m pytest_imagemount.checks.reference docs/checks.md) -->"
END = "<!-- keys: end -->"


def reference() -> str:
    """Markdown: a part for each section of a check file, with a table of its keys."""
    return "\n".join(_section(name, node) for name, node in schema()["properties"].items())


def renew(page: str) -> str:
    """``page`` with what is between the two marks written anew."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{reference()}\n{END}{tail}"


def main(arguments: list[str]) -> int:
    """Write the page that ``arguments`` name anew."""
    page = Path(arguments[0])
    page.write_text(renew(page.read_text("utf-8")), "utf-8")
    return 0


def _section(name: str, node: dict[str, Any]) -> str:
    lines = [f"### `{name}`: {node['title'][0].lower()}{node['title'][1:]}", "", node["description"], ""]
    if "x-subject" in node:
        lines += [f"Each key is a {node['x-subject']}.", ""]
    if "x-short" in node:
        lines += [f"Short form: {node['x-short']}.", ""]
    lines += ["```yaml", node["x-yaml"], "```", "", "| key | value | meaning |", "|---|---|---|"]
    lines += [_row(key, value) for key, value in _keys(node).items()]
    return "\n".join([*lines, ""])


def _keys(node: dict[str, Any]) -> dict[str, Any]:
    """The keys of a section that is one check; of another those of each of its checks."""
    entry = node.get("additionalProperties") or node
    forms = [entry, *entry.get("anyOf", ())]
    found: dict[str, Any] = next(form["properties"] for form in forms if "properties" in form)
    return found


def _row(key: str, node: dict[str, Any]) -> str:
    resolved = {**_definition(node), **node}
    examples = ", ".join(f"`{_example(value)}`" for value in node.get("examples", ()))
    meaning = resolved["description"] + (
        f" {'Example' if len(node['examples']) == 1 else 'Examples'}: {examples}." if examples else ""
    )
    return f"| `{key}` | {_type(resolved)} | {_cell(meaning)} |"


def _definition(node: dict[str, Any]) -> dict[str, Any]:
    name = node.get("$ref", "").removeprefix("#/$defs/")
    found: dict[str, Any] = schema()["$defs"].get(name, {})
    return found


def _type(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{word}`" for word in node["enum"])
    if "anyOf" in node and any("$ref" in form for form in node["anyOf"]) and "title" not in node:
        words = _type({**_definition(node["anyOf"][0])})
        return f"{words}; or a list"
    if "title" in node:
        return str(node["title"])
    if node.get("additionalProperties"):
        return "mapping of text"
    kinds = {"integer": "number", "number": "number", "string": "text"}
    return kinds.get(node.get("type", ""), "text or number")


def _example(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(quoted(item) for item in value)}]"
    if isinstance(value, str) and value[:1].isalnum() and value.isprintable() and ": " not in value:
        return value
    return json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
