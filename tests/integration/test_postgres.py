"""The store in a real Postgres, which the tests start themselves."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

import gradwire as gw
from gradwire import SGD, CrossEntropy

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


class Postgres:
    """A server of its own, in a folder of its own; run as another user where this one is root, as Postgres wants it."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.data = PROGRAMS[-1].parent, folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.prefix: list[str] = []
        if os.getuid() == 0:
            # By a program of its own: a process with gRPC's threads had better not be forked.
            self.prefix = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres", "postgres")
        self.folder = folder
        self.run("initdb", "-D", self.data, "-U", "gradwire", "-A", "trust", "-N")

    @property
    def url(self) -> str:
        return f"postgresql://gradwire:not-looked-at@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: object) -> None:
        command = [*self.prefix, str(self.bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def postgres():
    if not PROGRAMS:
        pytest.skip("Postgres is not there: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    running = Postgres(folder)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder)


def submit(client, digits, model, name, epochs=3):
    return client.submit(
        model,
        digits.train,
        test=digits.test,
        loss=CrossEntropy(),
        optimizer=SGD(model, lr=0.1),
        epochs=epochs,
        name=name,
    )


def test_jobs_events_and_models_live_in_postgres_and_outlive_the_server(postgres, tmp_path, digits, model):
    options = (f"--store={postgres.url}",)
    with gw.LocalServer(*options, data=tmp_path) as server, gw.Client(server.address) as client:
        job = submit(client, digits, model, "in-postgres")
        job.result()
        sequences = [event.sequence for event in job.events()]
        with pytest.raises(gw.AlreadyExistsError):
            submit(client, digits, model, "in-postgres")
        assert not (tmp_path / "gradwire.db").exists()
        assert "not-looked-at" not in server.log.read_text()
    with gw.LocalServer(*options, data=tmp_path) as server, gw.Client(server.address) as client:
        assert [event.sequence for event in client.job("in-postgres").events()] == sequences
        assert [found.name for found in client.jobs('name : "postgres"')] == ["in-postgres"]
        assert client.predict("in-postgres", digits.test[0]).shape == (360, 10)


def test_a_second_server_on_the_database_names_the_first(postgres, tmp_path):
    with (
        gw.LocalServer(f"--store={postgres.url}", data=tmp_path / "one") as first,
        pytest.raises(gw.UnavailableError, match=f"in use by another server: gradwire server .* {first.process.pid}"),
    ):
        gw.LocalServer(f"--store={postgres.url}", data=tmp_path / "two").start()


def test_a_job_survives_a_crash_of_postgres(postgres, tmp_path, digits, model):
    with gw.LocalServer(f"--store={postgres.url}", data=tmp_path) as server, gw.Client(server.address) as client:
        job = submit(client, digits, model, "through-a-crash", epochs=2000)
        seen = []
        for epoch in job.epochs():
            seen.append(epoch.epoch)
            if len(seen) == 50:
                postgres.stop()
                postgres.start()
        assert seen == list(range(1, 2001))
        assert job.refresh().state == "SUCCEEDED"
        assert server.process.poll() is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://somewhere/db", "must be a postgresql:// URL, got one that begins with mysql://"),
        ("not a url", "must be a URL"),
        (
            "postgresql://gradwire:secret@127.0.0.1:1/db",
            "postgresql://gradwire:***@127.0.0.1:1/db cannot be used as the store",
        ),
    ],
)
def test_a_store_that_cannot_be_used_is_named_without_its_password(tmp_path, url, said):
    with pytest.raises(gw.UnavailableError) as caught:
        gw.LocalServer(f"--store={url}", data=tmp_path).start()
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
