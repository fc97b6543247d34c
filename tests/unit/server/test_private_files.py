"""What other users of the machine can access: folders, files, Ray's token and folder, and the command line."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest

from gradwire_server import data_folder
from gradwire_server.data_folder import lock_data_folder
from gradwire_server.private_files import make_private
from gradwire_server.settings import SettingsError
from gradwire_server.storage.blob_store import BlobStore
from gradwire_server.store.database import Database
from gradwire_server.store.dialects import StoreError, describe, has_password
from gradwire_server.workers.local_ray import local_ray, prepare_environment


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def test_a_new_folder_is_private(tmp_path):
    make_private(tmp_path / "new" / "data")
    assert mode(tmp_path / "new" / "data") == 0o700


def test_a_folder_of_an_older_version_and_all_in_it_become_private(tmp_path):
    data = tmp_path / "data"
    (data / "blobs" / "ab").mkdir(parents=True)
    blob, program = data / "blobs" / "ab" / "blob", data / "program"
    for path, before in ((blob, 0o644), (program, 0o755), (data / "blobs", 0o777), (data, 0o755)):
        path.touch()
        path.chmod(before)
    make_private(data)
    assert [mode(path) for path in (data, data / "blobs", blob.parent, blob, program)] == [
        0o700, 0o700, 0o700, 0o600, 0o700
    ]  # fmt: skip


def test_the_target_of_a_link_is_not_changed(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    data.mkdir(mode=0o755)
    outside.write_text("")
    outside.chmod(0o644)
    (data / "link").symlink_to(outside)
    (data / "dangling").symlink_to(tmp_path / "nothing")
    make_private(data)
    assert mode(data) == 0o700
    assert mode(outside) == 0o644


def test_a_folder_that_all_users_share_is_not_changed(tmp_path, caplog):
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    make_private(shared)
    assert mode(shared) == 0o1777
    assert "all users can create files" in caplog.text


def test_a_blob_store_in_a_folder_of_an_older_version_becomes_private(tmp_path):
    root = tmp_path / "blobs"
    root.mkdir()
    root.chmod(0o755)
    (root / "mark").write_text("mark")
    (root / "mark").chmod(0o644)
    BlobStore(root.as_uri(), tmp_path / "scratch")
    assert (mode(root), mode(root / "mark")) == (0o700, 0o600)


def test_ray_has_its_own_token_regardless_of_the_environment(tmp_path):
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "shared", "RAY_AUTH_TOKEN_PATH": "shared"}
    data = Path(os.path.relpath(tmp_path, Path.cwd()))  # A server can be given a relative path.
    prepare_environment(environment, data)
    assert environment["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in environment
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    assert token.is_absolute()
    tokens = set()
    for _ in range(2):
        with local_ray(data):
            assert mode(token) == 0o600
            assert len(token.read_text()) == 64
            tokens.add(token.read_text())
    assert len(tokens) == 2


@pytest.fixture
def short_folder(monkeypatch):
    folder = Path("/tmp", f"gw-{os.getpid()}")
    folder.mkdir(mode=0o700)
    yield folder
    subprocess.run(["rm", "-r", folder], check=True)


def test_the_folder_of_ray_is_in_the_data_folder_and_empty_at_each_start(short_folder):
    for _ in range(2):
        with local_ray(short_folder) as folder:
            assert folder.is_relative_to(short_folder)
            assert mode(folder.parent) == 0o700
            assert list(folder.iterdir()) == []
            (folder / "session_1").mkdir()


@pytest.mark.parametrize("name", ["long" * 20, "dätä ü#1"])
def test_ray_uses_a_temporary_folder_if_it_cannot_use_the_path(short_folder, name):
    data = short_folder / name
    data.mkdir()
    with local_ray(data) as folder:
        assert not folder.is_relative_to(data)
        assert mode(folder.parent) == 0o700
        (folder / "session_1").mkdir(parents=True)
    assert not folder.parent.exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://user:secret@host/db", True),
        ("postgresql://user@host/db?password=secret", True),
        ("postgresql://user@host/db?sslpassword=secret", True),
        ("postgresql://user@host/db?PASSWORD=secret", True),
        ("postgresql://user@host/db?sslmode=require", False),
        ("not a url", False),
    ],
)
def test_a_password_is_found_wherever_a_url_can_have_one(url, expected):
    assert has_password(url) is expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/db?sslmode=require",
        "postgresql://user@host/db?password=secret&sslmode=require",
        "postgresql://user@host/db?sslpassword=secret&PASSWORD=secret&sslmode=require",
    ],
)
def test_a_url_is_shown_without_the_passwords_in_it(url):
    shown = describe(url)
    assert "secret" not in shown
    assert "@host/db" in shown
    assert "sslmode=require" in shown


def test_a_store_that_cannot_be_used_is_named_without_the_password_in_its_query():
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Database("postgresql://user@127.0.0.1:1/db?password=secret")
    assert "secret" not in str(caught.value)


def serve(tmp_path, *options, **environment):
    """Run a server that cannot start. Returns what it prints."""
    command = [sys.executable, "-m", "gradwire_server", f"--data={tmp_path / 'data'}", *options]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "secret" not in done.stdout + done.stderr
    assert not (tmp_path / "data").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("--store=postgresql://user:secret@127.0.0.1:1/db", "GRADWIRE_STORE"),
        ("--store=postgresql://user@127.0.0.1:1/db?password=secret", "GRADWIRE_STORE"),
        ("--blobs=sftp://user:secret@127.0.0.1:1/blobs", "GRADWIRE_BLOBS"),
    ],
)
def test_a_password_on_the_command_line_is_refused_and_not_shown(tmp_path, option, variable):
    assert variable in serve(tmp_path, option)


def test_a_password_in_the_environment_is_accepted(tmp_path):
    variables = {"GRADWIRE_STORE": "postgresql://user:secret@host/db", "GRADWIRE_BLOBS": "sftp://user:secret@host/a"}
    assert "--plan" in serve(tmp_path, "--plan=unknown", **variables)


@pytest.fixture
def foreign_folder(tmp_path, monkeypatch):
    """A folder that belongs to another user."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    folder.chmod(0o777)
    if os.getuid() == 0:
        os.chown(folder, 4242, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4242)
    return folder


def test_a_data_folder_of_another_user_is_refused_and_not_changed(foreign_folder):
    with (
        pytest.raises(SettingsError, match=r"belongs to user \d+.*Choose another folder"),
        lock_data_folder(foreign_folder),
    ):
        pass
    assert list(foreign_folder.iterdir()) == []
    assert mode(foreign_folder) == 0o777


def test_a_data_folder_of_root_is_accepted(tmp_path, monkeypatch):
    """A volume of a container belongs to root, and the container's user can write to it."""
    found = SimpleNamespace(st_uid=0)
    monkeypatch.setattr(os, "getuid", lambda: 10_001)
    data_folder._check_owner(mock.Mock(stat=lambda: found))
    found.st_uid = 10_001
    data_folder._check_owner(mock.Mock(stat=lambda: found))
    found.st_uid = 1000
    with pytest.raises(SettingsError, match=r"belongs to user 1000, .* runs as user 10001.* chown 10001"):
        data_folder._check_owner(mock.Mock(stat=lambda: found))
