"""The names and epochs that users pass to the SDK."""

import numpy as np
import pytest

from gradwire import InvalidArgumentError
from gradwire._names import epoch_number, job_resource, model_resource


def test_a_name_can_have_its_collection():
    assert job_resource("digits") == job_resource("jobs/digits") == "jobs/digits"
    assert model_resource("digits") == model_resource("models/digits") == "models/digits"
    assert model_resource("jobs/digits") == "models/jobs/digits"  # The service says that there is no such model.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (5, "name: must be a string, got 5"),
        ("", "the name of a job, got ''"),
        ("jobs/", "the name of a job, got 'jobs/'"),
    ],
)
def test_what_is_not_a_name_is_refused(name, message):
    with pytest.raises(InvalidArgumentError, match=message):
        job_resource(name)


def test_an_epoch_is_a_positive_number():
    assert [epoch_number(epoch) for epoch in (None, 1, np.int64(7), 2**31 - 1)] == [0, 1, 7, 2**31 - 1]
    for epoch in (0, -1, 2**31, True, 1.0, "1"):
        with pytest.raises(InvalidArgumentError, match="at_epoch: must be the number of an epoch"):
            epoch_number(epoch, "at_epoch")
