"""Health, metrics and the document itself, as they are answered today."""

from __future__ import annotations

from typing import Any, Final

from gateway.openapi.answers import COME_AGAIN, Answers, Problems, header, json_answer

_STATIC: Final = {
    "ETag": header({"type": "string", "pattern": '^"[0-9a-f]{16}"$'}),
    "Cache-Control": header({"const": "public, max-age=300"}),
}
_IF_NONE_MATCH: Final = {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}


def service_paths(problems: Problems) -> dict[str, Any]:
    live = {"200": _state("It runs.", "ok", {})}
    ready = {
        "200": _state("It serves; `detail`, if there, says why it takes no new payments.", "ready", {}),
        "503": _state("It takes none now, and `detail` says why.", "not_ready", COME_AGAIN),
    }
    scraped = {"200": {"description": "Prometheus' text format.", "content": _text("text/plain")}}
    document = {"200": _static("This document.", {"application/json": {"schema": {"type": "object"}}})}
    page = {"200": _static("A page for people; it refers to no other host.", _text("text/html"))}
    unchanged = {"304": {"description": "Unchanged.", "headers": _STATIC}}
    anywhere = problems.answers()
    behind_nginx = {"304": {"description": "Behind nginx, to `If-None-Match: *`."}}
    return {
        "/livez": _get("livez", "Whether the process runs", anywhere | live | behind_nginx),
        "/readyz": _get("readyz", "Whether payments are taken", anywhere | ready | behind_nginx),
        "/metrics": _get(
            "metrics",
            "What this shard counts",
            problems.answers("not_found") | scraped,
            "Asked of the shard itself. Behind nginx it is 404: each process has its own.",
        ),
        "/openapi.json": _get("openapi", "This document", anywhere | document | unchanged, static=True),
        "/docs": _get("docs", "This document as a page", anywhere | page | unchanged, static=True),
    }


def _get(
    name: str, summary: str, answers: Answers, description: str = "", *, static: bool = False
) -> Answers:
    return {
        "get": {
            "operationId": name,
            "tags": ["service"],
            "summary": summary,
            "description": description,
            "security": [],
            "parameters": [_IF_NONE_MATCH] if static else [],
            "responses": dict(sorted(answers.items())),
        }
    }


def _state(description: str, status: str, headers: Answers) -> Answers:
    schema: Answers = {
        "type": "object",
        "required": ["status"],
        "additionalProperties": False,
        "properties": {"status": {"const": status}},
    }
    if status != "ok":
        schema["properties"]["detail"] = {"type": "string"}
    if status == "ready":  # behind nginx, which answers for itself
        schema["properties"]["ring"] = {
            "type": "integer",
            "description": "Version of the ring nginx goes by.",
        }
    if status == "not_ready":
        schema["required"].append("detail")
    return json_answer(description, schema, headers, {})


def _static(description: str, content: Answers) -> Answers:
    return {"description": description, "headers": _STATIC, "content": content}


def _text(media_type: str) -> Answers:
    return {media_type: {"schema": {"type": "string"}}}
