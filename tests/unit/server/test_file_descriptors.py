"""File descriptors: the limit is raised, some are reserved, and running out of them is not a lost cluster."""

import asyncio
import errno
import resource

import pytest

from gradwire_server import file_descriptors
from gradwire_server.settings import Settings, SettingsError
from gradwire_server.workers import ray_cluster


@pytest.fixture
def limits(monkeypatch):
    """The soft limit and hard limit that this process appears to have. The real limits do not change."""
    current = {"soft": 1024, "hard": 1024}

    def set_limit(_kind, values):
        current["soft"], current["hard"] = values

    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (current["soft"], current["hard"]))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    return current


@pytest.mark.parametrize(
    ("hard", "soft_after"), [(1024, 1024), (20_000, 20_000), (10**6, 65_536), (resource.RLIM_INFINITY, 65_536)]
)
def test_the_soft_limit_is_raised_as_far_as_useful(limits, hard, soft_after):
    limits["hard"] = hard
    file_descriptors.raise_limit()
    assert limits == {"soft": soft_after, "hard": hard}
    assert file_descriptors.max_connections() <= soft_after - 512


def test_a_higher_soft_limit_stays(limits):
    limits |= {"soft": 10**6, "hard": 10**6}
    file_descriptors.raise_limit()
    assert limits["soft"] == 10**6


def test_a_server_that_could_open_too_few_files_does_not_start(limits):
    limits |= {"soft": 256, "hard": 256}
    with pytest.raises(SettingsError, match="only 256 files"):
        file_descriptors.raise_limit()


def test_running_out_of_descriptors_is_not_treated_as_a_lost_cluster(monkeypatch):
    failures = [errno.EMFILE] * 5 + [errno.ENFILE] * 5 + [errno.ECONNREFUSED] * 3
    checks = iter(failures)

    def check(_address):
        raise OSError(next(checks), "no")

    monkeypatch.setattr(ray_cluster, "_try_connect", check)
    monkeypatch.setattr(ray_cluster, "_CHECK_SECONDS", 0.01)
    with pytest.raises(ray_cluster.ClusterLostError):
        asyncio.run(asyncio.wait_for(ray_cluster.RayCluster(Settings()).watch(), 20))
    assert next(checks, None) is None
