"""Recognizes common problems in the curves of a job, and says what to try."""

from collections.abc import Sequence
from itertools import pairwise

from gradwire._curve import Curve
from gradwire_engine.training import Epoch

# A wrong hint is worse than no hint, so these limits are far from what a healthy job does.
_GROWTH = 1.5
_STANDSTILL = 0.005
_SOLVED_ACCURACY, _SOLVED_R2 = 0.8, 0.2
_OVERFIT_RISE, _OVERFIT_FALL = 1.2, 0.9
_OVERFIT_EPOCHS = 3


def hints(running: Curve, train: Curve, test: Curve, last: Epoch | None) -> list[str]:
    """Return suggestions based on the curves, or an empty list. The most important hint comes first.

    Args:
        running: The running loss of each epoch.
        train: The loss on the training set after each evaluated epoch.
        test: The loss on the test set after each evaluated epoch.
        last: The last epoch.
    """
    if _grows(running):
        return ["The loss grows from the start. Try a smaller learning rate, for example a tenth of it."]
    if _stands_still(running) and not _is_solved(last):
        return [
            "The loss hardly changes. Try a larger learning rate, and check that the inputs are scaled to about 0..1."
        ]
    parting = _parting(train, test)
    if parting is not None:
        return [
            f"After epoch {parting}, the loss falls on the training set and grows on the test set. Train for fewer "
            "epochs, on more rows, or with a smaller model."
        ]
    return []


def _grows(running: Curve) -> bool:
    losses = running.values
    if len(losses) < 3 or running.epochs[0] != 1:
        return False
    rising = sum(later > earlier for earlier, later in pairwise(losses))
    return min(losses) == losses[0] and losses[-1] > _GROWTH * losses[0] and 2 * rising > len(losses) - 1


def _stands_still(running: Curve) -> bool:
    losses = running.values
    if len(losses) < 5 or running.epochs[0] != 1:
        return False
    return max(losses) - min(losses) < _STANDSTILL * max(losses)


def _is_solved(last: Epoch | None) -> bool:
    metrics = None if last is None else last.train
    if metrics is None:
        return True  # There is no sign that the model is bad.
    if metrics.accuracy is not None:
        return metrics.accuracy > _SOLVED_ACCURACY
    return metrics.r2 is None or metrics.r2 > _SOLVED_R2


def _parting(train: Curve, test: Curve) -> int | None:
    """Return the epoch with the lowest test loss, if the test loss has risen since while the train loss has fallen."""
    if len(test) != len(train) or len(test) < 2 + _OVERFIT_EPOCHS:
        return None
    best = _lowest(test.values)
    rest = test.values[best + 1 :]
    if len(rest) < _OVERFIT_EPOCHS:
        return None
    grown = all(loss > _OVERFIT_RISE * test.values[best] for loss in rest[-_OVERFIT_EPOCHS:])
    fallen = train.values[-1] < _OVERFIT_FALL * train.values[best]
    return test.epochs[best] if grown and fallen else None


def _lowest(values: Sequence[float]) -> int:
    return min(range(len(values)), key=lambda index: (values[index] != values[index], values[index]))
