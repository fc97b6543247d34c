"""Chooses the epochs that stand for many."""

# Two of them are the ends of the range.
MIN_SAMPLE = 3


def sample(first: int, last: int, most: int, evaluate_every: int) -> list[int]:
    """Return evenly spaced epochs of a range, with its first and its last.

    Args:
        first: The first epoch of the range.
        last: The last epoch of the range.
        most: The maximum number of epochs, at least MIN_SAMPLE.
        evaluate_every: Every n-th epoch is evaluated. If not all epochs of the range fit, those between its ends are
            evaluated ones.
    """
    number = last - first + 1
    if number <= most:
        return list(range(first, last + 1))
    # At most `most` - 2 multiples of the stride are in the range.
    stride = -(-number // (most - 2))
    stride = -(-stride // max(1, evaluate_every)) * max(1, evaluate_every)
    return sorted({first, last, *range(-(-first // stride) * stride, last + 1, stride)})
