"""The validation of settings, and the sources of the token."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from gradwire_server.app import check_address
from gradwire_server.data_folder import lock_data_folder
from gradwire_server.settings import Settings, SettingsError, read_token
from gradwire_server.storage.blob_store import BlobStore


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.9"])
def test_loopback_needs_no_token(host):
    Settings(host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_addresses_need_a_token_or_insecure(host):
    with pytest.raises(SettingsError, match="refusing to listen"):
        Settings(host=host)
    Settings(host=host, token="secret")
    Settings(host=host, insecure=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"port": -1},
        {"port": 70000},
        {"cpus_per_job": 0},
        {"memory_per_job": -1},
        {"max_log": 0},
        {"max_tensors": -1},
        {"data": Path("a::b")},
        {"token": "tab\there"},
    ],
)
def test_invalid_settings_are_refused(changes):
    with pytest.raises(SettingsError):
        Settings(**changes)


@pytest.fixture
def pair(tmp_path):
    """Makes a self-signed certificate and its key."""

    def make(name):
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}-key.pem"
        options = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost")
        subprocess.run(
            ["openssl", "req", "-x509", *options, "-keyout", key, "-out", cert], check=True, capture_output=True
        )
        return cert, key

    return make


def test_the_key_must_match_the_certificate(pair):
    (cert, key), (_, other_key) = pair("one"), pair("two")
    assert Settings(tls_cert=cert, tls_key=key).key_and_chain == (key.read_bytes(), cert.read_bytes())
    with pytest.raises(SettingsError, match=r"--tls-cert .*one\.pem with --tls-key .*two-key\.pem"):
        Settings(tls_cert=cert, tls_key=other_key)


@pytest.mark.parametrize("name", ["data", "my data", "dätä", "#1", "100%20", "a?b", "[x]*"])
def test_a_data_folder_can_have_any_name_and_be_copied(tmp_path, name):
    settings = Settings(data=tmp_path / name)
    BlobStore(settings.blobs_url, settings.data / "scratch").set_mark("mark")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    shutil.copytree(tmp_path / name, tmp_path / "copy")
    copied = Settings(data=tmp_path / "copy")
    assert BlobStore(copied.blobs_url, copied.data / "scratch").mark == "mark"


def test_a_token_is_created_once_and_then_kept(tmp_path):
    file = tmp_path / "folder" / "token"
    made = read_token(None, file, make=True)
    assert made == read_token(None, file, make=True) == file.read_text().strip()
    assert read_token("given", file, make=True) == "given"


def test_a_token_comes_from_either_the_variable_or_the_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert read_token(None, file) == "secret"
    assert read_token("given", None) == "given"
    assert read_token("", None) is None
    file.write_text("")
    for token, path in (("given", file), (None, file), (None, tmp_path / "absent")):
        with pytest.raises(SettingsError):
            read_token(token, path)


def test_an_address_is_checked_before_ray_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port}. Is another server running there"):
            check_address(Settings(port=port))
    check_address(Settings(port=port))
    check_address(Settings(port=0, host="localhost"))
    with pytest.raises(SettingsError, match=r"there is no host 'nowhere\.invalid'. Choose another --host"):
        check_address(Settings(port=0, host="nowhere.invalid", insecure=True))
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1:0: Cannot assign requested address. Choose another --host"):
        check_address(Settings(port=0, host="192.0.2.1", insecure=True))


def test_a_data_folder_that_is_a_file_is_refused_in_plain_words(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SettingsError, match=r"\(--data, GRADWIRE_DATA\): File exists$"),
        lock_data_folder(tmp_path / "file"),
    ):
        pass
