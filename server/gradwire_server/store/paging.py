"""List pages: the description of a page, and the query for its rows."""

import base64
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, Connection, Row, Table, func, select

Operator = Literal["=", "!=", ":", "<", "<=", ">", ">="]

_COMPARISONS: dict[Operator, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MAX_KEY = 2**31 - 1
_MAX_TOKEN_LENGTH = 100
# The maximum size of the messages on a page, if it has more than one.
_MAX_PAGE_BYTES = 3_000_000


@dataclass(frozen=True)
class FieldClause:
    """A condition on a column. The operator ":" means that the column contains the value."""

    field: str
    operator: Operator
    value: str | float


@dataclass(frozen=True)
class LabelClause:
    """A condition on a label. The operator ":" means that the key is set, and ignores the value."""

    key: str
    operator: Operator
    value: str


Clause = FieldClause | LabelClause


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes:
        size: The maximum number of rows.
        after_key: The key of the last row of the previous page, or 0 for the first page.
        newest_first: Whether rows are in descending order of their keys.
        clauses: The conditions, all of which must hold.
        fingerprint: A value that identifies the filter and the order. A page token contains it, because the token is
            valid only for the same filter and order.
    """

    size: int
    after_key: int
    newest_first: bool
    clauses: tuple[Clause, ...]
    fingerprint: str

    def token_after(self, key: int) -> str:
        """Return the token for the page that follows the row with this key."""
        return base64.urlsafe_b64encode(f"{key}:{self.fingerprint}".encode()).decode()


def parse_token(token: str, fingerprint: str) -> int:
    """Return the key in a page token. Raises ValueError unless the token contains this fingerprint."""
    key, _, found = base64.urlsafe_b64decode(token[:_MAX_TOKEN_LENGTH].encode()).decode().partition(":")
    if found != fingerprint or not (key.isascii() and key.isdecimal()) or int(key) > _MAX_KEY:
        raise ValueError("the token belongs to another list")
    return int(key)


@dataclass(frozen=True)
class PagedTable:
    """A table that can be listed.

    Attributes:
        table: The table, whose column `id` contains the keys.
        fields: The columns that a FieldClause can refer to.
        labels: The table of labels, with the columns `owner`, `key` and `value`.
        condition: A condition that all listed rows meet.
    """

    table: Table
    fields: Mapping[str, Column[object]]
    labels: Table
    condition: ColumnElement[bool]


def rows_of_page(
    connection: Connection, paged: PagedTable, page: Page
) -> tuple[Sequence[Row[*tuple[object, ...]]], str]:
    """Return the rows of a page and the token of the next page. The token is empty if this is the last page.

    A page ends early if its messages would take more than 3 MB, because many clients accept at most 4 MiB.
    """
    key, message = paged.table.c.id, paged.table.c.message
    order = key.desc() if page.newest_first else key
    query = select(key, func.length(message).label("size")).where(paged.condition).order_by(order)
    if page.after_key:
        query = query.where(key < page.after_key if page.newest_first else key > page.after_key)
    for clause in page.clauses:
        query = query.where(_condition(paged, clause))
    found = connection.execute(query.limit(page.size + 1)).all()
    total = list(accumulate(row.size for row in found))
    fitting = sum(size <= _MAX_PAGE_BYTES for size in total)
    keys = [row.id for row in found[: min(page.size, max(1, fitting))]]
    rows = connection.execute(select(paged.table).where(key.in_(keys)).order_by(order)).all() if keys else []
    token = page.token_after(keys[-1]) if len(found) > len(keys) else ""
    return rows, token


def _condition(paged: PagedTable, clause: Clause) -> ColumnElement[bool]:
    if isinstance(clause, LabelClause):
        labels = paged.labels.c
        has_label = select(labels.owner).where(labels.owner == paged.table.c.id, labels.key == clause.key)
        if clause.operator == ":":
            return has_label.exists()
        has_value = has_label.where(labels.value == clause.value).exists()
        return has_value if clause.operator == "=" else ~has_value
    column = paged.fields[clause.field]
    if clause.operator == ":":
        return column.contains(clause.value, autoescape=True)
    comparison: ColumnElement[bool] = _COMPARISONS[clause.operator](column, clause.value)
    return comparison
