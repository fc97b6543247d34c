"""The address, token and TLS settings of a client, before it connects."""

import pytest

import gradwire as gw
from gradwire._access import Access, checked_address
from gradwire._transport import Transport


@pytest.fixture(autouse=True)
def _no_settings_from_the_environment(monkeypatch):
    for variable in ("GRADWIRE_ADDRESS", "GRADWIRE_TOKEN", "GRADWIRE_TOKEN_FILE", "GRADWIRE_TLS", "GRADWIRE_INSECURE"):
        monkeypatch.delenv(variable, raising=False)


def test_a_client_without_an_address_says_what_to_set():
    with pytest.raises(gw.InvalidArgumentError, match="GRADWIRE_ADDRESS"):
        gw.Client()


def test_an_address_can_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("GRADWIRE_ADDRESS", "example.org:1")
    assert checked_address(None) == "example.org:1"
    assert checked_address("example.org:2") == "example.org:2"


@pytest.mark.parametrize(
    "address",
    ["localhost:65535", "127.0.0.1:1", "[::1]:50051", "host-1.example.org:443", "unix:/run/x.sock", "dns:///host:1"],
)
def test_grpc_addresses_are_accepted(address):
    assert checked_address(address) == address


@pytest.mark.parametrize(
    ("address", "example"),
    [
        ("localhost", "localhost:50051"),
        ("http://localhost:50051", "localhost:50051"),
        ("https://example.org/path", "example.org:50051"),
        ("host:port", "host:50051"),
        ("a b:1", "a b:50051"),
    ],
)
def test_other_addresses_are_refused_immediately_with_an_example(address, example):
    with pytest.raises(
        gw.InvalidArgumentError, match=f"does not have the form host:port. Use, for example, '{example}'"
    ):
        gw.Client(address)


@pytest.mark.parametrize(
    "address",
    [
        "example.org:50051",
        "www.example.org:1",
        "192.0.2.1:50051",
        "[2001:db8::1]:50051",
        "localhost.example.org:50051",
        "127.0.0.1.example.org:50051",
        "dns:///localhost.example.org:50051",
        "unix.example.org:50051",
    ],
)
def test_a_token_is_not_sent_to_another_machine_without_tls(address):
    with pytest.raises(gw.InvalidArgumentError, match=r"refusing to send the token .* without TLS"):
        Transport(address, Access(token="secret"))
    Transport(address, Access(token="secret", insecure=True))
    Transport(address, Access(token="secret", tls=True))
    Transport(address, Access())


@pytest.mark.parametrize("address", ["localhost:50051", "127.0.0.1:50051", "[::1]:50051", "unix:/run/gradwire.sock"])
def test_a_token_needs_no_tls_on_this_machine(address):
    Transport(address, Access(token="secret"))


@pytest.mark.parametrize(("variable", "allowed"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_can_allow_a_token_without_tls(monkeypatch, variable, allowed):
    monkeypatch.setenv("GRADWIRE_INSECURE", variable)
    metadata = (("authorization", "Bearer secret"),)
    if allowed:
        assert Access(token="secret").metadata("example.org:50051", encrypted=False) == metadata
    else:
        with pytest.raises(gw.InvalidArgumentError, match="GRADWIRE_INSECURE=1"):
            Access(token="secret").metadata("example.org:50051", encrypted=False)
    with pytest.raises(gw.InvalidArgumentError, match="without TLS"):
        Access(token="secret", insecure=False).metadata("example.org:50051", encrypted=False)


def test_missing_certificates_are_named():
    with pytest.raises(gw.InvalidArgumentError, match=r"tls: cannot read /nowhere/ca\.pem: No such file"):
        gw.Client("localhost:1", tls="/nowhere/ca.pem")


def test_the_token_can_come_from_a_file(monkeypatch, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("GRADWIRE_TOKEN_FILE", str(tmp_path / "token"))
    assert Access().metadata("localhost:1", encrypted=False) == (("authorization", "Bearer secret"),)
    monkeypatch.setenv("GRADWIRE_TOKEN_FILE", str(tmp_path / "nothing"))
    with pytest.raises(gw.InvalidArgumentError, match="cannot read GRADWIRE_TOKEN_FILE"):
        gw.Client("localhost:1")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (50051, "the address must be text, for example 'localhost:50051', got 50051"),
        ("local", "stands for training without a server, but this needs one. Use its host:port"),
        ("localhost:99999", "has a port above 65535"),
        ("[::1]:65536", "has a port above 65535"),
    ],
)
def test_unusable_addresses_are_refused_immediately(address, message):
    with pytest.raises(gw.InvalidArgumentError, match=message):
        gw.Client(address)


@pytest.mark.parametrize("token", ["äb", "a\nb", 5])
def test_a_token_that_cannot_be_sent_is_refused(token):
    with pytest.raises(gw.InvalidArgumentError, match="token: must be text of printable ASCII characters"):
        gw.Client("localhost:1", token=token)


def test_a_file_without_certificates_is_refused(tmp_path, monkeypatch):
    (tmp_path / "g.pem").write_text("hi")
    with pytest.raises(gw.InvalidArgumentError, match=r"tls: .*g\.pem contains no certificate\. Use True or the path"):
        gw.Client("localhost:1", tls=tmp_path / "g.pem")
    monkeypatch.setenv("GRADWIRE_TLS", "true")
    with pytest.raises(gw.InvalidArgumentError, match=r"GRADWIRE_TLS: cannot read true: .*\. Use 1 or the path"):
        gw.Client("localhost:1")


@pytest.mark.parametrize(
    "limits", [{"timeout": 0}, {"timeout": -1}, {"timeout": "a"}, {"max_retries": -1}, {"max_retries": "a"}]
)
def test_invalid_limits_are_refused(limits):
    with pytest.raises(gw.InvalidArgumentError, match=r"timeout: |max_retries: "):
        gw.Client("localhost:1", **limits)
