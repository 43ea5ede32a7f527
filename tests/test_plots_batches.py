"""The batch size along a path of training."""

import numpy as np
import pytest

from lossviz.plots.batches import name_batches
from lossviz.plots.figures import figure


def dots(n=5):
    return figure()[1].scatter(np.arange(n), np.arange(n) ** 2)


def test_a_size_is_written_at_both_ends_and_where_the_batch_has_grown():
    written = name_batches(dots(), [16, 32, 64, 2000, 2001])
    assert [each.get_text() for each in written] == ["16", "64", "2,000", "2,001"]
    assert [tuple(each.xy) for each in written] == [(0, 0), (2, 4), (3, 9), (4, 16)]


def test_a_batch_that_stays_is_written_once():
    assert [each.get_text() for each in name_batches(dots(3), [16, 16, 16])] == ["16"]


def test_dots_grow_with_the_batch():
    drawn = dots(3)
    name_batches(drawn, [16, 32, 256])
    assert (np.diff(drawn.get_sizes()) > 0).all()


def test_one_size_for_each_dot_is_asked_for():
    with pytest.raises(ValueError, match="each of the 5 records"):
        name_batches(dots(), [16, 32])
