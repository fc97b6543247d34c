"""Which jobs start next, as pure policy."""

from gradwire_server.scheduling.loop import next_jobs


def test_jobs_start_in_order_of_arrival_as_far_as_there_is_room():
    queued = [("a", "cpu"), ("b", "cpu"), ("c", "gpu"), ("d", "cpu"), ("e", "gpu")]
    assert next_jobs(queued, {"cpu": 2, "gpu": 1}) == [("a", "cpu"), ("b", "cpu"), ("c", "gpu")]
    assert next_jobs(queued, {"cpu": 0, "gpu": 2}) == [("c", "gpu"), ("e", "gpu")]
    assert next_jobs([], {"cpu": 9, "gpu": 9}) == []
