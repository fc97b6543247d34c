"""Tokens and TLS: who may speak to a server, and what is said to who may not."""

import subprocess
from pathlib import Path

import grpc
import pytest

import gradwire as gw
from gradwire._transport import Access, Transport


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", cert]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def tls_server(certificate, tmp_path_factory):
    cert, key = certificate
    data = tmp_path_factory.mktemp("tls-data")
    options = (f"--tls-cert={cert}", f"--tls-key={key}", "--make-token")
    with gw.LocalServer(*options, data=data) as server:
        yield server


@pytest.fixture(scope="module")
def token(tls_server):
    return (tls_server.data / "token").read_text().strip()


def test_a_token_is_made_once_for_its_owner_alone(tls_server, token):
    file = tls_server.data / "token"
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in tls_server.log.read_text()


def test_a_job_runs_through_tls_with_a_token(tls_server, token, certificate, digits, model):
    history = gw.fit(
        model, digits.train, loss=gw.CrossEntropy(), optimizer=gw.SGD(model), epochs=1, at=tls_server.address,
        token=token, tls=certificate[0],
    )  # fmt: skip
    assert history.epochs[-1].train.accuracy > 0.1


def test_tls_comes_from_the_environment_too(tls_server, token, certificate, monkeypatch):
    monkeypatch.setenv("GRADWIRE_TLS", str(certificate[0]))
    monkeypatch.setenv("GRADWIRE_TOKEN", token)
    with gw.Client(tls_server.address) as client:
        assert isinstance(client.jobs(), list)


def test_a_client_that_does_not_trust_the_certificate_or_speaks_plainly_is_told(tls_server, token):
    with (
        gw.Client(tls_server.address, token=token, tls=True) as client,
        pytest.raises(gw.UnavailableError, match="with TLS"),
    ):
        client.jobs()
    with gw.Client(tls_server.address, token=token) as client, pytest.raises(gw.UnavailableError, match="without TLS"):
        client.jobs()


def test_a_wrong_token_is_refused_through_tls(tls_server, certificate):
    wrong = gw.Client(tls_server.address, token="wrong", tls=certificate[0])
    with wrong as client, pytest.raises(gw.UnauthenticatedError, match="not this server's"):
        client.jobs()


@pytest.mark.parametrize("address", ["example.org:50051", "192.0.2.1:50051", "[2001:db8::1]:50051"])
def test_a_token_does_not_go_to_another_machine_in_the_clear(address):
    with pytest.raises(gw.InvalidArgumentError, match="refusing to send the token in the clear"):
        Transport(address, Access(token="secret"))
    Transport(address, Access(token="secret", insecure=True))
    Transport(address, Access(token="secret", tls=True))
    Transport(address, Access())


@pytest.mark.parametrize("address", ["localhost:50051", "127.0.0.1:50051", "[::1]:50051", "unix:/run/gradwire.sock"])
def test_on_this_machine_a_token_may_go_in_the_clear(address):
    Transport(address, Access(token="secret"))


def test_certificates_that_are_not_there_are_named():
    with pytest.raises(gw.InvalidArgumentError, match=r"a file of certificates.*nowhere"):
        gw.Client("localhost:1", tls="/nowhere/ca.pem")


def test_a_client_that_does_not_speak_grpc_does_no_harm(server):
    """HTTP/1.1 on the port: the connection is closed, and the server goes on."""
    host, port = server.address.rsplit(":", 1)
    subprocess.run(
        ["bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}; printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3; timeout 5 cat <&3"],
        capture_output=True,
        check=False,
    )
    with grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(10)
