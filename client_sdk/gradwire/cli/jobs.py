"""`gradwire jobs`, which lists, shows, watches, pauses, resumes, stops, cancels and deletes jobs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gradwire._display import Display
from gradwire._exceptions import GradwireError, JobCancelledError, JobFailedError, NotFoundError
from gradwire._follow import follow
from gradwire._info import ENDED, JobEvent, JobInfo, epoch_text, job_event
from gradwire._job import Job
from gradwire.cli.output import (
    AsJson,
    At,
    Format,
    KeptEpoch,
    Output,
    Tls,
    Token,
    connect,
    epochs_text,
    labels_text,
    print_json,
    print_json_line,
    print_table,
    when,
)
from gradwire_engine.formatting import size_text
from gradwire_engine.training import Epoch

commands = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name of the job.")]


@commands.command("list")
def list_jobs(
    filter: Annotated[  # noqa: A002
        str | None,
        typer.Option(
            help="Conditions joined by AND, for example 'state = RUNNING', 'name : \"digits\"' (contains), "
            "'labels.team = \"vision\"', 'labels : team' (has the label) or 'test.loss < 0.1' (a metric of the last "
            "epoch, with <, <=, > or >=)."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of jobs.")] = 50,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connect(at, token, tls) as client:
        infos = [job.info for job in client.jobs.list(filter, limit)]
    if as_json:
        print_json(infos)
        return
    rows = [
        [info.name, info.state, info.architecture, _progress(info), when(info.created), labels_text(info.labels)]
        for info in infos
    ]
    print_table(["name", "state", "architecture", "epochs", "created", "labels"], rows)


@commands.command()
def show(name: Name, at: At = None, token: Token = None, tls: Tls = None, as_json: AsJson = False) -> None:
    """Show a job."""
    with connect(at, token, tls) as client:
        info = client.jobs.get(name).info
    if as_json:
        print_json(info)
        return
    rows = [
        ["name", info.name],
        ["state", info.state],
        ["architecture", info.architecture],
        ["epochs", _progress(info)],
        ["attempt", str(info.attempt)],
        ["created", when(info.created)],
        ["started", when(info.started)],
        ["ended", when(info.ended)],
    ]
    rows += [["labels", labels_text(info.labels)]] if info.labels else []
    if info.plan:
        rows += [
            ["plan", f"{info.plan.name}: {info.plan.reason}"],
            ["host", f"{info.plan.host}, {info.plan.device}, threads: {info.plan.threads}"],
        ]
    rows += [["last epoch", epoch_text(info.last_epoch)]] if info.last_epoch else []
    rows += [["best epoch", epoch_text(info.best_epoch)]] if info.best_epoch else []
    rows += [["kept epochs", epochs_text(info.kept_epochs)]] if info.kept_epochs else []
    rows += [["stopped by", info.stop_reason]] if info.stop_reason else []
    rows.append(["disk", f"log {size_text(info.log_bytes)}, checkpoints {size_text(info.checkpoint_bytes)}"])
    rows += [["error", info.error]] if info.error else []
    rows += [["model", info.model]] if info.model else []
    print_table(["", ""], rows)


@commands.command()
def watch(
    names: Annotated[list[str], typer.Argument(help="The jobs' names.")],
    events: Annotated[bool, typer.Option("--events", help="Show all events, not only epochs.")] = False,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
    as_json: AsJson = False,
) -> None:
    """Watch jobs from their first epoch to their end. The exit code is 1 if one of them fails or is cancelled."""
    with connect(at, token, tls) as client:
        jobs = [client.jobs.get(name) for name in dict.fromkeys(names)]
        for job in jobs:
            if job.status == "PAUSED":
                typer.echo(f"{job.name} is paused. To resume it: gradwire jobs resume {job.name}", err=True)
        if events:
            _watch_events(jobs, as_json)
        else:
            _watch_epochs(jobs, as_json)
        errors = [error for job in jobs if (error := _error_of(job.refresh()))]
    for error in errors[:-1]:
        typer.echo(f"gradwire: {error}", err=True)
    if errors:
        raise errors[-1]


@commands.command()
def stop(name: Name, at: At = None, token: Token = None, tls: Tls = None) -> None:
    """End a job after the epoch that it is training, and keep its model."""
    with connect(at, token, tls) as client:
        info = client.jobs.get(name).stop()
    ends = "" if info.state in ENDED else " and ends after this epoch"
    typer.echo(f"{info.name} is {info.state}{ends}")


@commands.command()
def cancel(name: Name, at: At = None, token: Token = None, tls: Tls = None) -> None:
    """Cancel a job. If the job has ended, this has no effect."""
    with connect(at, token, tls) as client:
        info = client.jobs.get(name).cancel()
    typer.echo(f"{info.name} is {info.state}")


@commands.command()
def pause(name: Name, at: At = None, token: Token = None, tls: Tls = None) -> None:
    """Pause a job. To resume it, use `gradwire jobs resume`."""
    with connect(at, token, tls) as client:
        info = client.jobs.get(name).pause()
    typer.echo(f"{info.name} is {info.state}")


@commands.command()
def resume(name: Name, at: At = None, token: Token = None, tls: Tls = None) -> None:
    """Resume a paused job."""
    with connect(at, token, tls) as client:
        info = client.jobs.get(name).resume()
    typer.echo(f"{info.name} is {info.state}")


@commands.command()
def download(  # noqa: PLR0917  (each is an option of the command)
    name: Name,
    output: Output = Path(),
    format: Format = None,  # noqa: A002
    epoch: KeptEpoch = None,
    at: At = None,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Download the model of a job, or the last checkpoint of a job that failed or was cancelled."""
    with connect(at, token, tls) as client, Display() as display:
        path = client.jobs.get(name).download(output, format, epoch, on_download_progress=display.downloaded)
    typer.echo(f"wrote {path}")


@commands.command()
def delete(
    names: Annotated[list[str], typer.Argument(help="The names of the jobs.")],
    at: At = None,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Delete jobs that have ended, and their events. Their models are kept."""
    with connect(at, token, tls) as client:
        for name in names:
            try:
                client.jobs.get(name).delete()
            except NotFoundError as error:
                typer.echo(f"gradwire: {error}", err=True)
            else:
                typer.echo(f"deleted {name}")


def _error_of(info: JobInfo) -> GradwireError | None:
    """Return the error of a job that did not succeed."""
    if info.state == "FAILED":
        return JobFailedError(f"job {info.name!r} failed: {info.error}", job=info.name, reason=info.error_reason)
    if info.state == "CANCELLED":
        return JobCancelledError(f"job {info.name!r} was cancelled", job=info.name)
    return None


def _watch_events(jobs: list[Job], as_json: bool) -> None:
    for update in follow(jobs, ask=False):
        if update.event is None:
            continue
        name, event = jobs[update.job].name, job_event(update.event)
        if as_json:
            print_json_line(_with_name(jobs, name, event))
        else:
            prefix = f"{name}  " if len(jobs) > 1 else ""
            typer.echo(f"{prefix}{event.sequence:>5}  {when(event.time)}  {event.kind:<12}  {event.text}")


def _watch_epochs(jobs: list[Job], as_json: bool) -> None:
    with Display(shown=not as_json) as display:
        for job, epoch in display.follow(*jobs):
            if as_json:
                print_json_line(_with_name(jobs, job.name, epoch))


def _with_name(jobs: list[Job], name: str, value: JobEvent | Epoch) -> object:
    """Return a value or, if there are several jobs, the name of its job and its fields."""
    return value if len(jobs) == 1 else {"job": name, **asdict(value)}


def _progress(info: JobInfo) -> str:
    return f"{info.epochs_done}/{info.epochs}"
