"""The matrix of recorded weights."""

import numpy as np
import pytest
import torch
from torch import nn

from lossviz.trajectory import Recorder


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def recorded(model, moments, capacity=2):
    recorder = Recorder(model, capacity)
    for step in moments:
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(float(step))
            model[1].running_mean.fill_(-float(step))
        recorder.record(step)
    return recorder.trajectory()


def test_a_row_is_the_parameters_flattened_in_the_models_order():
    model = net()
    recorder = Recorder(model, 1)
    recorder.record(0)
    expected = nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
    np.testing.assert_array_equal(recorder.trajectory().matrix[0], expected)


def test_an_index_gives_a_dict_like_named_parameters():
    model = net()
    path = recorded(model, [0, 1])
    weights = path[-1]
    assert list(weights) == [name for name, _ in model.named_parameters()]
    for name, weight in model.named_parameters():
        assert torch.equal(weights[name], weight)


def test_a_record_does_not_move_when_the_model_does():
    path = recorded(net(), [0, 7])
    assert set(path.matrix[0]) == {0.0} and set(path.matrix[1]) == {7.0}


def test_changing_the_tensors_of_an_index_leaves_the_matrix():
    path = recorded(net(), [3])
    path[0]["0.weight"].zero_()
    assert set(path.matrix[0]) == {3.0}


def test_running_statistics_are_recorded_without_the_integer_counter():
    path = recorded(net(), [0, 2])
    assert path.buffer_names == ("1.running_mean", "1.running_var")
    assert torch.equal(path.buffers_at(1)["1.running_mean"], torch.full((4,), -2.0))


def test_a_net_without_buffers_has_none():
    recorder = Recorder(nn.Linear(2, 2), 1)
    recorder.record(0)
    path = recorder.trajectory()
    assert path.buffers is None and path.buffers_at(0) == {}


def test_it_grows_beyond_its_capacity():
    path = recorded(net(), range(9), capacity=2)
    assert path.shape == (9, 34) and len(path) == 9
    np.testing.assert_array_equal(path.matrix[:, 0], np.arange(9))
    np.testing.assert_array_equal(path.steps, np.arange(9))


def test_one_step_is_recorded_once():
    assert list(recorded(net(), [0, 4, 4]).steps) == [0, 4]


def test_a_slice_is_a_shorter_trajectory():
    path = recorded(net(), range(6))[::2]
    assert list(path.steps) == [0, 2, 4] and path.shape == (3, 34)
    assert set(path[1]["2.bias"].tolist()) == {2.0} and len(path.buffers) == 3


def test_numpy_takes_it_as_its_matrix():
    path = recorded(net(), [0, 1])
    assert np.asarray(path).dtype == np.float32
    assert np.asarray(path, dtype=np.float64).shape == (2, 34)
    assert np.shares_memory(np.asarray(path), path.matrix)


def test_tied_weights_take_their_place_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    recorder = Recorder(model, 1)
    recorder.record(0)
    assert recorder.trajectory().shape == (1, 9 + 3 + 3)


def test_a_scalar_parameter_keeps_its_shape():
    model = nn.Module()
    model.gain = nn.Parameter(torch.tensor(2.0))
    recorder = Recorder(model, 1)
    recorder.record(0)
    assert recorder.trajectory()[0]["gain"].shape == ()


def test_records_that_are_not_finite_at_the_end_are_left_out():
    model = net()
    recorder = Recorder(model, 3)
    recorder.record(0)
    nn.init.constant_(model[0].weight, float("nan"))
    recorder.record(1)
    assert list(recorder.trajectory().steps) == [0]


def test_double_weights_are_recorded_in_single_precision():
    path = recorded(net().double(), [1])
    assert path.matrix.dtype == np.float32 and path[0]["0.weight"].dtype == torch.float32


def test_rows_and_restore_are_inverse():
    model = net()
    recorder = Recorder(model, 2)
    for step in range(3):
        nn.init.normal_(model[0].weight)
        recorder.record(step)
    other = Recorder(model, 1)
    other.restore([0, 1, 2], recorder.rows(0))
    np.testing.assert_array_equal(other.trajectory().matrix, recorder.trajectory().matrix)
    np.testing.assert_array_equal(other.trajectory().buffers, recorder.trajectory().buffers)


def test_an_index_beyond_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        recorded(net(), [0])[1]


def test_its_text_says_how_large_it_is():
    assert repr(recorded(net(), [0, 1])) == "Trajectory(2 records of 34 weights, 0.0 MiB)"


def test_a_trajectory_that_was_handed_out_stays_what_it_was():
    model = nn.Linear(200, 100)
    recorder = Recorder(model, 2)
    for step in range(2):
        recorder.record(step)
    early = recorder.trajectory()
    before = early.matrix.copy()
    for step in range(2, 40):
        with torch.no_grad():
            model.weight += 1
        recorder.record(step)
    np.testing.assert_array_equal(early.matrix, before)
    assert len(recorder.trajectory()) == 40
