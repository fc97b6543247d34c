"""The metrics of a job's last epoch, which are stored in columns of their own so that filters can refer to them."""

import math

from gradwire_proto.v1.metrics_pb2 import Epoch

_SETS = ("train", "test")
# The fields of gradwire.v1.Metrics.
_METRICS = ("loss", "accuracy", "precision", "recall", "f1", "mean_absolute_error", "r2")

# The column of each metric, keyed by its name in filters, for example "test.loss".
METRIC_COLUMNS = {
    "running_loss": "running_loss",
    **{f"{which}.{metric}": f"{which}_{metric}" for which in _SETS for metric in _METRICS},
}


def metric_values(epoch: Epoch | None) -> dict[str, float | None]:
    """Return the value of every metric column. Metrics that the epoch does not have are None, and so is NaN."""
    values: dict[str, float | None] = dict.fromkeys(METRIC_COLUMNS.values())
    if epoch is None:
        return values
    values["running_loss"] = _comparable(epoch.running_loss)
    for which in _SETS:
        if epoch.HasField(which):
            metrics = getattr(epoch, which)
            # The loss has no presence: an evaluated epoch always has one.
            values[f"{which}_loss"] = _comparable(metrics.loss)
            for metric in _METRICS[1:]:
                if metrics.HasField(metric):
                    values[f"{which}_{metric}"] = _comparable(getattr(metrics, metric))
    return values


def _comparable(value: float) -> float | None:
    # For Postgres, NaN is larger than all numbers. SQLite stores NaN as NULL.
    return None if math.isnan(value) else value
