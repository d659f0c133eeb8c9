"""The document says what is answered, everything of it, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from gateway.admission import CHECKOUT_ID_HEADER, PaymentRequest, admit
from gateway.http.problems import KINDS
from gateway.openapi import examples
from gateway.openapi.answers import codes_of
from gateway.openapi.document import document
from gateway.openapi.page import page
from gateway.openapi.schemas import PROXY_CODES
from gateway.strict_json import Rejected
from tests.fixtures.described import Described
from tests.fixtures.shard import document as answered
from tests.fixtures.shard import header, in_process_shard
from tollgate import nginx_config

ROOT = Path(__file__).resolve().parents[3]
PSPS = frozenset({"simulator", "stripe"})
DESCRIBED = Described(document(PSPS))
REQUEST = DESCRIBED.schema("PaymentRequest")
ID = "order-0001"
FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(PaymentRequest))


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    for schema in DESCRIBED.document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    text = json.dumps(DESCRIBED.document)
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert references
    for reference in references:
        assert DESCRIBED.resolved({"$ref": reference})


def test_every_example_is_what_its_schema_says() -> None:
    shown = list(DESCRIBED.examples())
    assert len(shown) >= 20
    for where, schema, value in shown:
        errors = [error.message for error in DESCRIBED.validator(schema).iter_errors(value)]
        assert not errors, f"{where}: {errors}"


def test_every_code_that_is_answered_is_described_with_its_status() -> None:
    by_proxy = {
        problem.code: problem.status for problem in nginx_config.PROBLEMS if problem.code not in KINDS
    }
    assert by_proxy == PROXY_CODES
    met = codes_of(DESCRIBED.document["components"]["responses"].values())
    # A method that is not there has no operation to describe it under.
    assert met == {*KINDS, *PROXY_CODES} - {"method_not_allowed"}


def test_the_readme_shows_the_documents_own_example() -> None:
    readme = (ROOT / "README.md").read_text()
    [body] = re.findall(r"-d '([^']+)'", readme)
    assert json.loads(body) == examples.REQUESTS["smallest"]
    assert f'"{CHECKOUT_ID_HEADER}: {examples.CHECKOUT_ID}"' in readme


def test_the_request_has_the_fields_that_admission_reads() -> None:
    described = DESCRIBED.document["components"]["schemas"]["PaymentRequest"]
    fields = msgspec.structs.fields(PaymentRequest)
    assert set(described["properties"]) == {field.encode_name for field in fields}
    assert set(described["required"]) == {field.encode_name for field in fields if field.required}


def admits(body: object) -> bool:
    return not isinstance(admit(json.dumps(body).encode(), ID, PSPS), Rejected)


def drawn_from(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema of the kinds used for the request allows; lengths as likely at their bounds as within."""
    schema = DESCRIBED.resolved(schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([_drawn(kind, schema) for kind in kinds])


def _drawn(kind: str, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    match kind:
        case "null":
            return st.none()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "string" if "maxLength" in schema:
            longest = st.text(_CHARACTERS, min_size=1, max_size=1).map(lambda one: one * schema["maxLength"])
            return longest | st.text(_CHARACTERS, min_size=schema.get("minLength", 0), max_size=20)
        case "string":
            return st.from_regex(schema["pattern"], fullmatch=True)
        case "object" if "properties" in schema:
            properties = {name: drawn_from(rule) for name, rule in schema["properties"].items()}
            required = {name: properties.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(required, optional=properties)
        case "object":
            keys = _drawn("string", schema["propertyNames"]).filter(_may_be_a_key)
            values = drawn_from(schema["additionalProperties"])
            return st.dictionaries(keys, values, max_size=schema["maxProperties"])
    raise AssertionError(f"the request has no {kind}")


_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
_may_be_a_key = DESCRIBED.validator(
    DESCRIBED.document["components"]["schemas"]["PaymentRequest"]["properties"]["metadata"]["propertyNames"]
).is_valid


@seed(20261121)
@settings(max_examples=300, database=None)
@given(drawn_from({"$ref": "#/components/schemas/PaymentRequest"}))
def test_what_the_schema_allows_is_admitted(body: Any) -> None:
    assert REQUEST.is_valid(body)
    if "payment_checkout_id" in body:
        body["payment_checkout_id"] = ID  # that it equals the header no schema can say
    assert admits(body), admit(json.dumps(body).encode(), ID, PSPS)


_ODD: st.SearchStrategy[object] = st.sampled_from([None, True, False, -1, 0, 2, 1.5, float("inf"), [], {}])
_TEXT = st.text(max_size=4) | st.sampled_from(
    ["", "a\0b", "USD", "usd", "manual", "stripe", ID, "other-id-1"]
)
_LONG = st.sampled_from([40, 41, 64, 65, 255, 256, 500, 501, 2048, 2049]).map(lambda length: "é" * length)
_PAIRS = st.dictionaries(_TEXT | _LONG | st.sampled_from(["cvv", "Pan", "cvcx"]), _TEXT | _LONG, max_size=3)
_MANY = st.sampled_from([20, 21]).map(lambda count: {str(number): "" for number in range(count)})
_AMOUNT = st.sampled_from([0, 1, 99_999_999_999, 100_000_000_000, -(10**30), 10**30])


@seed(20261121)
@settings(max_examples=800, database=None)
@given(
    st.dictionaries(
        st.sampled_from([*sorted(FIELDS), "colour"]),
        _ODD | _TEXT | _LONG | _PAIRS | _MANY | _AMOUNT,
        max_size=3,
    ),
    st.sets(st.sampled_from(["amount", "currency", "payment_method"]), max_size=1),
)
def test_schema_and_admission_come_to_the_same_verdict(changes: dict[str, Any], without: set[str]) -> None:
    body = examples.REQUESTS["smallest"] | changes
    body = {name: value for name, value in body.items() if name not in without}
    own = {"payment_checkout_id": body["payment_checkout_id"]} if "payment_checkout_id" in body else {}
    told = isinstance(body.get("amount"), float) or own.get("payment_checkout_id") not in (None, ID)
    if told:
        return  # in words: a schema can neither tell 1.0 from 1 nor know the header
    assert admits(body) == REQUEST.is_valid(body), body


async def test_both_are_served_cacheable_and_told_unchanged_by_their_etag(tmp_path: Path) -> None:
    shard = in_process_shard(tmp_path)
    for path, media_type in (("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")):
        told = await shard.send("GET", path)
        assert (told.status, header(told, "content-type")) == (200, media_type)
        assert header(told, "cache-control") == "public, max-age=300"
        etag = header(told, "etag")
        assert etag
        for condition in (etag, f'"x", W/{etag}', "*"):
            again = await shard.send("GET", path, ("If-None-Match", condition))
            assert (again.status, again.body, header(again, "etag")) == (304, b"", etag)
        assert (await shard.send("GET", path, ("If-None-Match", '"x"'))).status == 200
        headers_alone = await shard.send("HEAD", path)
        assert (headers_alone.status, headers_alone.body) == (200, b"")
        refused = await shard.send("POST", path)
        assert (refused.status, header(refused, "allow")) == (405, "GET, HEAD")
    served = answered(await shard.send("GET", "/openapi.json"))
    assert served == json.loads(json.dumps(document(["simulator"])))


class _Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, known, value in self.attributes if known == name]


@pytest.fixture(scope="module")
def shown() -> _Page:
    return _Page(page(DESCRIBED.document).html.decode())


def test_the_page_shows_every_operation_field_and_code(shown: _Page) -> None:
    for path, item in DESCRIBED.document["paths"].items():
        for method in item.keys() - {"parameters", "head"}:
            assert f"{method.upper()} {path}" in shown.text
    for name in FIELDS | KINDS.keys() | PROXY_CODES.keys():
        assert name in shown.text
    assert json.dumps(examples.REQUESTS["everything"]) in shown.text


def test_the_page_leads_nowhere_but_to_itself_and_the_document(shown: _Page) -> None:
    ids = shown.values("id")
    assert len(ids) == len(set(ids))
    for target in shown.values("href"):
        assert target == "openapi.json" or target.removeprefix("#") in ids, target
    assert not {tag for tag, _, _ in shown.attributes} & {"script", "link", "img", "iframe", "form", "object"}
    assert not {name for _, name, _ in shown.attributes} & {"src", "style", "action", "onclick"}


async def test_the_pages_policy_allows_its_own_style_and_nothing_else(tmp_path: Path) -> None:
    told = await in_process_shard(tmp_path).send("GET", "/docs")
    policy = header(told, "content-security-policy") or ""
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'",
        policy,
    )
    style = re.search("<style>(.*?)</style>", told.body.decode(), re.DOTALL)
    assert style
    assert page(DESCRIBED.document).style_hash in policy
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy, "a browser would refuse the style"
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_markup_in_the_document_is_shown_and_not_obeyed() -> None:
    hostile = document(PSPS)
    hostile["info"]["description"] = hostile["info"]["title"] = "<script>x</script> `<b>`"
    create = hostile["paths"]["/v1/payments"]["post"]
    create["summary"] = "<script>x</script>"
    create["requestBody"]["content"]["application/json"]["examples"]["x"] = {
        "value": {"a": "<script>x</script>"}
    }
    html = page(hostile).html
    assert b"<script>" not in html
    assert b"<code>&lt;b&gt;</code>" in html
