"""/docs: the document as one HTML page. Pure: the same document gives the same bytes.

Made on the server and without scripts: it is read offline, printed, and searched by the browser's own means.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.http.problems import KINDS, PROBLEM_JSON
from gateway.openapi.answers import ANYWHERE, codes_of
from gateway.openapi.schemas import STATUS_OF

_FOLDER: Final = Path(__file__).resolve().parent
_ENUM_SHOWN_MAX: Final = 12
_SHOWN_METHODS: Final = ("get", "post", "put", "patch", "delete", "options")


class Page(NamedTuple):
    html: bytes
    style_hash: str  # for style-src of the page's Content-Security-Policy


def page(document: dict[str, Any]) -> Page:
    style = (_FOLDER / "page.css").read_text()
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = _Shown(document)
    environment.filters |= {"prose": _prose, "json": _json, "at_slashes": _at_slashes}
    environment.filters |= {"rule": shown.rule, "curl": shown.curl}
    html = environment.get_template("page.html.j2").render(
        document=document,
        style=Markup(style),  # noqa: S704 - our own file
        operations=shown.operations(),
        schemas={name: shown.schema(name) for name in document["components"]["schemas"]},
        problems=shown.problems(),
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return Page(html.encode(), f"sha256-{digest}")


class _Shown:
    """What the template shows, taken out of the document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def operations(self) -> list[dict[str, Any]]:
        return [
            self._operation(path, method, item)
            for path, item in self._document["paths"].items()
            for method in _SHOWN_METHODS
            if method in item
        ]

    def _operation(self, path: str, method: str, item: dict[str, Any]) -> dict[str, Any]:
        operation = item[method]
        body = self._media(operation.get("requestBody", {}))
        answers = {status: self._resolved(answer) for status, answer in operation["responses"].items()}
        return {
            "path": path,
            "method": method.upper(),
            "has_head": method == "get",
            "parameters": [
                parameter | {"schema": self._resolved(parameter["schema"])}
                for parameter in (*item.get("parameters", ()), *operation.get("parameters", ()))
            ],
            "body": body and body | {"shape": self._resolved(body["schema"])},
            "answers": {
                status: answer | {"media": self._media(answer)}
                for status, answer in answers.items()
                if not _is_met_anywhere(answer)
            },
            **{name: operation[name] for name in ("operationId", "summary", "description", "tags")},
        }

    def schema(self, name: str) -> dict[str, Any]:
        schema: dict[str, Any] = self._document["components"]["schemas"][name]
        return schema

    def problems(self) -> list[dict[str, Any]]:
        """Every code there is, by status."""
        return [
            {"code": code, "status": status, "title": KINDS[code].title if code in KINDS else ""}
            for code, status in sorted(STATUS_OF.items(), key=lambda item: (item[1], item[0]))
        ]

    def rule(self, schema: dict[str, Any]) -> Markup:
        """What a value must be, in a few words; named shapes are links."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return Markup('<a href="#schema-{0}">{0}</a>').format(name)
        if "anyOf" in schema:
            return Markup(" or ").join(map(self.rule, schema["anyOf"]))
        return escape(_rule(schema))

    def curl(self, body: dict[str, Any], operation: dict[str, Any]) -> str:
        """The example as a command."""
        path, named = operation["path"], ""
        for parameter in operation["parameters"]:
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", parameter["example"])
            elif parameter["in"] == "header" and parameter.get("required"):
                named += f"-H '{parameter['name']}: {parameter['example']}' "
        method = "" if operation["method"] == "POST" else f"-X {operation['method']} "
        return (
            f'curl -i {method}"$TOLLGATE{path}" -H "Authorization: Bearer $KEY" \\\n'
            f'     {named}-H "Content-Type: application/json" \\\n'
            f"     -d '{json.dumps(body)}'"
        )

    def _media(self, content: dict[str, Any]) -> dict[str, Any]:
        media: dict[str, Any] = next(iter(content.get("content", {}).values()), {})
        return media

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return node
        found: Any = self._document
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        resolved: dict[str, Any] = found
        return resolved


def _is_met_anywhere(answer: dict[str, Any]) -> bool:
    """Whether it is no answer of this operation in particular."""
    return PROBLEM_JSON in answer.get("content", {}) and codes_of([answer]) <= set(ANYWHERE)


def _rule(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"always {json.dumps(schema['const'])}"
    if "enum" in schema and len(schema["enum"]) <= _ENUM_SHOWN_MAX:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kinds = schema.get("type", "string")
    words = [" or ".join(kinds) if isinstance(kinds, list) else kinds]
    for lowest, highest, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minProperties", "maxProperties", " pairs"),
        ("minItems", "maxItems", " items"),
    ):
        if highest in schema:
            words.append(f"{schema.get(lowest, 0)} to {schema[highest]}{unit}")
        elif lowest in schema:
            words.append(f"at least {schema[lowest]}{unit}")
    if "pattern" in schema and "x00" not in schema["pattern"]:
        words.append(schema["pattern"])
    return ", ".join(words)


def _prose(text: str) -> Markup:
    """The part of Markdown that the document uses: paragraphs and code."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        pieces = paragraph.split("`")
        marked = [
            Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
            for index, piece in enumerate(pieces)
        ]
        paragraphs.append(Markup("<p>{}</p>").format(Markup("").join(marked)))
    return Markup("\n").join(paragraphs)


def _at_slashes(path: str) -> Markup:
    """Where a path that is too long for its line is broken, rather than within a name."""
    return Markup("<wbr>/").join(path.split("/"))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
