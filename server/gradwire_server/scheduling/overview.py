"""Describes the workers and the queue: which jobs run where, which workers are idle, and why jobs wait.

Every server can read from the database which jobs run and which are queued. Only the scheduling server knows the idle
workers and why a job waits.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from gradwire_engine.formatting import plural
from gradwire_engine.spec.messages import host_name
from gradwire_proto.v1.training_service_pb2 import JobState, ListWorkersResponse, QueuedJob, Worker
from gradwire_server.jobs.attempt_records import is_suspect
from gradwire_server.principal import Principal
from gradwire_server.scheduling.leader import Leader
from gradwire_server.store import job_queries
from gradwire_server.store.database import Database
from gradwire_server.store.job_queries import JobRecord
from gradwire_server.workers.pool import WorkerPool

_MAX_WORKERS = 1000
_MAX_QUEUED = 100
_QUEUED, _STARTING, _RUNNING = JobState.JOB_STATE_QUEUED, JobState.JOB_STATE_STARTING, JobState.JOB_STATE_RUNNING


class ClusterOverview:
    """Describes the workers and the queue."""

    def __init__(self, database: Database, leader: Leader, pool: WorkerPool) -> None:
        self._database = database
        self._leader = leader
        self._pool = pool

    async def get(self, _principal: Principal) -> ListWorkersResponse:
        """Return the workers and the first queued jobs. On a server that does not schedule, it is not complete."""
        active, queued, counts = await self._database.read(_stored_jobs)
        response = ListWorkersResponse(
            workers=[_busy_worker(record) for record in active[:_MAX_WORKERS]],
            busy_workers=counts[_STARTING] + counts[_RUNNING],
            queue_length=counts[_QUEUED],
        )
        scheduler = self._leader.scheduler
        if scheduler is None:
            reasons = [_reason("waits for a worker", earlier) for earlier in range(len(queued))]
        else:
            idle = self._pool.idle()
            room = _MAX_WORKERS - len(response.workers)
            response.workers.extend(Worker(device=each.device, host=each.host) for each in idle[:room])
            response.idle_workers, response.startable_workers = len(idle), self._pool.startable()
            response.complete = True
            reasons = wait_reasons(
                queued, self._pool, scheduler.followed, suspect_runs=any(is_suspect(record) for record in active)
            )
        for record, reason in zip(queued, reasons, strict=True):
            response.queued_jobs.append(
                QueuedJob(name=record.job.name, create_time=record.job.create_time, reason=reason)
            )
        return response


def wait_reasons(
    queued: Sequence[JobRecord], pool: WorkerPool, followed: Collection[int], *, suspect_runs: bool
) -> list[str]:
    """Return why each job in the queue waits, following the rules in `policy`.

    Args:
        queued: The queued jobs in order of arrival.
        pool: The workers.
        followed: The keys of the jobs for which a worker has been requested.
        suspect_runs: Whether a job that may have crashed the server is running.
    """
    reasons = []
    earlier: Counter[str] = Counter()
    for record in queued:
        device = pool.device_for(record.job.spec.device)
        if record.job_key in followed:
            reasons.append("a worker is starting for it")
            continue
        if is_suspect(record) and suspect_runs:
            reasons.append("it may have crashed the server, so it runs when no other such job runs")
            continue
        suspect_runs |= is_suspect(record)
        if not pool.capacity(device):
            reasons.append(f"the cluster has no room for a {device.upper()} worker")
        elif pool.free(device) > earlier[device]:
            reasons.append("it starts now")
        else:
            reasons.append(_reason(f"all {device.upper()} workers are busy", earlier[device] - pool.free(device)))
        earlier[device] += 1
    return reasons


def _reason(text: str, earlier: int) -> str:
    """Return a reason, with the number of jobs that are ahead in the queue."""
    return f"{text}, {plural(earlier, 'job')} before it" if earlier else text


def _stored_jobs(connection: Connection) -> tuple[list[JobRecord], list[JobRecord], Counter[int]]:
    """Return the first active jobs, the first queued jobs, and the number of jobs in each of these states."""
    active = [
        record for state in (_RUNNING, _STARTING) for record in job_queries.first_jobs(connection, state, _MAX_WORKERS)
    ]
    counts = job_queries.count_jobs(connection, (_QUEUED, _STARTING, _RUNNING))
    return active, job_queries.first_jobs(connection, _QUEUED, _MAX_QUEUED), counts


def _busy_worker(record: JobRecord) -> Worker:
    job = record.job
    worker = Worker(job=job.name, attempt=job.attempt)
    if job.state == _RUNNING:  # Before that, the execution is that of an earlier attempt.
        worker.device, worker.host = job.execution.device, host_name(job.execution)
    return worker
