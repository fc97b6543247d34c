"""Whole epochs without Python: gather a batch, forward, loss, backward and update; and evaluation.

All threads of a plan run the same function, each on its share of the work; they meet where one needs what another has
made. Sums are always added in an order that does not depend on the shares, so the number of threads changes no bit.
Names that end in _at are addresses, those in _bytes distances between them; layout.py says what lies where.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gradwire_engine.plans.compiled.barrier import meet
from gradwire_engine.plans.compiled.kernels import GATHER, K_BLOCK, PRODUCT, UPDATE
from gradwire_engine.plans.compiled.layout import (
    BIAS,
    GRADIENTS,
    INPUTS,
    OUTPUTS,
    RELU_AFTER,
    VALUES,
    WEIGHTS,
    WEIGHTS_PANEL,
)
from gradwire_engine.plans.compiled.llvm_vectors import LINE_BYTES
from gradwire_engine.plans.compiled.tiles import AS_IS, RELU, WHERE_POSITIVE
from gradwire_engine.plans.compiled.vector_intrinsics import (
    call,
    element,
    exp_line,
    first_equal,
    item_size,
    line_max,
    load_element,
    scale_line,
    store_element,
    transpose_block,
)

# The losses.
LOGITS, PROBABILITIES, SQUARED_ERROR = 0, 1, 2

# With fewer rows a thread takes some of the outputs of all rows, not all outputs of some rows: its part of the weights
# then stays in its own cache, and moving weights between cores can cost more than all else.
_LEAST_ROWS_PER_THREAD = 64
# Rows that go from the data into the first layer together.
_ROWS_TOGETHER = 96
# Panels of a layer's inputs whose gradient is computed together.
_BACKWARD_PANELS = 2
_PROBABILITY_FLOOR = 1e-12


class Model(NamedTuple):
    """What is trained: the kernels' table, the table of layers, the loss, and a 0 of the elements' type."""

    kernels: NDArray[np.int64]
    layers: NDArray[np.int64]
    loss: int
    # What a row's loss counts in the mean: 1, or for squared errors 1 / outputs.
    loss_share: float
    relu_input: bool
    zero: Any


class Data(NamedTuple):
    """A set of examples. A source is the address of a row-major matrix, the code of its dtype, and the size of an item.

    labels: the class of each row where the targets are class indices, else empty; `targets` is not read then. classes:
    the class of each row where the set is one of a classification, else empty.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: NDArray[np.int64]


@njit(nogil=True, cache=True)
def _share(items, thread, threads):
    return items * thread // threads, items * (thread + 1) // threads


@njit(nogil=True, cache=True)
def _panels(columns, zero):
    return (columns * item_size(zero) + LINE_BYTES - 1) // LINE_BYTES


@njit(nogil=True, cache=True)
def _place(column, panel_bytes, zero):
    """Where a column's element is, from the beginning of its row in the first panel."""
    lanes = LINE_BYTES // item_size(zero)
    return column // lanes * panel_bytes + column % lanes * item_size(zero)


@njit(nogil=True, cache=True)
def _gather_inputs(model, scratch, data, order, first, last):
    call(
        model.kernels[GATHER],
        (
            data.inputs[0], data.inputs[1], data.inputs[2], model.layers[0, INPUTS], order.ctypes.data + 8 * first,
            last - first, model.relu_input, scratch.table[0, VALUES] + first * LINE_BYTES, scratch.panel_bytes,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _gather_targets(model, scratch, data, order, first, last):
    if len(data.labels):
        return
    call(
        model.kernels[GATHER],
        (
            data.targets[0], data.targets[1], data.targets[2], model.layers[-1, OUTPUTS], order.ctypes.data + 8 * first,
            last - first, False, scratch.targets_at + first * LINE_BYTES, scratch.panel_bytes,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _forward_layer(model, scratch, layer, first_row, rows, first_panel, panels):
    """The outputs of a layer in some panels for some rows."""
    table = model.layers
    call(
        model.kernels[PRODUCT],
        (
            scratch.table[layer, VALUES] + first_row * LINE_BYTES, scratch.panel_bytes, table[layer, INPUTS],
            table[layer, WEIGHTS] + first_panel * table[layer, WEIGHTS_PANEL], table[layer, WEIGHTS_PANEL], panels,
            scratch.table[layer + 1, VALUES] + first_row * LINE_BYTES + first_panel * scratch.panel_bytes,
            scratch.panel_bytes, table[layer, BIAS] + first_panel * LINE_BYTES,
            RELU if table[layer, RELU_AFTER] else AS_IS, 0, rows,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _forward_rows(model, scratch, data, order, first, last):
    """Bring rows first:last of a batch through all layers."""
    for block in range(first, last, _ROWS_TOGETHER):
        end = min(block + _ROWS_TOGETHER, last)
        _gather_inputs(model, scratch, data, order, block, end)
        _forward_layer(model, scratch, 0, block, end - block, 0, _panels(model.layers[0, OUTPUTS], model.zero))
    for layer in range(1, len(model.layers)):
        panels = _panels(model.layers[layer, OUTPUTS], model.zero)
        _forward_layer(model, scratch, layer, first, last - first, 0, panels)


# The functions of one row take numbers only: to hand on arrays costs as much as the row itself.


@njit(nogil=True, cache=True)
def _softmax_loss(outputs, panel_bytes, outputs_at, gradient_at, targets_at, label, scale, zero):
    """Cross-entropy of one row's logits; the gradient is scale * (softmax - targets). See `_loss_row`."""
    lanes = LINE_BYTES // item_size(zero)
    panels = _panels(outputs, zero)
    largest = line_max(outputs_at, min(lanes, outputs), zero)
    for panel in range(1, panels):
        largest = max(largest, line_max(outputs_at + panel * panel_bytes, min(lanes, outputs - panel * lanes), zero))
    exp_sum = zero
    for panel in range(panels):
        at = panel * panel_bytes
        exp_sum += exp_line(outputs_at + at, min(lanes, outputs - panel * lanes), largest, gradient_at + at)
    log_sum = math.log(np.float64(exp_sum)) + np.float64(largest)
    for panel in range(panels):
        scale_line(gradient_at + panel * panel_bytes, scale / exp_sum)
    if label >= 0:
        at = _place(label, panel_bytes, zero)
        store_element(gradient_at + at, load_element(gradient_at + at, zero) - scale, zero)
        return log_sum - np.float64(load_element(outputs_at + at, zero))
    loss = 0.0
    for column in range(outputs):
        at = _place(column, panel_bytes, zero)
        target = load_element(targets_at + at, zero)
        store_element(gradient_at + at, load_element(gradient_at + at, zero) - target * scale, zero)
        loss += np.float64(target) * (log_sum - np.float64(load_element(outputs_at + at, zero)))
    return loss


@njit(nogil=True, cache=True)
def _elementwise_loss(loss, outputs, panel_bytes, outputs_at, gradient_at, targets_at, label, scale, zero):
    """Cross-entropy of one row's probabilities, or its sum of squared errors. See `_loss_row`."""
    total = 0.0
    for column in range(outputs):
        at = _place(column, panel_bytes, zero)
        output = load_element(outputs_at + at, zero)
        target = load_element(targets_at + at, zero) if label < 0 else element(column == label, zero)
        if loss == PROBABILITIES:
            p = output
            if not np.isnan(output):
                p = min(max(output, element(_PROBABILITY_FLOOR, zero)), element(1, zero))
            total -= np.float64(target) * math.log(np.float64(p))
            store_element(gradient_at + at, -target / p * scale, zero)
        else:
            error = output - target
            total += np.float64(error) * np.float64(error)
            store_element(gradient_at + at, error * scale, zero)
    return total


@njit(nogil=True, cache=True)
def _loss_row(loss, outputs, panel_bytes, outputs_at, gradient_at, targets_at, label, scale, zero):
    """Return the loss of one row, and write `scale` times the gradient with respect to its outputs.

    The row's targets are the class `label`, or where that is -1 the row at targets_at. The formulas are those of
    losses.py; for squared errors the loss is the row's sum, and the gradient lacks its factor 2 / outputs.
    """
    if loss == LOGITS:
        return _softmax_loss(outputs, panel_bytes, outputs_at, gradient_at, targets_at, label, scale, zero)
    return _elementwise_loss(loss, outputs, panel_bytes, outputs_at, gradient_at, targets_at, label, scale, zero)


@njit(nogil=True, cache=True)
def _loss_rows(model, scratch, data, order, first, last, scale):
    """scratch.losses[row] and the gradients of rows first:last of a batch, whose examples are order[first:last]."""
    loss, outputs, zero, panel_bytes = model.loss, model.layers[-1, OUTPUTS], model.zero, scratch.panel_bytes
    outputs_at, gradients_at = scratch.table[-1, VALUES], scratch.table[-1, GRADIENTS]
    labels, losses = data.labels, scratch.losses
    for row in range(first, last):
        at = row * LINE_BYTES
        label = labels[order[row]] if len(labels) else -1
        losses[row] = _loss_row(
            loss, outputs, panel_bytes, outputs_at + at, gradients_at + at, scratch.targets_at + at, label, scale, zero
        )


@njit(nogil=True, cache=True)
def _update_weights(model, scratch, layer, panel, out_panel, out_panels, first, count):
    """Move the weights from the inputs in one panel to the outputs in some, by rows first:first+count of the batch."""
    table = model.layers
    lanes = LINE_BYTES // item_size(model.zero)
    call(
        model.kernels[UPDATE],
        (
            scratch.table[layer, VALUES] + panel * scratch.panel_bytes + first * LINE_BYTES,
            min(lanes, table[layer, INPUTS] - panel * lanes),
            scratch.table[layer + 1, GRADIENTS] + out_panel * scratch.panel_bytes + first * LINE_BYTES,
            scratch.panel_bytes, out_panels,
            table[layer, WEIGHTS] + out_panel * table[layer, WEIGHTS_PANEL] + panel * lanes * LINE_BYTES,
            table[layer, WEIGHTS_PANEL], count,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _update_biases(model, scratch, layer, rows, first, last):
    """Move the biases of the outputs in panels first:last: the same product, with a 1 as every row's input."""
    call(
        model.kernels[UPDATE],
        (
            scratch.ones_at, 1, scratch.table[layer + 1, GRADIENTS] + first * scratch.panel_bytes, scratch.panel_bytes,
            last - first, model.layers[layer, BIAS] + first * LINE_BYTES, LINE_BYTES, rows,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _input_gradient(model, scratch, transposed_at, layer, panel, together, rows):
    """The gradient of some panels of a layer's inputs: gradients @ W, through a transposed copy of these weights."""
    table = model.layers
    lanes = LINE_BYTES // item_size(model.zero)
    out_panels = _panels(table[layer, OUTPUTS], model.zero)
    square = lanes * LINE_BYTES
    for each in range(together):
        for out_panel in range(out_panels):
            transpose_block(
                table[layer, WEIGHTS] + out_panel * table[layer, WEIGHTS_PANEL] + (panel + each) * square,
                transposed_at + (each * out_panels + out_panel) * square,
                model.zero,
            )
    at = panel * scratch.panel_bytes
    call(
        model.kernels[PRODUCT],
        (
            scratch.table[layer + 1, GRADIENTS], scratch.panel_bytes, table[layer, OUTPUTS],
            transposed_at, out_panels * square, together,
            scratch.table[layer, GRADIENTS] + at, scratch.panel_bytes, 0,
            WHERE_POSITIVE if table[layer - 1, RELU_AFTER] else AS_IS, scratch.table[layer, VALUES] + at, rows,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _backward_layer(model, scratch, transposed_at, layer, rows, by_outputs, thread, threads):
    """This thread's share of a layer: the gradient of its inputs, then its weights moved. Gradients carry -lr.

    by_outputs: the first layer's weights are shared out as in the forward pass, by their outputs, so that they stay in
    the cache of the thread that moves them.
    """
    in_panels, out_panels = (
        _panels(model.layers[layer, INPUTS], model.zero),
        _panels(model.layers[layer, OUTPUTS], model.zero),
    )
    first, last = _share(in_panels, thread, threads)
    first_out, last_out = _share(out_panels, thread, threads)
    one_block = rows <= K_BLOCK
    if layer > 0:
        for panel in range(first, last, _BACKWARD_PANELS):
            together = min(_BACKWARD_PANELS, last - panel)
            _input_gradient(model, scratch, transposed_at, layer, panel, together, rows)
            if one_block:
                # While these weights are still in the cache.
                for each in range(panel, panel + together):
                    _update_weights(model, scratch, layer, each, 0, out_panels, 0, rows)
    if layer == 0 and by_outputs:
        for block in range(0, rows, K_BLOCK):
            for panel in range(in_panels):
                count = min(K_BLOCK, rows - block)
                _update_weights(model, scratch, layer, panel, first_out, last_out - first_out, block, count)
    elif layer == 0 or not one_block:
        for block in range(0, rows, K_BLOCK):
            for panel in range(first, last):
                _update_weights(model, scratch, layer, panel, 0, out_panels, block, min(K_BLOCK, rows - block))
    _update_biases(model, scratch, layer, rows, first_out, last_out)


@njit(nogil=True, cache=True)
def train(model, scratch, data, order, batch_size, scales, loss_sum, transposed_at, barrier_at, thread, threads):
    """One SGD step for each batch of order; returns loss_sum plus the batches' losses, each times its rows.

    scales: what the gradients of a whole batch and of the last one are multiplied with, -lr included. transposed_at:
    room of this thread's own.
    """
    depth = len(model.layers)
    meeting = 0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows = len(batch)
        scale = scales[0] if rows == batch_size else scales[1]
        first, last = _share(rows, thread, threads)
        _gather_targets(model, scratch, data, batch, first, last)
        by_outputs = threads > 1 and rows < _LEAST_ROWS_PER_THREAD * threads
        if not by_outputs:
            _forward_rows(model, scratch, data, batch, first, last)
        else:
            _gather_inputs(model, scratch, data, batch, first, last)
            for layer in range(depth):
                meeting = meet(barrier_at, threads, meeting)
                panel, end = _share(_panels(model.layers[layer, OUTPUTS], model.zero), thread, threads)
                _forward_layer(model, scratch, layer, 0, rows, panel, end - panel)
            meeting = meet(barrier_at, threads, meeting)
        _loss_rows(model, scratch, data, batch, first, last, scale)
        for layer in range(depth - 1, -1, -1):
            meeting = meet(barrier_at, threads, meeting)
            _backward_layer(model, scratch, transposed_at, layer, rows, by_outputs, thread, threads)
        batch_loss = 0.0
        for row in range(rows):
            batch_loss += scratch.losses[row]
        loss_sum += batch_loss * model.loss_share
        meeting = meet(barrier_at, threads, meeting)
    return loss_sum


@njit(nogil=True, cache=True)
def forward(model, scratch, data, order):
    """Bring a block of rows through all layers, on one thread."""
    _forward_rows(model, scratch, data, order, 0, len(order))


@njit(nogil=True, cache=True)
def _largest_output(outputs, panel_bytes, outputs_at, zero):
    """Return the column of a row's largest output, the first of equal ones."""
    lanes = LINE_BYTES // item_size(zero)
    best_panel, largest = 0, line_max(outputs_at, min(lanes, outputs), zero)
    for panel in range(1, _panels(outputs, zero)):
        value = line_max(outputs_at + panel * panel_bytes, min(lanes, outputs - panel * lanes), zero)
        if value > largest:
            best_panel, largest = panel, value
    count = min(lanes, outputs - best_panel * lanes)
    # Where nothing is equal, all are NaN.
    return best_panel * lanes + first_equal(outputs_at + best_panel * panel_bytes, count, largest) % lanes


@njit(nogil=True, cache=True)
def _count_classes(model, scratch, classes, hits, given, actual):
    outputs, zero, panel_bytes = model.layers[-1, OUTPUTS], model.zero, scratch.panel_bytes
    outputs_at = scratch.table[-1, VALUES]
    for row in range(len(classes)):
        label = classes[row]
        predicted = _largest_output(outputs, panel_bytes, outputs_at + row * LINE_BYTES, zero)
        hits[label] += predicted == label
        given[predicted] += 1
        actual[label] += 1


@njit(nogil=True, cache=True)
def _add_errors(model, scratch, rows, sums):
    outputs, zero, panel_bytes = model.layers[-1, OUTPUTS], model.zero, scratch.panel_bytes
    outputs_at, targets_at = scratch.table[-1, VALUES], scratch.targets_at
    for row in range(rows):
        for column in range(outputs):
            at = row * LINE_BYTES + _place(column, panel_bytes, zero)
            error = np.float64(load_element(outputs_at + at, zero) - load_element(targets_at + at, zero))
            sums[0, column] += abs(error)
            sums[1, column] += error * error


@njit(nogil=True, cache=True)
def evaluate(model, scratch, data, rows, strip_losses, class_sums, error_sums, thread, threads):
    """Sums over rows 0..rows, by strips of the rows, of which this thread takes its share.

    strip_losses[strip]: the sum of the rows' losses. class_sums[thread]: by class, the rows rightly given to it, given
    to it, and truly of it. error_sums[strip], where nothing is classified: sums of |error| and error^2 by output.
    """
    one = element(1, model.zero)
    strips, block_rows = len(strip_losses), len(scratch.losses)
    first_strip, last_strip = _share(strips, thread, threads)
    for strip in range(first_strip, last_strip):
        first, last = _share(rows, strip, strips)
        for block in range(first, last, block_rows):
            order = np.arange(block, min(block + block_rows, last))
            _forward_rows(model, scratch, data, order, 0, len(order))
            _gather_targets(model, scratch, data, order, 0, len(order))
            _loss_rows(model, scratch, data, order, 0, len(order), one)
            for row in range(len(order)):
                strip_losses[strip] += scratch.losses[row]
            if len(data.classes):
                classes = data.classes[block : block + len(order)]
                _count_classes(
                    model, scratch, classes, class_sums[thread, 0], class_sums[thread, 1], class_sums[thread, 2]
                )
            else:
                _add_errors(model, scratch, len(order), error_sums[strip])
