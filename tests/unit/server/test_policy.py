"""The policy that decides which jobs start next."""

from gradwire_server.scheduling.policy import next_jobs


def test_jobs_start_in_order_of_arrival_while_workers_are_free():
    queued = [("a", "cpu"), ("b", "cpu"), ("c", "gpu"), ("d", "cpu"), ("e", "gpu")]
    assert next_jobs(queued, {"cpu": 2, "gpu": 1}) == [("a", "cpu"), ("b", "cpu"), ("c", "gpu")]
    assert next_jobs(queued, {"cpu": 0, "gpu": 2}) == [("c", "gpu"), ("e", "gpu")]
    assert next_jobs([], {"cpu": 9, "gpu": 9}) == []
