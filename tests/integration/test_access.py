"""Tokens and TLS: which clients can use a server, and the errors that other clients get."""

import subprocess

import grpc
import pytest

import gradwire as gw


@pytest.fixture(scope="module")
def tls_server(certificate, tmp_path_factory):
    cert, key = certificate
    data = tmp_path_factory.mktemp("tls-data")
    # Create files with the modes that an older version used.
    (data / "blobs").mkdir()
    (data / "blobs" / "old").touch()
    for path, mode in ((data / "blobs" / "old", 0o644), (data / "blobs", 0o755), (data, 0o755)):
        path.chmod(mode)
    options = (f"--tls-cert={cert}", f"--tls-key={key}", "--make-token")
    with gw.LocalServer(*options, data=data) as server:
        yield server


@pytest.fixture(scope="module")
def token(tls_server):
    return (tls_server.data / "token").read_text().strip()


def test_a_token_is_created_once_and_only_its_owner_can_read_it(tls_server, token):
    file = tls_server.data / "token"
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in tls_server.log.read_text()


def test_a_data_folder_of_an_older_version_becomes_private(tls_server):
    paths = (tls_server.data, tls_server.data / "blobs", tls_server.data / "blobs" / "old")
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o700, 0o700, 0o600]


def test_a_job_runs_through_tls_with_a_token(tls_server, token, certificate, digits, model):
    history = gw.fit(
        model, digits.train, loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=1, at=tls_server.address,
        token=token, tls=certificate[0],
    )  # fmt: skip
    assert history.epochs[-1].train.accuracy > 0.1


def test_tls_and_the_token_can_come_from_the_environment(tls_server, token, certificate, monkeypatch):
    monkeypatch.setenv("GRADWIRE_TLS", str(certificate[0]))
    monkeypatch.setenv("GRADWIRE_TOKEN", token)
    with gw.Client(tls_server.address) as client:
        assert isinstance(client.jobs.list(), list)


def test_a_client_without_tls_or_a_trusted_certificate_gets_a_clear_error(tls_server, token):
    with (
        gw.Client(tls_server.address, token=token, tls=True) as client,
        pytest.raises(gw.UnavailableError, match="with TLS"),
    ):
        client.jobs.list()
    with gw.Client(tls_server.address, token=token) as client, pytest.raises(gw.UnavailableError, match="without TLS"):
        client.jobs.list()


def test_a_wrong_token_is_refused_through_tls(tls_server, certificate):
    wrong = gw.Client(tls_server.address, token="wrong", tls=certificate[0])
    with wrong as client, pytest.raises(gw.UnauthenticatedError, match="token"):
        client.jobs.list()


def test_an_http_1_request_does_not_disturb_the_server(server):
    """The server closes the connection and continues to run."""
    host, port = server.address.rsplit(":", 1)
    subprocess.run(
        ["bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3; timeout 5 cat <&3"],
        capture_output=True,
        check=False,
    )
    with grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(60)
