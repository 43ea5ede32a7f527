import numpy as np
import pytest

from lossviz.coherence import Coherence
from lossviz.plots import COLORS, cosines


def found(cosine, n_weights=10_000):
    return Coherence(np.array([[1.0, cosine], [cosine, 1.0]]), np.ones(2), n_weights, 64, "batch")


def test_each_histogram_holds_the_pairs_of_all_its_nets():
    (drawn,) = cosines({"plain": [found(-0.2), found(0.2), found(0.2)]}, bins=2)
    shares = drawn.get_data().values * np.diff(drawn.get_data().edges)
    assert shares == pytest.approx([1 / 3, 2 / 3])


def test_skip_and_plain_keep_their_colours_and_tell_their_means():
    drawn = cosines({"skip": found(0.41), "plain": found(0.0)})
    assert [each.get_label() for each in drawn] == ["skip: mean 0.41", "plain: mean 0"]
    assert drawn[1].get_edgecolor()[:3] == pytest.approx(
        [int(COLORS["plain"][k : k + 2], 16) / 255 for k in (1, 3, 5)]
    )


def test_unrelated_directions_are_a_band_of_two_deviations():
    (drawn,) = cosines({"plain": found(0.3, n_weights=400)})
    (band,) = [p for p in drawn.axes.patches if "unrelated" in p.get_label()]
    assert (band.get_x(), band.get_width()) == pytest.approx((-0.1, 0.2))


def test_the_caption_tells_batches_and_their_size():
    caption = cosines({"plain": found(0.3)})[0].axes.texts[-1].get_text().replace("\n", " ")
    assert "samples a batch: 64" in caption
    assert "batches a net: 2" in caption


def test_no_pair_is_an_error():
    with pytest.raises(ValueError, match="at least one pair"):
        cosines({"plain": []})
