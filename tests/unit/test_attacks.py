"""The report of the attacks: what counts as a failure, and how the progress of a job is measured."""

from collections import Counter

import pytest
from attacks.attacker import Attack, forever
from attacks.grpc_attacks import BASELINES, GRPC_ATTACKS
from attacks.http_attacks import HTTP_ATTACKS
from attacks.measuring import HEADING, Figures, progress

REFUSED = Attack("8 bodies of one byte", forever, refused=True)
HARMLESS = {
    "statuses": Counter(UNAUTHENTICATED=12_345),
    "innocent_ms": [5.0] * 99 + [40.0],
    "epochs_per_second": 100.0,
    "pause_seconds": 0.1,
    "peak_mb": 250.0,
}


def test_an_attack_that_harms_nobody_has_no_problem():
    figures = Figures(REFUSED, **HARMLESS)
    assert figures.problems() == []
    assert not figures.exceeds_an_aim()
    assert "UNAUTHENTICATED 12k" in figures.row()
    assert len(figures.row().partition("  UNAUTH")[0]) == len(HEADING.splitlines()[0].partition("  statuses")[0])


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ({"server_ended": True}, "the server has ended"),
        ({"attacker_failed": True}, "the attacker has failed"),
        ({"failures": ["GetJob ended with UNAVAILABLE: gone"]}, "GetJob ended with UNAVAILABLE: gone"),
        ({"innocent_ms": [5.0, 2001.0]}, "a GetJob took 2.00 s"),
        ({"innocent_ms": []}, "a GetJob took inf s"),
        ({"epochs_per_second": 0.0}, "the job stored no epoch for 0.1 s"),
        ({"pause_seconds": 3.5}, "the job stored no epoch for 3.5 s"),
        ({"statuses": Counter(OK=2)}, "the server accepted 2 calls that it must refuse"),
    ],
)
def test_each_harm_is_a_problem(harm, problem):
    assert Figures(REFUSED, **(HARMLESS | harm)).problems() == [f"8 bodies of one byte: {problem}"]


@pytest.mark.parametrize("harm", [{"innocent_ms": [5.0] * 90 + [60.0] * 10}, {"peak_mb": 601.0}])
def test_an_attack_that_exceeds_an_aim_is_marked_but_is_no_failure(harm):
    figures = Figures(REFUSED, **(HARMLESS | harm))
    assert figures.problems() == []
    assert "*" in figures.row()


def test_the_longest_pause_of_a_job_includes_the_time_after_its_last_epoch():
    assert progress([(10.0, 5), (11.0, 7), (12.0, 7), (14.0, 11)]) == (1.5, 3.0)
    assert progress([(10.0, 5), (11.0, 15), (20.0, 15)]) == (1.0, 9.0)
    assert progress([(10.0, 5)]) == (0.0, float("inf"))


def test_the_names_of_the_attacks_differ_and_fit_into_the_table():
    names = [attack.name for attack in [*BASELINES, *GRPC_ATTACKS, *HTTP_ATTACKS]]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 36 for name in names)
