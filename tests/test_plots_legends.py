"""One legend for several panels."""

import pytest

from lossviz.plots.figures import figure, legend
from lossviz.plots.legends import share_legend


def panels():
    left, right = figure(1, 2)[1]
    left.plot([0, 1], label="small batch")
    left.plot([1, 0], label="large batch")
    right.plot([0, 1], label="small batch")
    right.plot([0, 2], label="theory")
    for ax in (left, right):
        legend(ax)
    return left, right


def names(drawn):
    return [text.get_text() for text in drawn.get_texts()]


def test_each_label_is_named_once_and_no_panel_keeps_its_own_legend():
    left, right = panels()
    assert names(share_legend(left, right)) == ["small batch", "large batch", "theory"]
    assert left.get_legend() is None and right.get_legend() is None
    assert len(left.figure.legends) == 1


def test_only_the_panels_given_are_named():
    left, right = panels()
    assert names(share_legend(right)) == ["small batch", "theory"]
    assert left.get_legend() is None


def test_it_takes_the_place_of_an_earlier_one():
    left, right = panels()
    share_legend(left)
    assert names(share_legend(left, right)) == ["small batch", "large batch", "theory"]
    assert len(left.figure.legends) == 1


def test_it_covers_no_panel():
    left, right = panels()
    drawn = share_legend(left, right)
    left.figure.canvas.draw()
    box = drawn.get_window_extent()
    assert not any(box.overlaps(ax.get_window_extent()) for ax in (left, right))


def test_panels_without_a_label_are_refused():
    with pytest.raises(ValueError, match="nothing on these axes"):
        share_legend(figure()[1])
