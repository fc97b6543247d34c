"""The server's command line: `gradwire serve`, or python -m gradwire_server."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

# Ray reads these variables when it is imported, and gRPC when it starts. Set them before the server is imported. gRPC
# would log each call that it rejects because its request is compressed.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

_DEFAULT_DATA = Path("gradwire-data")
# Only the user that runs the server can read the files that it creates.
_UMASK = 0o077
# The base class of BadParameter covers all usage errors, but Typer does not export it.
_UsageError: Any = typer.BadParameter.__mro__[1]


def _without_password(context: typer.Context, parameter: typer.CallbackParam, url: str | None) -> str | None:
    """Refuse a password in --store or --blobs on the command line, which all users of the machine can read."""
    name = str(parameter.name)
    source = context.get_parameter_source(name)
    if url and source is not None and source.name == "COMMANDLINE" and _has_password(name, url):
        typer.echo(
            f"gradwire serve: --{name} contains a password, which every user of this machine could read in the list of "
            f"processes. Set the URL in the environment variable GRADWIRE_{name.upper()} instead",
            err=True,
        )
        raise typer.Exit(2)
    return url


def _has_password(option: str, url: str) -> bool:
    if option == "blobs":
        from gradwire_worker.blob_urls import has_credentials  # noqa: PLC0415  (see below)

        return has_credentials(url)
    from gradwire_server.store.dialects import has_password  # noqa: PLC0415  (slow to import, and only needed here)

    return has_password(url)


def serve(
    host: Annotated[str, typer.Option(envvar="GRADWIRE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="GRADWIRE_PORT", help="Port to listen on. 0 selects a free port.")
    ] = 50051,
    http_port: Annotated[
        int | None,
        typer.Option(
            envvar="GRADWIRE_HTTP_PORT",
            help="Port for the web page and HTTP calls. 0 turns HTTP off. Default: --port plus 1 or, if that port is "
            "in use, any free port.",
            show_default=False,
        ),
    ] = None,
    http_hosts: Annotated[
        str,
        typer.Option(
            envvar="GRADWIRE_HTTP_HOSTS",
            help="Host names that browsers use for this server, separated by commas. localhost and IP addresses are "
            "always allowed.",
        ),
    ] = "",
    data: Annotated[
        Path, typer.Option(envvar="GRADWIRE_DATA", help="Folder for jobs, tensors and models.")
    ] = _DEFAULT_DATA,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="GRADWIRE_STORE",
            callback=_without_password,
            help="Database URL, for example postgresql://user@host/db. If it contains a password, set it in the "
            "environment variable. Default: a SQLite file in --data.",
        ),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            envvar="GRADWIRE_BLOBS",
            callback=_without_password,
            help="URL of the blob store, for fsspec. If it contains a password, set it in the environment variable. "
            "Default: a folder in --data.",
        ),
    ] = None,
    ray: Annotated[
        str,
        typer.Option(
            envvar="GRADWIRE_RAY",
            help="Ray cluster: local (start Ray on this machine), auto, or the address of a cluster.",
        ),
    ] = "local",
    cpus_per_job: Annotated[float, typer.Option(envvar="GRADWIRE_CPUS_PER_JOB", help="CPUs per job.")] = 1,
    gpus_per_job: Annotated[
        float, typer.Option(envvar="GRADWIRE_GPUS_PER_JOB", help="GPUs, or a fraction of one, per job that uses a GPU.")
    ] = 1,
    memory_per_job: Annotated[
        float,
        typer.Option(
            envvar="GRADWIRE_MEMORY_PER_JOB",
            help="Memory per job, in GiB. 0 selects an equal share of the node's memory.",
        ),
    ] = 0,
    max_log: Annotated[
        float, typer.Option(envvar="GRADWIRE_MAX_LOG", help="Maximum size of a job's events, in GiB.")
    ] = 10,
    max_tensors: Annotated[
        float,
        typer.Option(
            envvar="GRADWIRE_MAX_TENSORS",
            help="Maximum size of all stored tensors, in GiB. 0: limited only by the disk.",
        ),
    ] = 0,
    plan: Annotated[
        str,
        typer.Option(
            envvar="GRADWIRE_PLAN",
            help="The plan that workers must use: reference, compiled or cuda. Default: the fastest.",
        ),
    ] = "",
    tf32: Annotated[
        bool,
        typer.Option(
            envvar="GRADWIRE_TF32",
            help="Allow GPUs to use TF32, which is faster but has a 10-bit mantissa.",
        ),
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="GRADWIRE_TOKEN_FILE", help="File that contains the token. Alternatively, set GRADWIRE_TOKEN."
        ),
    ] = None,
    make_token: Annotated[
        bool,
        typer.Option(
            envvar="GRADWIRE_MAKE_TOKEN",
            help="If there is no token, create one in --token-file, or in the file `token` in --data.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="GRADWIRE_TLS_CERT", help="Certificate chain (PEM). Enables TLS.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="GRADWIRE_TLS_KEY", help="Private key of the certificate (PEM).")
    ] = None,
    socket: Annotated[
        str, typer.Option(envvar="GRADWIRE_SOCKET", help="Also listen on this Unix socket, without TLS.")
    ] = "",
    publish: Annotated[
        str,
        typer.Option(
            envvar="GRADWIRE_PUBLISH", help="Address at which clients reach a container, if it is not --host."
        ),
    ] = "",
    insecure: Annotated[
        bool, typer.Option(envvar="GRADWIRE_INSECURE", help="Allow other machines to connect without a token or TLS.")
    ] = False,
) -> None:
    """Run a gradwire server until SIGTERM or Ctrl-C."""
    from gradwire_server.log_limit import RepeatLimit, is_about_the_server  # noqa: PLC0415  (see above)
    from gradwire_server.settings import Settings, SettingsError, read_token  # noqa: PLC0415
    from gradwire_server.workers.local_ray import prepare_environment  # noqa: PLC0415

    os.umask(_UMASK)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_about_the_server)
        handler.addFilter(RepeatLimit())
    for library in ("ray", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        file = token_file or (data / "token" if make_token else None)
        settings = Settings(
            host=host,
            port=port,
            http_port=http_port,
            http_hosts=tuple(name.strip() for name in http_hosts.split(",") if name.strip()),
            data=data,
            store=store,
            blobs=blobs,
            ray=ray,
            token=read_token(os.environ.get("GRADWIRE_TOKEN"), file, make=make_token),
            insecure=insecure,
            tls_cert=tls_cert,
            tls_key=tls_key,
            socket=socket,
            publish=publish,
            plan=plan,
            tf32=tf32,
            cpus_per_job=cpus_per_job,
            gpus_per_job=gpus_per_job,
            memory_per_job=memory_per_job,
            max_log=max_log,
            max_tensors=max_tensors,
        )
        if ray == "local":
            prepare_environment(os.environ, data)
        connecting = "starting Ray ..." if ray == "local" else f"joining Ray at {ray} ..."
        from gradwire_server.app import run  # noqa: PLC0415  (see above)

        def on_ready(address: str, url: str | None) -> None:
            if url is not None:
                typer.echo(f"the web page is at {url}")
            typer.echo(f"gradwire is ready on {address}  (data in {data.resolve()})")

        run(settings, on_connecting=lambda: typer.echo(connecting), on_ready=on_ready)
    except SettingsError as error:
        typer.echo(f"gradwire serve: {error}", err=True)
        raise typer.Exit(2) from error


def main() -> None:
    """Run the command. A usage error is printed as one line on stderr."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        sys.exit(app(prog_name="gradwire serve", standalone_mode=False))
    except _UsageError as error:
        message = str(error.format_message()).rstrip(".")
        typer.echo(f"gradwire serve: {message[:1].lower()}{message[1:]}. See: gradwire serve --help", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
