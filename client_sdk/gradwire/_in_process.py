"""Trains in this process (at="local"), with the same engine and the same checks as a server."""

import sys
import warnings
from collections.abc import Callable

from gradwire._exceptions import FailedPreconditionError, InvalidArgumentError, JobFailedError
from gradwire._history import History
from gradwire._info import plan_of
from gradwire._job_request import JobRequest
from gradwire_engine.backend import Array
from gradwire_engine.plans import ForcedPlanError, NoGpuError
from gradwire_engine.spec.messages import execution_message
from gradwire_engine.spec.prepare import JobData, prepare
from gradwire_engine.training import Epoch, LossNotFiniteError, train
from gradwire_proto.v1.spec_pb2 import Dataset


def run_locally(request: JobRequest, on_epoch: Callable[[Epoch], None]) -> History:
    """Train all epochs, store the weights in the model, and return the history.

    Raises:
        FailedPreconditionError: The job requires a GPU, but there is no GPU.
        InvalidArgumentError: GRADWIRE_PLAN is not a valid plan name, or that plan cannot run here.
        JobFailedError: The loss became infinite or NaN.
        KeyboardInterrupt: The user pressed Ctrl-C. The model contains the weights after the last complete epoch.
    """
    spec = request.spec
    try:
        job = prepare(spec, _data(request), request.classification)
    except NoGpuError as error:
        raise FailedPreconditionError(str(error), reason="NO_GPU") from None
    except ForcedPlanError as error:
        raise InvalidArgumentError(str(error)) from None
    if job.chosen.warning:
        warnings.warn(job.chosen.warning, stacklevel=3)
    plan = job.chosen.plan
    history = History(plan=plan_of(execution_message(job.chosen)), seed=spec.seed)
    weights = None
    try:
        for epoch in train(plan, job.config, job.train_set, job.test_set):
            weights = plan.weights()
            history.epochs.append(epoch)
            on_epoch(epoch)
    except LossNotFiniteError as error:
        raise JobFailedError(str(error), reason="LOSS_NOT_FINITE", history=history) from None
    except KeyboardInterrupt:
        if weights is not None:
            request.traced.load(spec.model, weights)
            done = f"epoch {len(history)} of {spec.epochs}"
            print(f"\nInterrupted. The model has the weights of {done}.", file=sys.stderr)
        raise
    request.traced.load(spec.model, plan.weights())
    return history


def _data(request: JobRequest) -> JobData:
    spec = request.spec

    def pair(dataset: Dataset) -> tuple[Array, Array]:
        return request.array(dataset.inputs), request.array(dataset.targets)

    return JobData(
        train=pair(spec.train),
        test=pair(spec.test) if spec.HasField("test") else None,
        given_weights=request.array(spec.initial_weights) if spec.HasField("initial_weights") else None,
    )
