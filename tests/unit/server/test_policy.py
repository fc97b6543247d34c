"""The policy that decides which jobs start next."""

from gradwire_server.scheduling.policy import next_jobs, without_further_suspects


def test_jobs_start_in_order_of_arrival_while_workers_are_free():
    queued = [("a", "cpu"), ("b", "cpu"), ("c", "gpu"), ("d", "cpu"), ("e", "gpu")]
    assert next_jobs(queued, {"cpu": 2, "gpu": 1}) == [("a", "cpu"), ("b", "cpu"), ("c", "gpu")]
    assert next_jobs(queued, {"cpu": 0, "gpu": 2}) == [("c", "gpu"), ("e", "gpu")]
    assert next_jobs([], {"cpu": 9, "gpu": 9}) == []


def test_suspects_run_one_at_a_time_while_other_jobs_run():
    queued = [(name, "cpu") for name in ("a", "bad 1", "b", "bad 2")]

    def names(*, suspect_runs):
        left = without_further_suspects(queued, lambda name: "bad" in name, suspect_runs=suspect_runs)
        return [name for name, _ in left]

    assert names(suspect_runs=False) == ["a", "bad 1", "b"]
    assert names(suspect_runs=True) == ["a", "b"]
