"""Describes the layers of a model as a table: output shapes, parameters and bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradwire_engine.layers import Linear
from gradwire_engine.module import Module
from gradwire_engine.stack import layers_of

_HEADINGS = ("layer", "output shape", "parameters", "bytes")


@dataclass(frozen=True)
class LayerSummary:
    """A layer of a model.

    Attributes:
        name: The layer's name, for example "fc1".
        kind: The layer's class, for example "Linear".
        width: The width of the output, or None if it is unknown.
        parameters: The number of weights and biases, or None if it depends on inputs that are not known yet.
        size: The size of the parameters in bytes, or None if their number is unknown.
        deferred: Whether the layer has no weights yet.
    """

    name: str
    kind: str
    width: int | None
    parameters: int | None
    size: int | None
    deferred: bool = False

    def cells(self) -> tuple[str, str, str, str]:
        """Return the texts of a row of the table."""
        kind = f"{self.kind}, deferred" if self.deferred else self.kind
        shape = "?" if self.width is None else f"(rows, {self.width})"
        return f"{self.name} ({kind})", shape, _count(self.parameters), _count(self.size)


def summarize(model: Module) -> list[LayerSummary]:
    """Return the layers of a model in the order in which forward() calls them.

    If forward() does more than pass its input from layer to layer, the layers are in the order of the attributes, and
    output widths are known only for Linear layers.
    """
    try:
        named, in_order = list[tuple[str, Module]](layers_of(model)), True
    except Exception:  # forward() is user code, which can do anything. The attributes are enough for a summary.
        named, in_order = _with_parameters(model), False
    rows: list[LayerSummary] = []
    width: int | None = None
    for name, layer in named:
        if isinstance(layer, Linear):
            rows.append(_linear(name, layer, width))
            width = layer.out_features if in_order else None
        else:
            arrays = [parameter.data for parameter in layer.params.values() if parameter.initialized]
            parameters, size = sum(array.size for array in arrays), sum(array.nbytes for array in arrays)
            rows.append(LayerSummary(name, type(layer).__name__, width, parameters, size))
    return rows


def _linear(name: str, layer: Linear, width: int | None) -> LayerSummary:
    inputs = layer.in_features if layer.in_features is not None else width
    dtype = layer.W.data.dtype if layer.W.initialized else layer.dtype
    parameters = None if inputs is None else (inputs + 1) * layer.out_features
    size = None if parameters is None else parameters * dtype.itemsize
    return LayerSummary(
        name, type(layer).__name__, layer.out_features, parameters, size, deferred=not layer.W.initialized
    )


def _with_parameters(model: Module) -> list[tuple[str, Module]]:
    """Return the modules that are layers: each has parameters of its own, or contains no other module."""
    found: dict[int, tuple[str, Module]] = {}
    for name, module in model.named_modules():
        if module.params or not module.children():
            found.setdefault(id(module), (name, module))
    return list(found.values()) or [("0", model)]


def summary_text(model: Module) -> str:
    """Return the table as text, without a trailing line break."""
    rows = summarize(model)
    table = [_HEADINGS, *(row.cells() for row in rows), _total(rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
    rule = "-" * max(map(len, lines))
    parts = [type(model).__name__, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]]
    return "\n".join([*parts, *_notes(rows)])


def summary_html(model: Module) -> str:
    """Return the table as HTML, for a notebook."""
    rows = summarize(model)
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    body = "".join(_html_row(row.cells()) for row in rows)
    total = _html_row(_total(rows), "font-weight:bold")
    notes = "".join(f"<div>{escape(note)}</div>" for note in _notes(rows))
    title = f"<div><b>{escape(type(model).__name__)}</b></div>"
    return f"<div>{title}<table><thead><tr>{head}</tr></thead><tbody>{body}{total}</tbody></table>{notes}</div>"


def _html_row(cells: Sequence[str], style: str = "") -> str:
    aligned = zip(("left", "left", "right", "right"), cells, strict=True)
    columns = "".join(f'<td style="text-align:{side}">{escape(cell)}</td>' for side, cell in aligned)
    return f'<tr style="{style}">{columns}</tr>'


def _total(rows: Sequence[LayerSummary]) -> tuple[str, str, str, str]:
    more = " + ?" if any(row.parameters is None for row in rows) else ""
    parameters, size = sum(row.parameters or 0 for row in rows), sum(row.size or 0 for row in rows)
    return "total", "", f"{parameters:,}{more}", f"{size:,}{more}"


def _notes(rows: Sequence[LayerSummary]) -> list[str]:
    if not any(row.deferred for row in rows):
        return []
    return ["A deferred layer gets its weights from its first input or, in a job, from the training data."]


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
