"""`gradwire workers`, which lists the workers of a server and its queue."""

import typer

from gradwire._workers import WorkerInfo
from gradwire.cli.output import AsJson, At, Tls, Token, connect, print_json, print_table


def workers(at: At = None, token: Token = None, tls: Tls = None, as_json: AsJson = False) -> None:
    """List the workers, the jobs that they run, and the queue."""
    with connect(at, token, tls) as client:
        info = client.workers()
    if as_json:
        print_json(info)
        return
    rows = [["busy" if each.job else "idle", each.job or "", _place(each)] for each in info.workers]
    rows += [["queued", each.name, each.reason] for each in info.queue]
    if rows:
        print_table(["state", "job", "where or why"], rows)
    typer.echo(info.summary, err=True)
    if not info.complete:
        typer.echo("Another server schedules the jobs. Only that server knows the idle workers.", err=True)


def _place(worker: WorkerInfo) -> str:
    """Return where a worker is, and the attempt that it runs."""
    place = f"{worker.device} on {worker.host}" if worker.host else worker.device
    return ", ".join(filter(None, (place, f"attempt {worker.attempt}" if worker.job else "")))
