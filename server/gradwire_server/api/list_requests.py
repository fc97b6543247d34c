"""Parses List requests: pages (AIP-158), filters (a small part of AIP-160) and orders (AIP-132)."""

import hashlib
import re
from collections.abc import Mapping
from typing import Protocol

from gradwire_server.errors import invalid_field
from gradwire_server.store.paging import Clause, FieldClause, LabelClause, Operator, Page, parse_token

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_FILTER_LENGTH = 4096
MAX_FILTER_CONDITIONS = 20

_OPERATORS: dict[str, Operator] = {"=": "=", "!=": "!=", ":": ":"}
# One clause, or the AND between two clauses. No part can match the same text in two ways, so parsing takes linear time.
_CLAUSE = re.compile(r'\s*(?P<field>[\w.-]+)\s*(?P<operator>!=|=|:)\s*(?:"(?P<quoted>[^"]*)"|(?P<word>[^\s"]+))')
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


def parse_page(request: ListRequest, states: Mapping[str, int]) -> Page:
    """Return the page that a List request specifies.

    Args:
        request: A List request.
        states: The values of the field `state` in filters. It is empty if the resource does not have this field.

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
        clauses=tuple(_parse_filter(request.filter, states)),
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


def _parse_filter(text: str, states: Mapping[str, int]) -> list[Clause]:
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
        clauses.append(_clause(match["field"], _OPERATORS[match["operator"]], value, states))
        position = match.end()
    return clauses


def _unparsable(text: str) -> Exception:
    return invalid_field(
        "filter", f"cannot be parsed at {text[:80].strip()!r}. Write conditions such as name = value, joined by AND"
    )


def _clause(field: str, operator: Operator, value: str, states: Mapping[str, int]) -> Clause:
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
    known = "name, state, labels and labels.KEY" if states else "name, labels and labels.KEY"
    raise invalid_field("filter", f"has a condition on {field[:80]!r} with {operator}. Fields are {known}")
