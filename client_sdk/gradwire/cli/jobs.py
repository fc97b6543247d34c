"""gradwire jobs: list, show, watch, pause, resume, cancel, delete."""

from typing import Annotated

import typer

from gradwire._client import Client
from gradwire._display import Display
from gradwire._exceptions import JobCancelledError, JobFailedError
from gradwire._info import JobInfo, epoch_text
from gradwire.cli.output import AsJson, At, Token, print_json, print_json_line, print_table, size, when

commands = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The job's name.")]


@commands.command("list")
def list_jobs(
    filter: Annotated[str, typer.Option(help="As 'state = RUNNING' or 'name : \"digits\"'.")] = "",  # noqa: A002
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 50,
    at: At = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with Client(at, token=token) as client:
        infos = [job.info for job in client.jobs(filter, limit)]
    if as_json:
        print_json(infos)
        return
    rows = [[info.name, info.state, info.layers, _progress(info), when(info.created)] for info in infos]
    print_table(["name", "state", "layers", "epochs", "created"], rows)


@commands.command()
def show(name: Name, at: At = None, token: Token = None, as_json: AsJson = False) -> None:
    """Show a job."""
    with Client(at, token=token) as client:
        info = client.job(name).info
    if as_json:
        print_json(info)
        return
    rows = [
        ["name", info.name],
        ["state", info.state],
        ["layers", info.layers],
        ["epochs", _progress(info)],
        ["attempt", str(info.attempt)],
        ["created", when(info.created)],
        ["started", when(info.started)],
        ["ended", when(info.ended)],
    ]
    if info.plan:
        rows += [
            ["plan", f"{info.plan.name}: {info.plan.reason}"],
            ["on", f"{info.plan.host}, {info.plan.device}, threads: {info.plan.threads}"],
        ]
    if info.last_epoch:
        rows.append(["last", epoch_text(info.last_epoch)])
    rows.append(["disk", f"log {size(info.log_bytes)}, checkpoints {size(info.checkpoint_bytes)}"])
    rows += [["error", info.error]] if info.error else []
    rows += [["model", info.model]] if info.model else []
    print_table(["", ""], rows)


@commands.command()
def watch(
    name: Name,
    events: Annotated[bool, typer.Option("--events", help="Everything that happens, not only epochs.")] = False,
    at: At = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Watch a job from its first epoch to its end; exits with 1 if it fails or is cancelled."""
    with Client(at, token=token) as client, Display(shown=not as_json and not events) as display:
        job = client.job(name)
        if events:
            for event in job.events():
                if as_json:
                    print_json_line(event)
                else:
                    typer.echo(f"{event.sequence:>5}  {when(event.time)}  {event.kind:<12}  {event.text}")
        else:
            for epoch in job.epochs():
                if as_json:
                    print_json_line(epoch)
                display.epoch(epoch)
        info = job.refresh()
    if info.state == "FAILED":
        raise JobFailedError(f"job {info.name} failed: {info.error}")
    if info.state == "CANCELLED":
        raise JobCancelledError(f"job {info.name} was cancelled")


@commands.command()
def cancel(name: Name, at: At = None, token: Token = None) -> None:
    """Cancel a job; one that has ended stays as it is."""
    with Client(at, token=token) as client:
        info = client.job(name).cancel()
    typer.echo(f"{info.name} is {info.state}")


@commands.command()
def pause(name: Name, at: At = None, token: Token = None) -> None:
    """Set a job aside; `resume` lets it go on."""
    with Client(at, token=token) as client:
        info = client.job(name).pause()
    typer.echo(f"{info.name} is {info.state}")


@commands.command()
def resume(name: Name, at: At = None, token: Token = None) -> None:
    """Let a paused job go on."""
    with Client(at, token=token) as client:
        info = client.job(name).resume()
    typer.echo(f"{info.name} is {info.state}")


@commands.command()
def delete(name: Name, at: At = None, token: Token = None) -> None:
    """Delete a job that has ended, and its events; its model stays."""
    with Client(at, token=token) as client:
        client.delete(name)
    typer.echo(f"{name} is deleted")


def _progress(info: JobInfo) -> str:
    return f"{info.last_epoch.epoch if info.last_epoch else 0}/{info.epochs}"
