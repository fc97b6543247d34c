"""The allowed IDs of jobs and models, and the allowed labels."""

import pytest

from gradwire_server.errors import InvalidFieldsError
from gradwire_server.jobs.labels import check_labels
from gradwire_server.resource_names import digest_in, id_in, is_valid_id


@pytest.mark.parametrize("text", ["a", "digits", "digits-2", "a0", 63 * "a"])
def test_an_id_has_lower_case_letters_digits_and_hyphens(text):
    assert is_valid_id(text)
    assert id_in("jobs", f"jobs/{text}") == text


@pytest.mark.parametrize(
    "text", ["", "A", "0a", "-a", "a-", "a_b", "a b", "a\n", "digits!", "digits/..", "a\0", "é", 64 * "a"]
)
def test_other_ids_are_refused(text):
    assert not is_valid_id(text)
    assert id_in("jobs", f"jobs/{text}") is None


@pytest.mark.parametrize(
    "labels",
    [{"team": "Vision-1_a.b"}, {"t-e_am": ""}, {63 * "k": 63 * "v"}, {}, {f"k{number}": "" for number in range(64)}],
)
def test_labels_have_short_keys_and_values(labels):
    check_labels(labels)


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ({"Team": "x"}, "job.labels"),
        ({"team!": "x"}, "job.labels"),
        ({"team\n": "x"}, "job.labels"),
        ({64 * "k": "x"}, "job.labels"),
        ({"team": "a b"}, "job.labels.team"),
        ({"team": "x\n"}, "job.labels.team"),
        ({"team": 64 * "v"}, "job.labels.team"),
        ({f"k{number}": "" for number in range(65)}, "job.labels"),
    ],
)
def test_other_labels_are_refused(labels, field):
    with pytest.raises(InvalidFieldsError) as caught:
        check_labels(labels)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_name_belongs_to_one_collection():
    assert id_in("models", "jobs/digits") is None
    assert id_in("jobs", "models/digits") is None
    assert id_in("jobs", "digits") is None
    assert digest_in(f"tensors/{64 * 'a'}") == 64 * "a"
    for name in (64 * "a", f"jobs/{64 * 'a'}", f"tensors/{63 * 'a'}", f"tensors/{64 * 'A'}", f"tensors/{64 * 'a'}/"):
        assert digest_in(name) is None
