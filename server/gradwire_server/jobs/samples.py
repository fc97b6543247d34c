"""Chooses epochs that represent many others."""

# Two of them are the ends of the range.
MIN_SAMPLE = 3


def sample(first: int, last: int, most: int, evaluate_every: int) -> list[int]:
    """Return evenly spaced epochs of a range, including the first and the last one.

    Args:
        first: The first epoch of the range.
        last: The last epoch of the range.
        most: The maximum number of epochs, at least MIN_SAMPLE.
        evaluate_every: Every n-th epoch is evaluated. If not all epochs of the range fit, only evaluated epochs are
            chosen between its ends.
    """
    number = last - first + 1
    if number <= most:
        return list(range(first, last + 1))
    # At most `most` - 2 multiples of the stride are in the range.
    stride = -(-number // (most - 2))
    stride = -(-stride // max(1, evaluate_every)) * max(1, evaluate_every)
    return sorted({first, last, *range(-(-first // stride) * stride, last + 1, stride)})
