"""at="local": the same job in this process, through the same engine and the same checks."""

import warnings
from collections.abc import Callable

from gradwire._exceptions import FailedPreconditionError, JobFailedError
from gradwire._history import History
from gradwire._info import plan_of
from gradwire._job_request import Submission
from gradwire_engine.plans import NoGpuError
from gradwire_engine.spec.messages import execution_message
from gradwire_engine.spec.prepare import prepare
from gradwire_engine.spec.resolve import network
from gradwire_engine.training import Epoch, LossNotFiniteError, train


def run_locally(submission: Submission, on_epoch: Callable[[Epoch], None]) -> History:
    """Train to the end; the weights land in the model and the history is returned."""
    try:
        job = prepare(submission.spec, submission.data(), submission.classification)
    except NoGpuError as error:
        raise FailedPreconditionError(str(error)) from error
    if job.chosen.warning:
        warnings.warn(job.chosen.warning, stacklevel=3)
    history = History(plan=plan_of(execution_message(job.chosen)))
    try:
        for epoch in train(job.chosen.plan, job.config, job.train_set, job.test_set):
            history.epochs.append(epoch)
            on_epoch(epoch)
    except LossNotFiniteError as error:
        failure = JobFailedError(str(error))
        failure.reason = "LOSS_NOT_FINITE"
        raise failure from error
    submission.traced.load_weights(job.chosen.plan.weights(), network(submission.spec.model))
    return history
