"""Conversion of user data to arrays: lists, pandas objects, torch tensors and NumPy arrays of any numeric dtype."""

import numpy as np
import pandas as pd
import pytest
from small import X

import gradwire as gw
from gradwire._arrays import to_array

FLOAT32 = np.dtype(np.float32)


@pytest.mark.parametrize(
    "value",
    [
        X.tolist(),
        pd.DataFrame(X),
        X.astype(np.float64),
        np.asfortranarray(X),
        X[::1],
        X.astype(np.float16),
    ],
)
def test_anything_that_numpy_can_view_is_accepted(value):
    assert np.allclose(to_array(value, "x", FLOAT32), X, atol=1e-3)


def test_torch_tensors_are_detached_first():
    class Tensor:
        def detach(self):
            return X

    assert to_array(Tensor(), "x", FLOAT32) is X


class Unreadable:
    """Raises an error when it is converted, as a torch tensor on a GPU does."""

    def __init__(self, error):
        self._error = error

    def __array__(self, *_arguments, **_options):
        raise self._error


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"is empty: it has shape \(0,\)"),
        (np.zeros((3, 0)), "is empty"),
        ([[1.0, 2.0], [3.0]], "cannot be converted to an array of numbers"),
        (Unreadable(TypeError("it is on a GPU")), "cannot be converted .* it is on a GPU"),
        (Unreadable(RuntimeError("it is sparse")), "cannot be converted .* it is sparse"),
        (["a", "b"], "must be numbers, got an array of dtype <U1"),
        ([b"a", None], "must be numbers, got an array of dtype object"),
        ([1j], "must be numbers, got an array of dtype complex128"),
        (np.array(["2026-01-01"], "M8[D]"), "must be numbers"),
    ],
)
def test_what_is_not_an_array_of_numbers_is_refused(value, message):
    with pytest.raises(gw.InvalidArgumentError, match=f"^x: {message}"):
        to_array(value, "x")


def test_numbers_keep_their_kind():
    assert to_array([True, False], "y", FLOAT32).dtype == np.uint8
    assert to_array(np.array([1, 2], np.uint64), "y", FLOAT32).dtype == np.int64
    assert to_array(np.array([1, 2], np.uint8), "y", FLOAT32).dtype == np.uint8
    assert to_array(pd.Series([0, 1]), "y", FLOAT32).dtype == np.int64


def test_frames_with_columns_of_several_kinds_become_numeric_arrays():
    cities = pd.get_dummies(pd.DataFrame({"size": [1.5, 2.5], "city": ["Oslo", "Bonn"]}))
    assert to_array(cities, "x", FLOAT32).tolist() == [[1.5, 0, 1], [2.5, 1, 0]]
    nullable = pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": pd.array([True, False], "boolean"), "c": [0.5, 1.5]})
    assert to_array(nullable, "x", FLOAT32).tolist() == [[1, 1, 0.5], [2, 0, 1.5]]
    assert to_array(pd.Series([1, 2], dtype="Int64"), "y", FLOAT32).tolist() == [1, 2]


def test_a_missing_value_in_a_column_is_named():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array([1, None], "Int64")})
    with pytest.raises(gw.InvalidArgumentError, match="column 'b' has a missing value in row 1"):
        to_array(frame, "x", FLOAT32)
    with pytest.raises(gw.InvalidArgumentError, match="column 'a' has an infinity in row 0"):
        to_array(pd.DataFrame({"a": [np.inf, 1.0], "b": [1.0, np.nan]}), "x", FLOAT32)


def test_a_missing_value_in_a_series_becomes_nan_which_validation_reports():
    assert np.isnan(to_array(pd.Series([1, None], dtype="Int64"), "y", FLOAT32)).sum() == 1


def test_a_column_of_text_is_named():
    with pytest.raises(gw.InvalidArgumentError, match="column 'city' has values that are not numbers"):
        to_array(pd.DataFrame({"size": [1.5, 2.5], "city": ["Oslo", "Bonn"]}), "x")


def test_masked_values_are_refused():
    masked = np.ma.masked_array(X, mask=X > 0.9)
    with pytest.raises(gw.InvalidArgumentError, match="has masked values"):
        to_array(masked, "x")
    assert to_array(np.ma.masked_array(X), "x").shape == X.shape


@pytest.mark.parametrize(
    ("given", "wanted", "converted"),
    [
        ("float32", None, "float32"),
        ("float64", None, "float64"),
        ("float16", None, "float32"),
        ("longdouble", None, "float32"),
        ("float64", np.float32, "float32"),
        ("float32", np.float64, "float64"),
        ("int16", np.float32, "int16"),
        ("bool", None, "uint8"),
    ],
)
def test_floats_are_converted_to_the_dtype_of_the_job_and_integers_stay(given, wanted, converted):
    array = to_array(np.array([[0, 1], [1, 0]], given), "x", wanted)
    assert array.dtype == np.dtype(converted)
    assert array.tolist() == [[0, 1], [1, 0]]


def test_numbers_that_are_too_large_for_the_dtype_are_not_called_infinite():
    values = np.array([[1.0, np.nan], [np.inf, 2.0], [3.0, -1e300], [1e301, 4.0]])
    with pytest.raises(
        gw.InvalidArgumentError, match=r'row 2 has -1e\+300, which is too large for float32.*dtype="float64"'
    ):
        to_array(values, "x", np.dtype(np.float32))
    with pytest.raises(gw.InvalidArgumentError, match="row 0 has"):
        to_array(np.float64(1e300), "x", FLOAT32)
    assert np.array_equal(to_array(values, "x", np.dtype(np.float64)), values, equal_nan=True)
    assert np.array_equal(to_array(values[:2], "x", np.dtype(np.float32)), values[:2], equal_nan=True)


def test_unsigned_integers_are_accepted_up_to_the_largest_signed_one():
    largest = np.array([3, 2**63 - 1], np.uint64)
    assert to_array(largest, "x").tolist() == [3, 2**63 - 1]
    assert to_array(largest, "x").dtype == np.int64
    with pytest.raises(gw.InvalidArgumentError, match="above 2"):
        to_array(largest + np.uint64(1), "x")
