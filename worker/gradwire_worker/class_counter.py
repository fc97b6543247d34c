"""Counts the classes that the weights of a job predict, whenever the weights are kept."""

from collections.abc import Callable

from gradwire_engine.backend import Array, gpu_module
from gradwire_engine.class_counts import MAX_COUNTED_CLASSES, count_classes
from gradwire_engine.spec.messages import class_counts_message
from gradwire_engine.spec.prepare import PreparedJob
from gradwire_engine.spec.resolve import network
from gradwire_engine.training import StoppedError
from gradwire_proto.v1.metrics_pb2 import EvaluationSet
from gradwire_proto.v1.spec_pb2 import JobSpec


class ClassCounter:
    """Counts the rows of the test set, or of the training set if there is no test set.

    Args:
        spec: The resolved spec of the job.
        job: The job, on the device that trains it.
        should_stop: A function that returns whether to stop.
    """

    def __init__(self, spec: JobSpec, job: PreparedJob, should_stop: Callable[[], bool]) -> None:
        self._network = network(spec.model)
        self._examples = job.test_set or job.train_set
        self._evaluated_on = EvaluationSet.EVALUATION_SET_TEST if job.test_set else EvaluationSet.EVALUATION_SET_TRAIN
        self._gpu = gpu_module()[0] if job.chosen.device == "gpu" else None
        self._should_stop = should_stop

    def count(self, epoch: int, weights: Array) -> bytes | None:
        """Return a serialized ClassCounts for the weights after an epoch.

        Returns None if the job is not a classifier, or has too many classes.

        Raises:
            StoppedError: should_stop() returned true.
        """
        if not self._examples.classification or self._network.out_features > MAX_COUNTED_CLASSES:
            return None
        vector = weights if self._gpu is None else self._gpu.asarray(weights)
        counts = count_classes(self._network, vector, self._examples, self._check_stop)
        return class_counts_message(counts, self._evaluated_on, epoch).SerializeToString()

    def _check_stop(self) -> None:
        if self._should_stop():
            raise StoppedError
