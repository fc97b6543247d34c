"""Targets that are text or whole-number floats, and class names in models and model files."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small import X, Y, fit, stack

import gradwire as gw
from gradwire import MSE, InvalidArgumentError, Linear, Module, accuracy
from gradwire._class_names import classes_in, text_labels
from gradwire._job_request import make_job_request
from gradwire._options import TrainingOptions

NAMES = ("bird", "cat", "dog")
TEXT = [NAMES[label] for label in Y]


def request(train=(X, Y), model=None, test=None, **options):
    model = model or stack(4, 8, 3)
    options = {"loss": gw.CrossEntropy(), "optimizer": gw.SGD(model), **options}
    return make_job_request(model, train, test, TrainingOptions(**options))


@pytest.mark.parametrize(
    "targets",
    [
        TEXT,
        np.array(TEXT),
        np.array(TEXT, dtype=object),
        np.array(TEXT, dtype="S"),
        np.array(TEXT)[:, np.newaxis],
        pd.Series(TEXT),
        pd.Series(TEXT, dtype="string"),
        pd.Series(TEXT, dtype="category"),
        pd.DataFrame({"animal": TEXT}),
    ],
    ids=["list", "str", "object", "bytes", "column", "series", "string series", "categories", "frame"],
)
def test_text_becomes_the_index_of_its_class_in_alphabetical_order(targets):
    made = request((X, targets))
    assert np.array_equal(made.array(made.spec.train.targets), Y)
    assert tuple(made.spec.model.class_names) == NAMES


@pytest.mark.parametrize(
    "targets",
    [
        np.array("cat"),
        np.array([["cat", "dog"]]),
        np.ma.masked_array(TEXT),
        SimpleNamespace(detach=lambda: np.array(TEXT)),
        Y,
        Y.astype(object),
        [["cat"], ["dog", "cat"]],
    ],
    ids=["scalar", "matrix", "masked", "torch", "numbers", "objects", "ragged"],
)
def test_what_is_no_column_of_text_is_not_converted(targets):
    assert text_labels(targets, "y") is None


def test_eight_classes_are_all_listed():
    names = [f"n{number}" for number in range(9)]
    with pytest.raises(InvalidArgumentError, match=r"has 8 classes \('n0', .*, 'n7'\), but the model has 3"):
        classes_in(np.array(names[:8]), 3, "y")
    with pytest.raises(InvalidArgumentError, match=r"'n7' and 1 more\), but the model has 3"):
        classes_in(np.array(names), 3, "y")
    assert classes_in(np.array(["b", "a", "b"]), 2, "y") == ("a", "b")


def test_text_trains_the_same_model_as_indices_and_names_its_classes():
    model, same = stack(4, 8, 3), stack(4, 8, 3)
    history = fit(model, (X, TEXT), test=(X, TEXT))
    assert history.epochs[-1].test == fit(same, (X, Y), test=(X, Y)).epochs[-1].test
    assert np.array_equal(model["0"].W.data, same["0"].W.data)
    assert (model.class_names, same.class_names) == (NAMES, ())


def test_a_model_file_contains_the_class_names(tmp_path):
    model = stack(4, 8, 3)
    fit(model, (X, TEXT))
    assert gw.load_model(gw.save(model, tmp_path / "m.safetensors")).class_names == NAMES
    fit(gw.load_model(gw.save(stack(4, 8, 3), tmp_path / "m.safetensors")))


def test_classes_are_named_in_the_given_order():
    named = request((X, Y), classes=["a", "b", "c"])
    assert list(named.spec.model.class_names) == ["a", "b", "c"]
    reordered = request((X, TEXT), classes=np.array(["dog", "cat", "bird"]))
    assert np.array_equal(reordered.array(reordered.spec.train.targets), 2 - Y)


def test_a_model_keeps_its_class_names_in_the_next_fit():
    model = stack(4, 8, 3)
    fit(model, (X, TEXT))
    no_birds = request((X[Y > 0], np.array(TEXT)[Y > 0]), model)
    assert no_birds.array(no_birds.spec.train.targets).tolist() == Y[Y > 0].tolist()
    assert tuple(request((X, Y), model).spec.model.class_names) == NAMES


def test_an_attribute_of_the_user_with_the_same_name_is_ignored():
    class Named(Module):
        def __init__(self):
            super().__init__()
            self.fc = Linear(4, 3)
            self.class_names = {"bird": 0}

        def forward(self, x):
            return self.fc(x)

    assert list(request(model=Named()).spec.model.class_names) == []


@pytest.mark.parametrize(
    ("train", "changes", "message"),
    [
        ((X, TEXT), {"widths": (4, 5)}, r"train targets: has 3 classes \('bird', 'cat', 'dog'\), but .* 5 outputs"),
        ((X, TEXT), {"widths": (4, 1), "loss": MSE()}, "train targets: is text, but a model with one output needs"),
        ((X, [*TEXT[:-1], None]), {}, "train targets: row 29 is None, but other rows are text"),
        ((X, TEXT), {"test": (X, ["bird"] * 29 + ["fish"])}, "test targets: row 29 is 'fish', which is not one of"),
        ((X, TEXT), {"classes": ["bird", "cat", "cow"]}, "train targets: row 2 is 'dog', which is not one of"),
        ((X, ["bird"] * 30), {}, r"train targets: has 1 class \('bird'\), but the model has 3 outputs"),
        (
            (X, Y),
            {"test": (X, ["b", "c", "d"] * 10)},
            "test targets: is text, but the train targets are numbers.*classes=",
        ),
        ((X, Y), {"classes": ["a"]}, "classes: has 1 name, but the model has 3 outputs"),
        ((X, Y), {"classes": ["a", "b"]}, "classes: has 2 names, but the model has 3 outputs"),
        ((X, Y), {"classes": ["a", "b", "a"]}, "classes: has 'a' more than once"),
        ((X, Y), {"classes": ["a", "b", ""]}, "classes: must have names of 1 to 128 characters"),
        ((X, Y), {"classes": "abc"}, "classes: must be the names of the classes, .* got 'abc'"),
        ((X, Y), {"classes": {"a", "b", "c"}}, "classes: must be the names of the classes"),
        ((X, Y), {"classes": 3}, "classes: must be the names of the classes"),
        ((X, Y), {"classes": [0, 1, 2]}, "classes: must be the names of the classes"),
    ],
)
def test_classes_that_do_not_fit_are_refused(train, changes, message):
    model = stack(*changes.pop("widths", (4, 8, 3)))
    with pytest.raises(InvalidArgumentError, match=message):
        request(train, model, **changes)


def test_many_classes_are_not_all_listed():
    with pytest.raises(InvalidArgumentError, match=r"has 30 classes \('n0', .* and 22 more\), but"):
        request((X, [f"n{row}" for row in range(30)]))


def test_floats_that_are_whole_are_class_indices_for_cross_entropy():
    for targets in (Y.astype(float), pd.DataFrame({"y": Y.astype(float)}), Y.astype(np.float32)[:, np.newaxis]):
        made = request((X, targets))
        assert np.array_equal(made.array(made.spec.train.targets), Y)
        assert made.classification


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5"), (np.nan, "nan"), (1e30, r"1e\+30")])
def test_a_class_index_that_is_not_whole_is_refused_with_its_row(value, shown):
    with pytest.raises(InvalidArgumentError, match=rf"train targets: row 29 is {shown}, but cross-entropy needs"):
        request((X, [*Y[:-1].astype(float), value]))


def test_accuracy_says_that_it_takes_indices():
    with pytest.raises(ValueError, match="takes class indices, got text"):
        accuracy(np.eye(3), ["bird", "cat", "dog"])
