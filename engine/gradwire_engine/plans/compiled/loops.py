"""The compiled loops, which train and evaluate whole epochs without the Python interpreter.

A training step gathers a batch, and then runs the forward pass, the loss, the backward pass and the update.

All threads of a plan run the same function, each on its share of the work. They wait at a barrier wherever a thread
needs results from other threads. The order of summation does not depend on how the work is divided, so the number of
threads does not change the results. Names that end in _at denote addresses, and names that end in _bytes denote
distances in bytes. See layout.py.
"""

import math

import numpy as np
from numba import njit

from gradwire_engine.plans.codes import LOGITS, PROBABILITIES
from gradwire_engine.plans.compiled.arguments import LossRow, Span
from gradwire_engine.plans.compiled.barrier import wait
from gradwire_engine.plans.compiled.kernels import DEPTH_BLOCK, Gather, Product, Update
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

# If there are fewer rows than this for each thread, the threads divide the outputs of a layer instead of the rows. Then
# each thread's part of the weights stays in the cache of its core. Moving weights between cores can cost more than all
# other work.
_MIN_ROWS_PER_THREAD = 64
# The number of rows that are gathered and passed through the first layer together.
_ROWS_TOGETHER = 96
# The number of input panels of a layer for which gradients are computed together.
_BACKWARD_PANELS = 2
_PROBABILITY_FLOOR = 1e-12


@njit(nogil=True, cache=True)
def _share(items, part, parts):
    return Span(items * part // parts, items * (part + 1) // parts)


@njit(nogil=True, cache=True)
def _panels(columns, zero):
    return (columns * item_size(zero) + LINE_BYTES - 1) // LINE_BYTES


@njit(nogil=True, cache=True)
def _column_offset(column, panel_bytes, zero):
    """Return the offset of a column, in bytes, from the start of the row in the first panel."""
    lanes = LINE_BYTES // item_size(zero)
    return column // lanes * panel_bytes + column % lanes * item_size(zero)


@njit(nogil=True, cache=True)
def _gather_inputs(model, scratch, data, order, rows):
    gather = Gather(
        source=data.inputs[0],
        code=data.inputs[1],
        source_size=data.inputs[2],
        features=model.layers[0, INPUTS],
        order=order.ctypes.data + 8 * rows.start,
        rows=rows.stop - rows.start,
        relu=model.relu_input,
        target=scratch.table[0, VALUES] + rows.start * LINE_BYTES,
        target_panel=scratch.panel_bytes,
    )
    call(model.kernels.gather, gather)


@njit(nogil=True, cache=True)
def _gather_targets(model, scratch, data, order, rows):
    if len(data.labels):
        return
    gather = Gather(
        source=data.targets[0],
        code=data.targets[1],
        source_size=data.targets[2],
        features=model.layers[-1, OUTPUTS],
        order=order.ctypes.data + 8 * rows.start,
        rows=rows.stop - rows.start,
        relu=False,
        target=scratch.targets_at + rows.start * LINE_BYTES,
        target_panel=scratch.panel_bytes,
    )
    call(model.kernels.gather, gather)


@njit(nogil=True, cache=True)
def _forward_layer(model, scratch, layer, rows, panels):
    """Compute the given output panels of a layer for the given rows."""
    table = model.layers
    at, panel_bytes = rows.start * LINE_BYTES, scratch.panel_bytes
    product = Product(
        left=scratch.table[layer, VALUES] + at,
        left_panel=panel_bytes,
        depth=table[layer, INPUTS],
        right=table[layer, WEIGHTS] + panels.start * table[layer, WEIGHTS_PANEL],
        right_panel=table[layer, WEIGHTS_PANEL],
        panels=panels.stop - panels.start,
        result=scratch.table[layer + 1, VALUES] + at + panels.start * panel_bytes,
        result_panel=panel_bytes,
        bias=table[layer, BIAS] + panels.start * LINE_BYTES,
        end=RELU if table[layer, RELU_AFTER] else AS_IS,
        other=0,
        rows=rows.stop - rows.start,
    )
    call(model.kernels.product, product)


@njit(nogil=True, cache=True)
def _forward_rows(model, scratch, data, order, rows):
    """Compute the outputs of all layers for the given rows of a batch."""
    panels = Span(0, _panels(model.layers[0, OUTPUTS], model.zero))
    for block in range(rows.start, rows.stop, _ROWS_TOGETHER):
        together = Span(block, min(block + _ROWS_TOGETHER, rows.stop))
        _gather_inputs(model, scratch, data, order, together)
        _forward_layer(model, scratch, 0, together, panels)
    for layer in range(1, len(model.layers)):
        _forward_layer(model, scratch, layer, rows, Span(0, _panels(model.layers[layer, OUTPUTS], model.zero)))


# The functions for a single row take only numbers and tuples of numbers. Passing an array would cost as much as the
# computation itself.


@njit(nogil=True, cache=True)
def _softmax_loss(row, outputs_at, gradient_at, targets_at, label):
    """Return the cross-entropy of one row of logits. The gradient is scale * (softmax - targets).

    See `_loss_of_row`.
    """
    lanes = LINE_BYTES // item_size(row.zero)
    panels = _panels(row.outputs, row.zero)
    largest = line_max(outputs_at, min(lanes, row.outputs), row.zero)
    for panel in range(1, panels):
        count = min(lanes, row.outputs - panel * lanes)
        largest = max(largest, line_max(outputs_at + panel * row.panel_bytes, count, row.zero))
    exp_sum = row.zero
    for panel in range(panels):
        at = panel * row.panel_bytes
        exp_sum += exp_line(outputs_at + at, min(lanes, row.outputs - panel * lanes), largest, gradient_at + at)
    log_sum = math.log(np.float64(exp_sum)) + np.float64(largest)
    for panel in range(panels):
        scale_line(gradient_at + panel * row.panel_bytes, row.scale / exp_sum)
    if label >= 0:
        at = _column_offset(label, row.panel_bytes, row.zero)
        store_element(gradient_at + at, load_element(gradient_at + at, row.zero) - row.scale, row.zero)
        return log_sum - np.float64(load_element(outputs_at + at, row.zero))
    loss = 0.0
    for column in range(row.outputs):
        at = _column_offset(column, row.panel_bytes, row.zero)
        target = load_element(targets_at + at, row.zero)
        store_element(gradient_at + at, load_element(gradient_at + at, row.zero) - target * row.scale, row.zero)
        loss += np.float64(target) * (log_sum - np.float64(load_element(outputs_at + at, row.zero)))
    return loss


@njit(nogil=True, cache=True)
def _elementwise_loss(row, outputs_at, gradient_at, targets_at, label):
    """Return the cross-entropy of one row of probabilities, or its sum of squared errors. See `_loss_of_row`."""
    total = 0.0
    for column in range(row.outputs):
        at = _column_offset(column, row.panel_bytes, row.zero)
        output = load_element(outputs_at + at, row.zero)
        target = load_element(targets_at + at, row.zero) if label < 0 else element(column == label, row.zero)
        if row.loss == PROBABILITIES:
            p = output
            if not np.isnan(output):
                p = min(max(output, element(_PROBABILITY_FLOOR, row.zero)), element(1, row.zero))
            total -= np.float64(target) * math.log(np.float64(p))
            store_element(gradient_at + at, -target / p * row.scale, row.zero)
        else:
            error = output - target
            total += np.float64(error) * np.float64(error)
            store_element(gradient_at + at, error * row.scale, row.zero)
    return total


@njit(nogil=True, cache=True)
def _loss_of_row(row, outputs_at, gradient_at, targets_at, label):
    """Return the loss of one row, and store `scale` times the gradient with respect to the outputs.

    The target is the class `label` or, if `label` is -1, the row at targets_at. The formulas match losses.py with one
    exception: for squared errors, the loss is the sum over the outputs, and the gradient lacks the factor 2 / outputs.
    """
    if row.loss == LOGITS:
        return _softmax_loss(row, outputs_at, gradient_at, targets_at, label)
    return _elementwise_loss(row, outputs_at, gradient_at, targets_at, label)


@njit(nogil=True, cache=True)
def _loss_rows(model, scratch, data, order, rows, scale):
    """Compute scratch.losses and the gradients for the given rows of a batch. Row i contains example order[i]."""
    terms = LossRow(model.loss, model.layers[-1, OUTPUTS], scratch.panel_bytes, scale, model.zero)
    outputs_at, gradients_at = scratch.table[-1, VALUES], scratch.table[-1, GRADIENTS]
    labels, losses = data.labels, scratch.losses
    for row in range(rows.start, rows.stop):
        at = row * LINE_BYTES
        label = labels[order[row]] if len(labels) else -1
        losses[row] = _loss_of_row(terms, outputs_at + at, gradients_at + at, scratch.targets_at + at, label)


@njit(nogil=True, cache=True)
def _update_weights(model, scratch, layer, panel, out_panels, rows):
    """Update the weights between one input panel and the given output panels, using the given rows of the batch."""
    table = model.layers
    lanes = LINE_BYTES // item_size(model.zero)
    at, panel_bytes = rows.start * LINE_BYTES, scratch.panel_bytes
    weights = table[layer, WEIGHTS] + panel * lanes * LINE_BYTES
    update = Update(
        left=scratch.table[layer, VALUES] + panel * panel_bytes + at,
        left_rows=min(lanes, table[layer, INPUTS] - panel * lanes),
        right=scratch.table[layer + 1, GRADIENTS] + out_panels.start * panel_bytes + at,
        right_panel=panel_bytes,
        panels=out_panels.stop - out_panels.start,
        result=weights + out_panels.start * table[layer, WEIGHTS_PANEL],
        result_panel=table[layer, WEIGHTS_PANEL],
        depth=rows.stop - rows.start,
    )
    call(model.kernels.update, update)


@njit(nogil=True, cache=True)
def _update_biases(model, scratch, layer, panels, rows):
    """Update the biases of the given output panels. A bias is updated like a weight whose input is always 1."""
    update = Update(
        left=scratch.ones_at,
        left_rows=1,
        right=scratch.table[layer + 1, GRADIENTS] + panels.start * scratch.panel_bytes,
        right_panel=scratch.panel_bytes,
        panels=panels.stop - panels.start,
        result=model.layers[layer, BIAS] + panels.start * LINE_BYTES,
        result_panel=LINE_BYTES,
        depth=rows,
    )
    call(model.kernels.update, update)


@njit(nogil=True, cache=True)
def _input_gradient(model, scratch, transposed_at, layer, panels, rows):
    """Compute the gradients for the given input panels of a layer: gradients @ W, with a transposed copy of W."""
    table = model.layers
    lanes = LINE_BYTES // item_size(model.zero)
    out_panels = _panels(table[layer, OUTPUTS], model.zero)
    block = lanes * LINE_BYTES
    for panel in range(panels.start, panels.stop):
        for out_panel in range(out_panels):
            transpose_block(
                table[layer, WEIGHTS] + out_panel * table[layer, WEIGHTS_PANEL] + panel * block,
                transposed_at + ((panel - panels.start) * out_panels + out_panel) * block,
                model.zero,
            )
    at = panels.start * scratch.panel_bytes
    product = Product(
        left=scratch.table[layer + 1, GRADIENTS],
        left_panel=scratch.panel_bytes,
        depth=table[layer, OUTPUTS],
        right=transposed_at,
        right_panel=out_panels * block,
        panels=panels.stop - panels.start,
        result=scratch.table[layer, GRADIENTS] + at,
        result_panel=scratch.panel_bytes,
        bias=0,
        end=WHERE_POSITIVE if table[layer - 1, RELU_AFTER] else AS_IS,
        other=scratch.table[layer, VALUES] + at,
        rows=rows,
    )
    call(model.kernels.product, product)


@njit(nogil=True, cache=True)
def _backward_layer(model, scratch, layer, rows, by_outputs, thread):
    """Run this thread's share of the backward pass for a layer: first the input gradients, then the update.

    The gradients include the factor -lr. If `by_outputs` is true, the threads divide the weights of the first layer by
    outputs, as in the forward pass, so that each part of the weights stays in the cache of one core.
    """
    in_panels = _share(_panels(model.layers[layer, INPUTS], model.zero), thread.number, thread.threads)
    all_out_panels = Span(0, _panels(model.layers[layer, OUTPUTS], model.zero))
    out_panels = _share(all_out_panels.stop, thread.number, thread.threads)
    one_block = rows <= DEPTH_BLOCK
    if layer > 0:
        for panel in range(in_panels.start, in_panels.stop, _BACKWARD_PANELS):
            together = Span(panel, min(panel + _BACKWARD_PANELS, in_panels.stop))
            _input_gradient(model, scratch, thread.transposed_at, layer, together, rows)
            if one_block:
                # Update these weights now, while they are still in the cache.
                for each in range(together.start, together.stop):
                    _update_weights(model, scratch, layer, each, all_out_panels, Span(0, rows))
    if layer == 0 and by_outputs:
        for block in range(0, rows, DEPTH_BLOCK):
            block_rows = Span(block, min(block + DEPTH_BLOCK, rows))
            for panel in range(_panels(model.layers[layer, INPUTS], model.zero)):
                _update_weights(model, scratch, layer, panel, out_panels, block_rows)
    elif layer == 0 or not one_block:
        for block in range(0, rows, DEPTH_BLOCK):
            block_rows = Span(block, min(block + DEPTH_BLOCK, rows))
            for panel in range(in_panels.start, in_panels.stop):
                _update_weights(model, scratch, layer, panel, all_out_panels, block_rows)
    _update_biases(model, scratch, layer, out_panels, rows)


@njit(nogil=True, cache=True)
def train(model, scratch, data, batches, loss_sum, thread):
    """Take one SGD step for each batch, and return the new sum of the losses; see `Plan.train`."""
    depth = len(model.layers)
    waits = 0
    for start in range(0, len(batches.order), batches.size):
        batch = batches.order[start : start + batches.size]
        rows = len(batch)
        scale = batches.scales[0] if rows == batches.size else batches.scales[1]
        share = _share(rows, thread.number, thread.threads)
        _gather_targets(model, scratch, data, batch, share)
        by_outputs = thread.threads > 1 and rows < _MIN_ROWS_PER_THREAD * thread.threads
        if not by_outputs:
            _forward_rows(model, scratch, data, batch, share)
        else:
            _gather_inputs(model, scratch, data, batch, share)
            for layer in range(depth):
                waits = wait(thread.barrier_at, thread.threads, waits)
                panels = _share(_panels(model.layers[layer, OUTPUTS], model.zero), thread.number, thread.threads)
                _forward_layer(model, scratch, layer, Span(0, rows), panels)
            waits = wait(thread.barrier_at, thread.threads, waits)
        _loss_rows(model, scratch, data, batch, share, scale)
        for layer in range(depth - 1, -1, -1):
            waits = wait(thread.barrier_at, thread.threads, waits)
            _backward_layer(model, scratch, layer, rows, by_outputs, thread)
        batch_loss = 0.0
        for row in range(rows):
            batch_loss += scratch.losses[row]
        loss_sum += batch_loss * model.loss_share
        waits = wait(thread.barrier_at, thread.threads, waits)
    return loss_sum


@njit(nogil=True, cache=True)
def forward(model, scratch, data, order):
    """Compute the outputs of all layers for a block of rows, on one thread."""
    _forward_rows(model, scratch, data, order, Span(0, len(order)))


@njit(nogil=True, cache=True)
def _largest_output(outputs, panel_bytes, outputs_at, zero):
    """Return the column of the largest output in a row. If several outputs are equal, return the first."""
    lanes = LINE_BYTES // item_size(zero)
    best_panel, largest = 0, line_max(outputs_at, min(lanes, outputs), zero)
    for panel in range(1, _panels(outputs, zero)):
        value = line_max(outputs_at + panel * panel_bytes, min(lanes, outputs - panel * lanes), zero)
        if value > largest:
            best_panel, largest = panel, value
    count = min(lanes, outputs - best_panel * lanes)
    # If no output equals the largest value, all outputs are NaN.
    return best_panel * lanes + first_equal(outputs_at + best_panel * panel_bytes, count, largest) % lanes


@njit(nogil=True, cache=True)
def _count_classes(model, scratch, classes, counts):
    outputs, zero, panel_bytes = model.layers[-1, OUTPUTS], model.zero, scratch.panel_bytes
    outputs_at = scratch.table[-1, VALUES]
    for row in range(len(classes)):
        label = classes[row]
        predicted = _largest_output(outputs, panel_bytes, outputs_at + row * LINE_BYTES, zero)
        counts[0, label] += predicted == label
        counts[1, predicted] += 1
        counts[2, label] += 1


@njit(nogil=True, cache=True)
def _add_errors(model, scratch, rows, sums):
    outputs, zero, panel_bytes = model.layers[-1, OUTPUTS], model.zero, scratch.panel_bytes
    outputs_at, targets_at = scratch.table[-1, VALUES], scratch.targets_at
    for row in range(rows):
        for column in range(outputs):
            at = row * LINE_BYTES + _column_offset(column, panel_bytes, zero)
            error = np.float64(load_element(outputs_at + at, zero) - load_element(targets_at + at, zero))
            sums[0, column] += abs(error)
            sums[1, column] += error * error


@njit(nogil=True, cache=True)
def evaluate(model, scratch, data, rows, sums, thread):
    """Evaluate this thread's share of the strips, and add the results to the sums."""
    one = element(1, model.zero)
    strips, block_rows = len(sums.losses), len(scratch.losses)
    own_strips = _share(strips, thread.number, thread.threads)
    for strip in range(own_strips.start, own_strips.stop):
        strip_rows = _share(rows, strip, strips)
        for block in range(strip_rows.start, strip_rows.stop, block_rows):
            order = np.arange(block, min(block + block_rows, strip_rows.stop))
            everything = Span(0, len(order))
            _forward_rows(model, scratch, data, order, everything)
            _gather_targets(model, scratch, data, order, everything)
            _loss_rows(model, scratch, data, order, everything, one)
            for row in range(len(order)):
                sums.losses[strip] += scratch.losses[row]
            if len(data.classes):
                classes = data.classes[block : block + len(order)]
                _count_classes(model, scratch, classes, sums.counts[thread.number])
            else:
                _add_errors(model, scratch, len(order), sums.errors[strip])
