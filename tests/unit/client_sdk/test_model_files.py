"""model.save and Module.load, and the functions gw.save and gw.load_model."""

import os

import numpy as np
import pytest
from small import X, stack

import gradwire as gw
from gradwire import FileError, Linear, ReLU, Sequential


def test_a_model_can_be_saved_and_loaded(tmp_path):
    model = Sequential(fc1=Linear(4, 5), relu=ReLU(), fc2=Linear(5, 3))
    loaded = gw.load_model(gw.save(model, tmp_path / "m.safetensors"))
    assert [name for name, _ in loaded.named_modules()] == ["fc1", "relu", "fc2"]
    assert np.array_equal(loaded(X), model(X))


@pytest.mark.parametrize("name", ["m.safetensors", "m.npz"])
def test_a_model_saves_itself_to_the_file_that_the_function_writes(tmp_path, name):
    model = Sequential(fc1=Linear(4, 5), relu=ReLU(), fc2=Linear(5, 3))
    model.class_names = ("a", "b", "c")
    path = model.save(str(tmp_path / name))
    assert path == tmp_path / name
    for load in (gw.Module.load, Sequential.load, gw.load_model):
        loaded = load(str(path))
        assert type(loaded) is Sequential
        assert loaded.class_names == ("a", "b", "c")
        assert np.array_equal(loaded(X), model(X))
    assert path.read_bytes() == gw.save(model, tmp_path / f"other-{name}").read_bytes()


def test_the_methods_raise_errors_of_python_with_the_messages_of_the_functions(tmp_path):
    with pytest.raises(ValueError, match=r"a model is saved as \.safetensors or \.npz"):
        stack(4, 3).save(tmp_path / "m.pt")
    with pytest.raises(ValueError, match="nowhere does not exist"):
        stack(4, 3).save(tmp_path / "nowhere" / "m.npz")
    with pytest.raises(ValueError, match="has no weights yet"):
        Sequential(Linear(3)).save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="there is no such file"):
        gw.Module.load(tmp_path / "m.safetensors")


class Doubled(gw.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = Linear(4, 3)

    def forward(self, x):
        return 2 * self.fc1(x)


def test_a_model_that_is_no_stack_is_refused(tmp_path):
    with pytest.raises(gw.TraceError, match="forward"):
        gw.save(Doubled(), tmp_path / "m.npz")
    with pytest.raises(TypeError, match="forward"):
        Doubled().save(tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())


def test_a_model_survives_its_npz_file_which_numpy_alone_can_read(tmp_path):
    model = Sequential(fc1=Linear(4, 5), relu=ReLU(), fc2=Linear(5, 3))
    model.class_names = ("a", "b", "ç")
    path = gw.save(model, tmp_path / "m.npz")
    loaded = gw.load_model(path)
    assert np.array_equal(loaded(X), model(X))
    assert loaded.class_names == model.class_names
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["fc1.W", "fc1.b", "fc2.W", "fc2.b", "gradwire.model_spec"]
        assert np.array_equal(file["fc1.W"], model.fc1.W.data)


def test_npz_files_that_do_not_contain_a_model_are_refused(tmp_path):
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(FileError, match="cannot read"):
        gw.load_model(tmp_path / "junk.npz")
    with pytest.raises(FileError, match="cannot read"):
        gw.load_model(tmp_path / "absent.npz")
    np.save((tmp_path / "array.npz").open("wb"), X)
    with pytest.raises(FileError, match="cannot read"):
        gw.load_model(tmp_path / "array.npz")
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], dtype=object))
    with pytest.raises(FileError, match="cannot read"):
        gw.load_model(tmp_path / "pickled.npz")
    np.savez(tmp_path / "other.npz", a=X)
    with pytest.raises(FileError, match="is not a gradwire model"):
        gw.load_model(tmp_path / "other.npz")
    np.savez(tmp_path / "damaged.npz", **{"a": X, "gradwire.model_spec": "{"})
    with pytest.raises(FileError, match="is damaged"):
        gw.load_model(tmp_path / "damaged.npz")


def test_a_file_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        path = gw.save(stack(4, 3), tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["m.pt", "m.onnx", "m", "m.safetensors.bak"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(FileError, match=r"a model is saved as \.safetensors or \.npz.*models\.download"):
        gw.save(stack(4, 3), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=r"the folder .*nowhere does not exist. Create it first"):
        gw.save(stack(4, 3), tmp_path / "nowhere" / "m.safetensors")


def test_files_that_do_not_contain_a_model_are_refused(tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    for name, message in (
        ("junk.safetensors", "it is not a .safetensors file, or it is damaged"),
        ("junk.npz", "it is not an .npz file, or it is damaged"),
        ("absent.safetensors", "there is no such file"),
        ("absent.npz", "No such file"),
        (".", "it is a folder"),
    ):
        with pytest.raises(FileError, match=f"cannot read .*: {message}"):
            gw.load_model(tmp_path / name)


@pytest.mark.parametrize("use", [gw.load_model, lambda path: gw.save(stack(4, 3), path)])
def test_a_path_must_be_text_or_a_path(use):
    with pytest.raises(gw.InvalidArgumentError, match="path: must be text or a Path, got 5"):
        use(5)


def test_a_model_with_damaged_metadata_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": X}, str(tmp_path / "other.safetensors"))
    with pytest.raises(FileError, match="is not a gradwire model"):
        gw.load_model(tmp_path / "other.safetensors")
    for spec in ("{", '{"layers": [{"name": "fc1", "linear": {"out_features": "3"}}]}'):
        save_file({"a": X}, str(tmp_path / "damaged.safetensors"), metadata={"gradwire.model_spec": spec})
        with pytest.raises(FileError, match="is damaged"):
            gw.load_model(tmp_path / "damaged.safetensors")


def test_a_model_without_weights_is_refused(tmp_path):
    with pytest.raises(gw.InvalidArgumentError, match="has no weights yet"):
        gw.save(Sequential(Linear(3)), tmp_path / "m.safetensors")
