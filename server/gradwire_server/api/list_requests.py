"""Parses List requests: pages (AIP-158), filters (a small part of AIP-160) and orders (AIP-132)."""

import hashlib
import math
import re
from collections.abc import Collection, Mapping
from typing import Protocol

from gradwire_server.errors import invalid_field
from gradwire_server.store.paging import Clause, FieldClause, LabelClause, Operator, Page, parse_token

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_FILTER_LENGTH = 4096
MAX_FILTER_CONDITIONS = 20

_ORDERS: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
_OPERATORS: dict[str, Operator] = {"=": "=", "!=": "!=", ":": ":", **_ORDERS}
# One clause, or the AND between two clauses. No part can match the same text in two ways, so parsing takes linear time.
_CLAUSE = re.compile(
    r'\s*(?P<field>[\w.-]+)\s*(?P<operator>!=|[<>]=?+|=|:)\s*(?:"(?P<quoted>[^"]*)"|(?P<word>[^\s"]+))'
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_AND = re.compile(r"\s+AND(?=\s)")


class ListRequest(Protocol):
    """The fields that are common to all List requests."""

    page_size: int
    page_token: str
    filter: str
    order_by: str


def page_size(requested: int) -> int:
    """Return the size of a page for the page_size of a request. Raises InvalidFieldsError."""
    if requested < 0:
        raise invalid_field("page_size", f"must be at least 0, got {requested}")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def parse_page(request: ListRequest, states: Mapping[str, int], metrics: Collection[str] = ()) -> Page:
    """Return the page that a List request specifies.

    Args:
        request: A List request.
        states: The values of the field `state` in filters. It is empty if the resource does not have this field.
        metrics: The fields in filters that are numbers, for example "test.loss".

    Raises:
        InvalidFieldsError: A field of the request is invalid.
    """
    size = page_size(request.page_size)
    if request.order_by not in ("", "create_time", "create_time desc"):
        raise invalid_field("order_by", f'must be "create_time desc" or "create_time", got {request.order_by[:80]!r}')
    if len(request.filter) > MAX_FILTER_LENGTH:
        raise invalid_field("filter", f"must have at most {MAX_FILTER_LENGTH} characters, got {len(request.filter)}")
    if "\0" in request.filter:
        raise invalid_field("filter", "must not contain NUL characters")
    fingerprint = hashlib.sha256(f"{request.filter}\n{request.order_by}".encode()).hexdigest()[:8]
    return Page(
        size=size,
        after_key=_parse_token(request.page_token, fingerprint),
        newest_first=request.order_by != "create_time",
        clauses=tuple(_parse_filter(request.filter, states, metrics)),
        fingerprint=fingerprint,
    )


def _parse_token(token: str, fingerprint: str) -> int:
    if not token:
        return 0
    try:
        return parse_token(token, fingerprint)
    except ValueError as error:
        text = "must be the next_page_token of a call with the same filter and order_by"
        raise invalid_field("page_token", text) from error


def _parse_filter(text: str, states: Mapping[str, int], metrics: Collection[str]) -> list[Clause]:
    clauses: list[Clause] = []
    text = text.rstrip()
    position = 0
    while position < len(text):
        if len(clauses) == MAX_FILTER_CONDITIONS:
            raise invalid_field("filter", f"must have at most {MAX_FILTER_CONDITIONS} conditions")
        if clauses:
            conjunction = _AND.match(text, position)
            if conjunction is None:
                raise _unparsable(text[position:])
            position = conjunction.end()
        match = _CLAUSE.match(text, position)
        if match is None:
            raise _unparsable(text[position:])
        value = match["word"] if match["quoted"] is None else match["quoted"]
        clauses.append(_clause(match["field"], _OPERATORS[match["operator"]], value, states, metrics))
        position = match.end()
    return clauses


def _unparsable(text: str) -> Exception:
    return invalid_field(
        "filter", f"cannot be parsed at {text[:80].strip()!r}. Write conditions such as name = value, joined by AND"
    )


def _clause(field: str, operator: Operator, value: str, states: Mapping[str, int], metrics: Collection[str]) -> Clause:
    if field in metrics:
        return _metric_clause(field, operator, value)
    if operator in _ORDERS:
        raise invalid_field("filter", f"compares {field[:40]!r} with {operator}. {_known_metrics(metrics)}")
    if field == "name":
        return FieldClause(field, operator, re.sub("^(jobs|models)/", "", value))
    if field == "labels" and operator == ":":
        return LabelClause(key=value, operator=operator, value="")
    if field.startswith("labels.") and operator != ":":
        return LabelClause(key=field.removeprefix("labels."), operator=operator, value=value)
    if field == "state" and states:
        if value not in states or operator == ":":
            raise invalid_field(
                "filter", f"compares state with {value[:80]!r}. Use = or != and one of {', '.join(states)}"
            )
        return FieldClause(field, operator, states[value])
    known = ["name", *(["state"] if states else []), *(["metrics such as test.loss"] if metrics else []), "labels"]
    text = f"has a condition on {field[:80]!r} with {operator}. Fields are {', '.join(known)} and labels.KEY"
    raise invalid_field("filter", text)


def _metric_clause(field: str, operator: Operator, value: str) -> Clause:
    if operator not in _ORDERS:
        raise invalid_field("filter", f"compares {field} with {operator}. Use one of {', '.join(_ORDERS)}")
    number = float(value) if _NUMBER.fullmatch(value) else math.nan
    if not math.isfinite(number):
        raise invalid_field(
            "filter", f"compares {field} with {value[:80]!r}, which is not a finite number such as 0.25"
        )
    return FieldClause(field, operator, number)


def _known_metrics(metrics: Collection[str]) -> str:
    if not metrics:
        return "This list has no numbers to compare"
    names = [name.removeprefix("test.") for name in metrics if name.startswith("test.")]
    return f"Metrics are running_loss, and train. or test. followed by {', '.join(names)}"
