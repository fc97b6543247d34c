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
from gradwire_engine.spec.stopping import rules_of
from gradwire_engine.stopping import TrainingControl
from gradwire_engine.training import Epoch, LossNotFiniteError, train
from gradwire_proto.v1.spec_pb2 import Dataset


def run_locally(request: JobRequest, on_epoch: Callable[[Epoch], bool]) -> History:
    """Train until the last epoch or until a stopping rule applies, and store the weights in the model.

    Args:
        request: The job.
        on_epoch: A function that is called with each epoch, and returns whether training continues.

    Returns:
        The history.

    Raises:
        FailedPreconditionError: The job requires a GPU, but there is no GPU.
        InvalidArgumentError: GRADWIRE_PLAN is not a valid plan name, or that plan cannot run here.
        JobFailedError: The loss became infinite or NaN.
        KeyboardInterrupt: The user pressed Ctrl-C. The model contains the weights after the last complete epoch, or
            those of the best epoch if early stopping restores them.
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
    control = TrainingControl(rules_of(spec))
    weights: Array | None = None

    def result() -> Array | None:
        best = control.take_best()
        return best[1] if best is not None and control.rules.restore_best else weights

    try:
        for epoch in train(plan, job.config, job.train_set, job.test_set):
            weights = plan.weights()
            history.epochs.append(epoch)
            control.add(epoch, plan.weights)
            continues = on_epoch(epoch)
            history.stop_reason = control.stop_reason(epoch.epoch, requested=not continues)
            if history.stop_reason:
                break
    except LossNotFiniteError as error:
        raise JobFailedError(str(error), reason="LOSS_NOT_FINITE", history=history) from None
    except KeyboardInterrupt:
        loaded = result()
        if loaded is not None:
            request.traced.load(spec.model, loaded)
            done = f"epoch {control.progress.result_epoch(control.rules)} of {spec.epochs}"
            print(f"\nInterrupted. The model has the weights of {done}.", file=sys.stderr)
        raise
    loaded = result()
    assert loaded is not None, "there is at least one epoch"
    request.traced.load(spec.model, loaded)
    history.model_epoch = control.progress.result_epoch(control.rules)
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
