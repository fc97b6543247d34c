"""Makes epochs with given losses, for tests of what a user sees."""

from collections.abc import Sequence

from gradwire import Epoch, Metrics


def epoch(number: int, train: float | None, test: float | None = None, **changes: float | None) -> Epoch:
    """Return an epoch. `changes` are additional metrics of both sets, for example accuracy=0.5."""
    sets = [None if loss is None else Metrics(loss=loss, **changes) for loss in (train, test)]
    return Epoch(number, 1.0 if train is None else train, *sets, train_seconds=0.01, evaluate_seconds=0.002)


def epochs(train: Sequence[float], test: Sequence[float | None] | None = None, **changes: float | None) -> list[Epoch]:
    """Return an epoch for each loss on the training set."""
    pairs = zip(train, test or [None] * len(train), strict=True)
    return [epoch(number, *pair, **changes) for number, pair in enumerate(pairs, start=1)]
