"""Parameters of a lesson, checked at the door."""

import pytest

from lossviz.parameters import check_parameters


def test_allowed_parameters_come_back_as_they_are():
    given = {"depth": 14, "skip": False, "span": 1, "seeds": [0, 1], "points": 21, "word": "a"}
    assert check_parameters(**given, device=None, out_dir=None) == {
        **given,
        "device": None,
        "out_dir": None,
    }


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ({"depth": 57}, ValueError, r"6n \+ 2 .*got 57: take 56 or 62"),
        ({"depths": [8, 9]}, ValueError, "got 9"),
        ({"width": 0}, ValueError, "1 or more"),
        ({"width": 2.5}, TypeError, "whole number"),
        ({"n_nets": 0}, ValueError, "1 or more"),
        ({"points": 20}, ValueError, "take 19 or 21"),
        ({"points": 1}, ValueError, "take 3"),
        ({"span": 0}, ValueError, "above 0"),
        ({"span": float("nan")}, ValueError, "above 0"),
        ({"span": "wide"}, TypeError, "must be a number"),
        ({"weight_decay": -1}, ValueError, "0 or above"),
        ({"skip": 1}, TypeError, "True or False"),
        ({"seed": -1}, ValueError, "from 0"),
        ({"seeds": 1}, TypeError, r"write \[1\]"),
        ({"seeds": []}, ValueError, "at least one"),
        ({"seeds": [1, 1]}, ValueError, "all be different"),
        ({"batch_sizes": [32, "a"]}, TypeError, "whole number"),
        ({"device": "gpu"}, ValueError, "one of cpu"),
        ({"out_dir": 3}, TypeError, "name of a folder"),
        ({"mode": {}}, TypeError, "literal"),
        ({"modes": ["a", {}]}, TypeError, "literal"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_refused_with_what_is(wrong, kind, sentence):
    with pytest.raises(kind, match=sentence):
        check_parameters(**wrong)


def test_the_folder_of_results_is_made(tmp_path):
    check_parameters(out_dir=str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="name a folder where you may write"):
        check_parameters(out_dir=str(tmp_path / "file" / "b"))
