import numpy as np
import pytest
import torch

from lossviz import models
from lossviz.directions import Direction
from lossviz.interpolation import lines_between, rise_beyond
from lossviz.surface import Surface


def samples(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 1, 8, 8, generator=generator)
    return inputs, torch.randint(0, 10, (n,), generator=generator)


def loss_of(net, data):
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(net(data[0]), data[1]))


def test_each_line_goes_from_a_net_to_its_partner():
    starts, ends = ([models.mlp((6,), seed=s) for s in seeds] for seeds in ((0, 1), (2, 3)))
    data = samples()
    curves = lines_between(starts, ends, data, batch_norm="stored", points=9)
    for curve, a, b in zip(curves, starts, ends, strict=True):
        assert curve.axes[0] == pytest.approx(np.linspace(-0.5, 1.5, 9))
        assert curve.values["loss"][2] == pytest.approx(loss_of(a, data), rel=1e-5)
        assert curve.values["loss"][6] == pytest.approx(loss_of(b, data), rel=1e-5)


def test_calibration_is_handed_on_where_it_counts():
    nets = [models.mlp((6,), batch_norm=True, seed=s) for s in (0, 1)]
    (own,), (other,) = (
        lines_between(nets[:1], nets[1:], samples(), calibration=held, points=5)
        for held in (None, samples(seed=5))
    )
    assert abs(own.values["loss"][0] - other.values["loss"][0]) > 1e-4
    lines_between(
        nets[:1], nets[1:], samples(), calibration=samples(), batch_norm="stored", points=5
    )


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="got 1 and 0"):
        lines_between([models.mlp((6,))], [], samples())


def test_the_rise_beyond_an_end_is_told_against_the_net_there():
    alpha = np.linspace(-0.5, 1.5, 5)
    values = {"loss": np.array([3.0, 1.0, 9.0, 2.0, 7.0])}
    curve = Surface((alpha,), values, (Direction({}, label="d"),), {})
    assert rise_beyond(curve) == (2.0, 5.0)


@pytest.mark.parametrize("alpha", [(0, 0.5, 1.5), (-0.5, 0, 1), (-0.4, 0.3, 1.5)])
def test_a_line_that_does_not_go_beyond_both_nets_is_refused(alpha):
    curve = Surface((np.array(alpha),), {"loss": np.zeros(3)}, (Direction({}, label="d"),), {})
    with pytest.raises(ValueError, match="beyond both"):
        rise_beyond(curve)
