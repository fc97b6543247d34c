"""The data files that the command line reads."""

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from small import X, Y

from gradwire import FileError, InvalidArgumentError
from gradwire.cli.data_files import read_data, read_inputs, scaled


def test_npz_safetensors_and_csv_files_are_read(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=X.reshape(30, 2, 2), y_train=Y, x_test=X, y_test=Y)
    save_file({"x_train": X, "y_train": Y}, str(tmp_path / "d.safetensors"))
    pd.DataFrame(X, columns=list("abcd")).assign(label=Y).to_csv(tmp_path / "d.csv", index=False)
    npz, tensors, table = (
        read_data(tmp_path / name, target)
        for name, target in (("d.npz", None), ("d.safetensors", None), ("d.csv", "label"))
    )
    assert npz.train[0].shape == (30, 4)
    assert npz.test[1].shape == (30,)
    assert tensors.test is None
    assert np.allclose(table.train[0], X)
    assert np.array_equal(table.train[1], Y)
    assert table.train[1].dtype == np.int64


def test_inputs_are_read_from_every_format(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X)
    save_file({"x_test": X}, str(tmp_path / "x.safetensors"))
    for name in ("x.npy", "x.npz", "x.safetensors"):
        assert np.array_equal(read_inputs(tmp_path / name), X)


def test_images_become_rows_and_vectors_stay(tmp_path):
    for shape, flat in (((3,), (3,)), ((2, 3), (2, 3)), ((2, 3, 4), (2, 12)), ((2, 3, 4, 5), (2, 60))):
        np.save(tmp_path / "x.npy", np.zeros(shape))
        assert read_inputs(tmp_path / "x.npy").shape == flat


def test_a_first_line_of_numbers_is_data(tmp_path):
    (tmp_path / "d.csv").write_text("1,2\n3,4\n")
    assert read_inputs(tmp_path / "d.csv").tolist() == [[1, 2], [3, 4]]
    (tmp_path / "d.csv").write_text("a,b\n3,4\n")
    assert read_inputs(tmp_path / "d.csv").tolist() == [[3, 4]]


def test_a_byte_order_mark_and_empty_lines_are_ignored(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"\xef\xbb\xbfa,label\n1,2\n\n3,4\n")
    assert read_data(tmp_path / "d.csv", "a").train[1].tolist() == [1, 3]


def test_the_column_of_the_targets_can_be_left_out_of_inputs(tmp_path):
    (tmp_path / "d.csv").write_text("a,label,b\n1,0,2\n3,1,4\n")
    assert read_inputs(tmp_path / "d.csv", ["label"]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(FileError, match=r"--drop must name a column .*, got 'class'$"):
        read_inputs(tmp_path / "d.csv", ["class"])


def test_a_column_of_a_file_without_a_header_is_left_out_by_its_number(tmp_path):
    (tmp_path / "d.csv").write_text("1,2,3\n4,5,6\n")
    assert read_inputs(tmp_path / "d.csv", ["3"]).tolist() == [[1, 2], [4, 5]]
    with pytest.raises(FileError, match=r"got '4'\. It has no header, so use the number of a column, from 1"):
        read_inputs(tmp_path / "d.csv", ["4"])


@pytest.mark.parametrize(
    ("first", "trouble"),
    [("1,2,", "line 1, column 3: is empty"), ("1,NA,3", "line 1, column 2: 'NA' is not a number")],
)
def test_a_first_line_with_a_number_is_a_row(tmp_path, first, trouble):
    (tmp_path / "d.csv").write_text(f"{first}\n3,4,5\n")
    with pytest.raises(FileError, match=trouble):
        read_inputs(tmp_path / "d.csv")


def test_a_first_line_with_the_column_that_is_asked_for_is_a_header(tmp_path):
    (tmp_path / "d.csv").write_text("0,1,label\n3,4,5\n")
    assert read_inputs(tmp_path / "d.csv", ["label"]).tolist() == [[3, 4]]
    assert read_data(tmp_path / "d.csv", "label").train[0].tolist() == [[3, 4]]


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_scale_must_be_finite(factor):
    assert scaled(X, 2.0).tolist() == (2 * X).tolist()
    with pytest.raises(InvalidArgumentError, match="--scale must be a finite number, got"):
        scaled(X, factor)


def test_a_column_of_text_can_hold_the_targets(tmp_path):
    (tmp_path / "d.csv").write_text("a,animal,b\n1,cat,2\n3, dog ,4\n")
    read = read_data(tmp_path / "d.csv", "animal")
    assert read.train[0].tolist() == [[1, 2], [3, 4]]
    assert read.train[1].tolist() == ["cat", "dog"]
    assert read_inputs(tmp_path / "d.csv", ["animal"]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(
        FileError, match=r"line 2, column animal: 'cat' is not a number\. To leave a column out, use --d"
    ):
        read_inputs(tmp_path / "d.csv")


@pytest.mark.parametrize(
    ("name", "content", "target", "message"),
    [
        ("d.csv", "a,b\nx,2\n", "b", "line 2, column a: 'x' is not a number"),
        ("d.csv", "a,b\n1,2\n,3\n", "b", "line 3, column a: is empty"),
        ("d.csv", "a,b\n1,2\nnan,3\n", "b", "line 3, column a: 'nan' is infinite or NaN"),
        ("d.csv", "a,b\n1,cat\n2,\n", "b", "line 3, column b: is empty"),
        ("d.csv", "\na,b\n\n1,2\n\nx,3\n", "b", "line 6, column a: 'x' is not a number"),
        ("d.csv", "b\n1\n2\n", "b", "has no columns besides b"),
        ("d.csv", "a,b\n1,2\n3\n", "b", "line 3: has 1 cell, but"),
        ("d.csv", "a,b,b\n1,2,3\n", "b", "has several columns with the name 'b'. Rename"),
        ("d.csv", "a;b\n1;2\n", "b", "separates its cells by semicolons. Save it with commas"),
        ("d.csv", "a\tb\n1\t2\n", "b", "separates its cells by tabs"),
        ("d.csv", "a,b\n1,2\n", "c", "must name a column .* one of a, b; got 'c'"),
        ("d.csv", "a,b\n1,2\n", None, "none was given"),
        ("d.csv", "1,2\n3,4\n", "1", "has no header"),
        ("d.csv", "", "a", "is empty"),
        ("d.csv", "a,b\n", "b", "has no rows"),
        ("d.npz", "junk", None, "cannot read"),
        ("d.npz", "junk", "b", "--target is for .csv"),
        ("d.safetensors", "junk", None, "cannot read"),
        ("d.txt", "", None, "must end in"),
        ("d.bin", "a,b\n1,2\n", "b", "must end in"),
        ("d.csv", f"a,b\n{'1' * 200_000},2\n", "b", "cannot read"),
    ],
)
def test_unusable_data_files_are_errors_with_a_reason(tmp_path, name, content, target, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(FileError, match=message):
        read_data(tmp_path / name, target)


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "d.csv").write_bytes("café,b\n1,2\n".encode("cp1252"))
    with pytest.raises(FileError, match=r"it is not UTF-8 text\. Save it as UTF-8"):
        read_data(tmp_path / "d.csv", "b")


def test_arrays_that_are_missing_are_named(tmp_path):
    np.savez(tmp_path / "d.npz", x=X)
    with pytest.raises(FileError, match=r"has no array x_train\. It has x\."):
        read_data(tmp_path / "d.npz", None)
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X)
    with pytest.raises(FileError, match="both x_test and y_test, or neither"):
        read_data(tmp_path / "d.npz", None)
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, y_test=Y)
    with pytest.raises(FileError, match="both x_test and y_test, or neither"):
        read_data(tmp_path / "d.npz", None)
    with pytest.raises(FileError, match=r"has no array x or x_test\. It has x_train, y_train, y_test\."):
        read_inputs(tmp_path / "d.npz")
    (tmp_path / "d.bin").write_text("1,2\n")
    with pytest.raises(FileError, match="must end in"):
        read_inputs(tmp_path / "d.bin")
    with pytest.raises(FileError, match=r"--drop is for \.csv files"):
        read_inputs(tmp_path / "d.npz", ["a"])


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        ("1\n-2\n", np.int64, [1, -2]),
        ("5e-1\n2\n", np.float64, [0.5, 2.0]),
        ("2\n15e-1\n", np.float64, [2.0, 1.5]),
        ("1.0\n2\n", np.float64, [1.0, 2.0]),
    ],
)
def test_targets_are_integers_only_if_all_of_them_are_written_as_such(tmp_path, cells, dtype, values):
    (tmp_path / "d.csv").write_text("x,y\n" + "".join(f"0,{cell}\n" for cell in cells.split()))
    targets = read_data(tmp_path / "d.csv", "y").train[1]
    assert (targets.dtype, targets.tolist()) == (dtype, values)


def test_python_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "evil.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=Y)
    with pytest.raises(FileError, match="contains Python objects") as caught:
        read_data(tmp_path / "evil.npz", None)
    assert "allow_pickle" not in str(caught.value)
