"""Pages, filters and orders of the List calls, as Google's AIP-132, AIP-158 and a small part of AIP-160 have them."""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gradwire_server.errors import invalid_argument

DEFAULT_PAGE_SIZE = 50
MOST_PAGE_SIZE = 1000

_CLAUSE = re.compile(r'\s*(?P<field>\w+)\s*(?P<operator>!=|=|:)\s*(?:"(?P<quoted>[^"]*)"|(?P<word>[^\s"]+))\s*')


class ListRequest(Protocol):
    """What all List requests have."""

    page_size: int
    page_token: str
    filter: str
    order_by: str


@dataclass(frozen=True)
class Clause:
    """One condition: field, "=", "!=" or ":" (contains), and the value as the store has it."""

    field: str
    operator: str
    value: str | int


@dataclass(frozen=True)
class Page:
    """A page that is asked for. `after` is the number of the last row of the page before, 0 for the first page."""

    size: int
    after: int
    newest_first: bool
    clauses: tuple[Clause, ...]
    fingerprint: str

    def token_after(self, number: int) -> str:
        """Return the token of the page after this row."""
        return base64.urlsafe_b64encode(f"{number}:{self.fingerprint}".encode()).decode()


def parse_page(request: ListRequest, states: Mapping[str, int]) -> Page:
    """Understand a List request. `states` are the values of the field `state`; without any there is no such field."""
    if not 0 <= request.page_size <= MOST_PAGE_SIZE:
        description = f"must be 1 to {MOST_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}, got {request.page_size}"
        raise invalid_argument([("page_size", description)])
    if request.order_by not in ("", "create_time", "create_time desc"):
        raise invalid_argument([("order_by", f'must be "create_time desc" or "create_time", got {request.order_by!r}')])
    fingerprint = hashlib.sha256(f"{request.filter}\n{request.order_by}".encode()).hexdigest()[:8]
    return Page(
        size=request.page_size or DEFAULT_PAGE_SIZE,
        after=_parse_token(request.page_token, fingerprint),
        newest_first=request.order_by != "create_time",
        clauses=tuple(_parse_filter(request.filter, states)),
        fingerprint=fingerprint,
    )


def _parse_token(token: str, fingerprint: str) -> int:
    if not token:
        return 0
    try:
        number, _, seen = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if seen == fingerprint:
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise invalid_argument([("page_token", "is not one that a call with this filter and order_by gave")])


def _parse_filter(text: str, states: Mapping[str, int]) -> list[Clause]:
    if not text.strip():
        return []
    clauses = []
    for part in re.split(r"\s+AND\s+", text.strip()):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise invalid_argument([("filter", f"cannot understand {part!r}: write field = value, joined by AND")])
        value = match["word"] if match["quoted"] is None else match["quoted"]
        clauses.append(_clause(match["field"], match["operator"], value, states))
    return clauses


def _clause(field: str, operator: str, value: str, states: Mapping[str, int]) -> Clause:
    if field == "name":
        return Clause(field, operator, re.sub("^(jobs|models)/", "", value))
    if field == "state" and states:
        if value not in states or operator == ":":
            raise invalid_argument([("filter", f"state takes = or != and one of {', '.join(states)}, got {value!r}")])
        return Clause(field, operator, states[value])
    known = "name and state" if states else "name"
    raise invalid_argument([("filter", f"has no field {field!r}; there is {known}")])
