"""The configuration's documentation, generated from its model: JSON schema and a Markdown table."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ffn.config.sections import Config

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_text() -> str:
    """JSON schema (draft 2020-12) of config.yaml."""
    schema = {"$schema": DIALECT, **Config.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def table_text() -> str:
    """One Markdown table a section: key, type, default, meaning."""
    lines = [
        "# Configuration",
        "",
        "Generated from the model in `ffn/config/sections.py` by `ffn config table`. Vectors are z,y,x in voxels",
        "unless a name says otherwise. Unknown keys are refused; a key whose default is `required` must be given.",
    ]
    for name, section in _sections("", Config):
        lines += ["", f"## {name or 'Top level'}", "", _paragraphs(section), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        properties = section.model_json_schema()["properties"]
        lines += [_row(key, field, properties[key]) for key, field in section.model_fields.items()]
    return "\n".join(lines) + "\n"


def _sections(name: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield name, section
    for key, field in section.model_fields.items():
        inner = sections_of(field)
        suffix = "[]" if str(field.annotation).startswith("list") and len(inner) == 1 else ""
        for one in inner:
            which = f": {one.__name__}" if len(inner) > 1 else ""
            yield from _sections(f"{name}.{key}{suffix}{which}".lstrip("."), one)


def sections_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The sections that a field may hold, alone, optionally or in a list, each once; none for a plain value."""
    return list(dict.fromkeys(_sections_in(field.annotation)))


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections_in(argument)


def _row(key: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    inner = sections_of(field)
    meaning = field.description or (_paragraphs(inner[0]).partition("\n\n")[0] if inner else "")
    cells = [f"`{key}`", _type(field, schema), _default(field), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _paragraphs(section: type[BaseModel]) -> str:
    return inspect.getdoc(section) or ""


def _type(field: FieldInfo, schema: dict[str, Any]) -> str:
    inner = sections_of(field)
    if len(inner) > 1:
        return "name, section, or list of these"
    if inner:
        annotation = str(field.annotation)
        if annotation.startswith("list"):
            return "list of sections"
        if annotation.startswith("int"):
            return "whole number or list of sections"
        return "section or list of sections" if "list[" in annotation else "section"
    return _words(schema)


_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "object": "keys and values",
}


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join("empty" if part.get("type") == "null" else _words(part) for part in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        fixed = schema.get("prefixItems")
        return f"{len(fixed)} x {_words(fixed[0])}" if fixed else f"list of {_words(schema['items'])}"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[limit]:g}" for limit, sign in limits.items() if limit in schema]
    return " ".join([_NAMES[schema["type"]], " and ".join(bounds)]).strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "empty" if field.default_factory in (list, dict) else "all defaults"
    return "empty" if field.default is None else f"`{json.dumps(field.default)}`"
