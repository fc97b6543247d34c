"""Whole epochs without Python: gather a batch, forward, loss, backward and update; and evaluation.

All threads of a plan run the same function, each on its share of the work; they meet where one needs what another has
made. Sums are always added in an order that does not depend on the shares, so the number of threads changes no bit.
Arguments that end in _at are addresses, panel strides are in bytes; see layout.py for what the tables hold.
"""

import math

import numpy as np
from numba import njit

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
from gradwire_engine.plans.compiled.threads import meet
from gradwire_engine.plans.compiled.tiles import (
    AS_IS,
    LINE_BYTES,
    RELU,
    WHERE_POSITIVE,
    call,
    element,
    exp_line,
    item_size,
    line_max,
    load_element,
    store_element,
    transpose_block,
)

# The losses.
LOGITS, PROBABILITIES, SQUARED_ERROR = 0, 1, 2

# With fewer rows a thread takes some of the outputs of all rows, not all outputs of some rows.
_LEAST_ROWS_PER_THREAD = 12
# Rows that go from the data into the first layer together.
_ROWS_TOGETHER = 96
# Panels of a layer's inputs whose gradient is computed together.
_BACKWARD_PANELS = 2
_PROBABILITY_FLOOR = 1e-12


@njit(nogil=True, cache=True)
def _share(items, thread, threads):
    return items * thread // threads, items * (thread + 1) // threads


@njit(nogil=True, cache=True)
def _panels(columns, zero):
    return (columns * item_size(zero) + LINE_BYTES - 1) // LINE_BYTES


@njit(nogil=True, cache=True)
def _gather(kernels, data, features, order, first, last, relu, target_at, panel_bytes):
    call(
        kernels[GATHER],
        (data[0], data[1], data[2], features, order.ctypes.data + 8 * first, last - first, relu,
         target_at + first * LINE_BYTES, panel_bytes),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _forward_layer(kernels, layers, space, panel_bytes, layer, first_row, rows, first_panel, panels):
    call(
        kernels[PRODUCT],
        (
            space[layer, VALUES] + first_row * LINE_BYTES, panel_bytes, layers[layer, INPUTS],
            layers[layer, WEIGHTS] + first_panel * layers[layer, WEIGHTS_PANEL], layers[layer, WEIGHTS_PANEL], panels,
            space[layer + 1, VALUES] + first_row * LINE_BYTES + first_panel * panel_bytes, panel_bytes,
            layers[layer, BIAS] + first_panel * LINE_BYTES, RELU if layers[layer, RELU_AFTER] else AS_IS, 0, rows,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _loss_row(loss, outputs_at, gradient_at, targets_at, label, panel_bytes, outputs, scale, zero):
    """Return the loss of one row, and write `scale` times the gradient with respect to its outputs.

    The row's targets are the class `label`, or where that is -1 the row at targets_at. The formulas are those of
    losses.py; for squared errors the loss is the row's sum, and the gradient lacks its factor 2.
    """
    size = item_size(zero)
    lanes = LINE_BYTES // size
    panels = _panels(outputs, zero)
    total = 0.0
    if loss == LOGITS:
        largest = line_max(outputs_at, min(lanes, outputs), zero)
        for panel in range(1, panels):
            count = min(lanes, outputs - panel * lanes)
            largest = max(largest, line_max(outputs_at + panel * panel_bytes, count, zero))
        exp_sum = zero
        for panel in range(panels):
            count = min(lanes, outputs - panel * lanes)
            at = panel * panel_bytes
            exp_sum += exp_line(outputs_at + at, count, largest, gradient_at + at)
        log_sum = math.log(np.float64(exp_sum)) + np.float64(largest)
        share = scale / exp_sum
        for panel in range(panels):
            at = gradient_at + panel * panel_bytes
            for lane in range(lanes):
                store_element(at + lane * size, load_element(at + lane * size, zero) * share, zero)
        if label >= 0:
            at = label // lanes * panel_bytes + label % lanes * size
            store_element(gradient_at + at, load_element(gradient_at + at, zero) - scale, zero)
            return log_sum - np.float64(load_element(outputs_at + at, zero))
        for column in range(outputs):
            at = column // lanes * panel_bytes + column % lanes * size
            target = load_element(targets_at + at, zero)
            store_element(gradient_at + at, load_element(gradient_at + at, zero) - target * scale, zero)
            total += np.float64(target) * (log_sum - np.float64(load_element(outputs_at + at, zero)))
        return total
    for column in range(outputs):
        at = column // lanes * panel_bytes + column % lanes * size
        output = load_element(outputs_at + at, zero)
        if label >= 0:
            target = element(1, zero) if column == label else zero
        else:
            target = load_element(targets_at + at, zero)
        if loss == PROBABILITIES:
            # A NaN passes through, as it does through np.clip.
            p = min(max(output, element(_PROBABILITY_FLOOR, zero)), element(1, zero)) if output == output else output
            total -= np.float64(target) * math.log(np.float64(p))
            store_element(gradient_at + at, -target / p * scale, zero)
        else:
            error = output - target
            total += np.float64(error) * np.float64(error)
            store_element(gradient_at + at, error * scale, zero)
    return total


@njit(nogil=True, cache=True)
def _loss_rows(loss, space, targets_at, labels, order, panel_bytes, outputs, first, last, scale, losses, zero):
    """losses[row] and the gradients of rows first:last of a batch, whose examples are order[first:last]."""
    top = len(space) - 1
    for row in range(first, last):
        at = row * LINE_BYTES
        label = labels[order[row]] if len(labels) else -1
        losses[row] = _loss_row(
            loss, space[top, VALUES] + at, space[top, GRADIENTS] + at, targets_at + at, label, panel_bytes, outputs,
            scale, zero,
        )  # fmt: skip


@njit(nogil=True, cache=True)
def _update_rows_of_panel(kernels, layers, space, panel_bytes, layer, panel, first, count, zero):
    """Move the weights of the inputs in one panel, by rows first:first+count of the batch."""
    lanes = LINE_BYTES // item_size(zero)
    call(
        kernels[UPDATE],
        (
            space[layer, VALUES] + panel * panel_bytes + first * LINE_BYTES,
            min(lanes, layers[layer, INPUTS] - panel * lanes),
            space[layer + 1, GRADIENTS] + first * LINE_BYTES, panel_bytes, _panels(layers[layer, OUTPUTS], zero),
            layers[layer, WEIGHTS] + panel * lanes * LINE_BYTES, layers[layer, WEIGHTS_PANEL], count,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _input_gradient(kernels, layers, space, panel_bytes, layer, panel, together, rows, transposed_at, zero):
    """The gradient of some panels of a layer's inputs: gradients @ W, through a transposed copy of these weights."""
    lanes = LINE_BYTES // item_size(zero)
    out_panels = _panels(layers[layer, OUTPUTS], zero)
    transposed_panel = out_panels * lanes * LINE_BYTES
    for each in range(together):
        for out_panel in range(out_panels):
            transpose_block(
                layers[layer, WEIGHTS]
                + out_panel * layers[layer, WEIGHTS_PANEL]
                + (panel + each) * lanes * LINE_BYTES,
                transposed_at + each * transposed_panel + out_panel * lanes * LINE_BYTES,
                zero,
            )
    at = panel * panel_bytes
    call(
        kernels[PRODUCT],
        (
            space[layer + 1, GRADIENTS], panel_bytes, layers[layer, OUTPUTS],
            transposed_at, transposed_panel, together, space[layer, GRADIENTS] + at, panel_bytes, 0,
            WHERE_POSITIVE if layers[layer - 1, RELU_AFTER] else AS_IS, space[layer, VALUES] + at, rows,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def _backward_layer(
    kernels, layers, space, panel_bytes, layer, rows, ones_at, transposed_at, thread, threads, zero
):
    """This thread's share of a layer: the gradient of its inputs, then its weights moved. Gradients carry -lr."""
    first, last = _share(_panels(layers[layer, INPUTS], zero), thread, threads)
    one_block = rows <= K_BLOCK
    if layer > 0:
        for panel in range(first, last, _BACKWARD_PANELS):
            together = min(_BACKWARD_PANELS, last - panel)
            _input_gradient(kernels, layers, space, panel_bytes, layer, panel, together, rows, transposed_at, zero)
            if one_block:
                # While these weights are still in the cache.
                for each in range(panel, panel + together):
                    _update_rows_of_panel(kernels, layers, space, panel_bytes, layer, each, 0, rows, zero)
    if layer == 0 or not one_block:
        for block in range(0, rows, K_BLOCK):
            count = min(K_BLOCK, rows - block)
            for panel in range(first, last):
                _update_rows_of_panel(kernels, layers, space, panel_bytes, layer, panel, block, count, zero)
    first, last = _share(_panels(layers[layer, OUTPUTS], zero), thread, threads)
    call(
        kernels[UPDATE],
        (
            ones_at, 1, space[layer + 1, GRADIENTS] + first * panel_bytes, panel_bytes, last - first,
            layers[layer, BIAS] + first * LINE_BYTES, LINE_BYTES, rows,
        ),
    )  # fmt: skip


@njit(nogil=True, cache=True)
def train(
    kernels, inputs, targets, labels, order, batch_size, loss, relu_input, layers, space, panel_bytes, targets_at,
    ones_at, transposed_at, losses, barrier, thread, threads, scales, loss_share, loss_sum, zero,
):  # fmt: skip
    """One SGD step for each batch of order; returns loss_sum plus the batches' sums of losses times loss_share.

    inputs, targets: address, code and item size of row-major data. scales: what the gradients of a whole batch and of
    the last one are multiplied with, -lr included.
    """
    depth = len(layers)
    features, outputs = layers[0, INPUTS], layers[depth - 1, OUTPUTS]
    meeting = 0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows = len(batch)
        scale = scales[0] if rows == batch_size else scales[1]
        first, last = _share(rows, thread, threads)
        if not len(labels):
            _gather(kernels, targets, outputs, batch, first, last, False, targets_at, panel_bytes)
        if threads == 1 or rows >= _LEAST_ROWS_PER_THREAD * threads:
            # Enough rows for everyone: each takes its own through all layers.
            for block in range(first, last, _ROWS_TOGETHER):
                end = min(block + _ROWS_TOGETHER, last)
                _gather(kernels, inputs, features, batch, block, end, relu_input, space[0, VALUES], panel_bytes)
                panels = _panels(layers[0, OUTPUTS], zero)
                _forward_layer(kernels, layers, space, panel_bytes, 0, block, end - block, 0, panels)
            for layer in range(1, depth):
                panels = _panels(layers[layer, OUTPUTS], zero)
                _forward_layer(kernels, layers, space, panel_bytes, layer, first, last - first, 0, panels)
        else:
            _gather(kernels, inputs, features, batch, first, last, relu_input, space[0, VALUES], panel_bytes)
            for layer in range(depth):
                meeting += 1
                meet(barrier, threads, meeting)
                panel, end = _share(_panels(layers[layer, OUTPUTS], zero), thread, threads)
                _forward_layer(kernels, layers, space, panel_bytes, layer, 0, rows, panel, end - panel)
            meeting += 1
            meet(barrier, threads, meeting)
        _loss_rows(loss, space, targets_at, labels, batch, panel_bytes, outputs, first, last, scale, losses, zero)
        for layer in range(depth - 1, -1, -1):
            meeting += 1
            meet(barrier, threads, meeting)
            _backward_layer(
                kernels, layers, space, panel_bytes, layer, rows, ones_at, transposed_at, thread, threads, zero
            )
        batch_loss = 0.0
        for row in range(rows):
            batch_loss += losses[row]
        loss_sum += batch_loss * loss_share
        meeting += 1
        meet(barrier, threads, meeting)
    return loss_sum


@njit(nogil=True, cache=True)
def forward(kernels, inputs, order, relu_input, layers, space, panel_bytes, zero):
    """Bring a block of rows through all layers, on one thread."""
    rows = len(order)
    _gather(kernels, inputs, layers[0, INPUTS], order, 0, rows, relu_input, space[0, VALUES], panel_bytes)
    for layer in range(len(layers)):
        panels = _panels(layers[layer, OUTPUTS], zero)
        _forward_layer(kernels, layers, space, panel_bytes, layer, 0, rows, 0, panels)


@njit(nogil=True, cache=True)
def _largest_output(outputs_at, outputs, panel_bytes, zero):
    """Return the column of a row's largest value, the first of equal ones."""
    lanes = LINE_BYTES // item_size(zero)
    best, best_value = 0, load_element(outputs_at, zero)
    for column in range(1, outputs):
        value = load_element(outputs_at + column // lanes * panel_bytes + column % lanes * item_size(zero), zero)
        if value > best_value:
            best, best_value = column, value
    return best


@njit(nogil=True, cache=True)
def _add_errors(outputs_at, targets_at, outputs, panel_bytes, sums, zero):
    """Add |error| and error^2 of a row to sums, by output."""
    lanes = LINE_BYTES // item_size(zero)
    for column in range(outputs):
        at = column // lanes * panel_bytes + column % lanes * item_size(zero)
        error = np.float64(load_element(outputs_at + at, zero) - load_element(targets_at + at, zero))
        sums[0, column] += abs(error)
        sums[1, column] += error * error


@njit(nogil=True, cache=True)
def evaluate(
    kernels, inputs, targets, labels, classes, rows, loss, relu_input, layers, space, panel_bytes, targets_at,
    strips, strip_losses, class_sums, error_sums, losses, thread, threads, zero,
):  # fmt: skip
    """Sums over rows 0..rows, by strips of the rows, of which this thread takes its share.

    classes: the class of each row where that is counted, else empty; class_sums[thread] then counts, by class, rows
    rightly given to it, given to it, and truly of it. Else error_sums[strip] sums |error| and error^2 by output.
    """
    depth = len(layers)
    outputs = layers[depth - 1, OUTPUTS]
    one = element(1, zero)
    first_strip, last_strip = _share(strips, thread, threads)
    for strip in range(first_strip, last_strip):
        first, last = _share(rows, strip, strips)
        for block in range(first, last, len(losses)):
            order = np.arange(block, min(block + len(losses), last))
            count = len(order)
            forward(kernels, inputs, order, relu_input, layers, space, panel_bytes, zero)
            if not len(labels):
                _gather(kernels, targets, outputs, order, 0, count, False, targets_at, panel_bytes)
            _loss_rows(loss, space, targets_at, labels, order, panel_bytes, outputs, 0, count, one, losses, zero)
            for row in range(count):
                strip_losses[strip] += losses[row]
                at = row * LINE_BYTES
                if len(classes):
                    label = classes[block + row]
                    predicted = _largest_output(space[depth, VALUES] + at, outputs, panel_bytes, zero)
                    class_sums[thread, 0, label] += predicted == label
                    class_sums[thread, 1, predicted] += 1
                    class_sums[thread, 2, label] += 1
                else:
                    _add_errors(
                        space[depth, VALUES] + at, targets_at + at, outputs, panel_bytes, error_sums[strip], zero
                    )
