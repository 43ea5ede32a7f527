"""Controls stay where the reader left them when a cell runs again, and only then."""

import pytest
import torch

import lossviz as lv
from lossviz import session
from lossviz.widgets import explore


@pytest.fixture(scope="module")
def digits():
    class Few:
        train = lv.data.digits().train[:96]

    return Few


@pytest.fixture
def run(monkeypatch):
    """Return a function that says which cell runs, and in which run."""
    monkeypatch.setattr(session, "LEFT", {})
    monkeypatch.setattr(session, "SHOWN", {})
    torch.set_num_threads(1)

    def begin(cell, number):
        monkeypatch.setattr(session, "running_cell", lambda: (cell, f"{cell} {number}"))

    return begin


@pytest.fixture
def asked(digits):
    made = []

    def ask(**changes):
        settings = {"depth": 8, "width": 2, "points": 5, "samples": 64, "epochs": 1}
        made.append(explore(digits, **{**settings, **changes}))
        assert made[-1].wait(120)
        return made[-1]

    yield ask
    for each in made:
        each.close()


def test_a_cell_that_runs_again_begins_where_the_reader_left_the_controls(run, asked):
    run("a", 1)
    first = asked()
    first.set(seed=7, skip=False, normalize="layer", span=0.5)
    first._canvas.turn = {"a": 1.0, "e": 0.2, "zoom": 1.5}
    assert first.wait(120)
    run("a", 2)
    second = asked()
    assert second.view == first.view
    assert second._canvas.turn == {"a": 1.0, "e": 0.2, "zoom": 1.5}
    assert second.surface.directions[0].label.startswith("random, seed 7")
    run("a", 3)
    assert asked().view == first.view


def test_reset_goes_back_to_the_call_also_after_a_second_run(run, asked):
    run("a", 1)
    first = asked()
    wanted = first.view
    first.set(seed=7, batch_norm="batch")
    run("a", 2)
    second = asked()
    assert second.view != wanted
    second.reset()
    assert second.view == wanted and second._canvas.turn == {}
    run("a", 3)
    assert asked().view == wanted


def test_another_call_another_cell_and_a_script_start_afresh(run, asked, monkeypatch):
    run("a", 1)
    asked().set(seed=7)
    run("a", 2)
    assert asked(span=0.5).view.seed == 1
    run("b", 1)
    assert asked().view.seed == 1
    monkeypatch.setattr(session, "running_cell", lambda: None)
    asked().set(seed=9)
    assert asked().view.seed == 1


def test_two_widgets_of_one_cell_keep_their_own_controls(run, asked):
    run("a", 1)
    for seed in (5, 6):
        asked().set(seed=seed)
    run("a", 2)
    assert [asked().view.seed for _ in range(2)] == [5, 6]


def test_the_widget_that_is_replaced_ends_its_thread_and_no_other(run, asked):
    run("a", 1)
    first, beside = asked(), asked(seed=3)
    run("b", 1)
    elsewhere = asked()
    run("a", 2)
    asked()
    for old in (first, beside):
        old._worker._thread.join(60)
        assert not old._worker.alive
    assert elsewhere._worker.alive


def test_films_and_small_widgets_keep_their_controls_too(run, digits):
    net = lv.models.resnet(8, width=2, seed=0)
    for number in (1, 2):
        run("a", number)
        film = lv.depth_film([8, 14, 20])
        same = lv.same_function(net, digits.train, points=3, samples=32)
        balls = lv.drop_ball(net, digits.train, points=3, samples=32)
        left = (film._slider.value, same.slider.value, balls.in_plane.value)
        assert left == ((2, 1.0, False) if number == 1 else (1, 4.0, True))
        film._slider.value, same.slider.value, balls.in_plane.value = 1, 4.0, True
        assert same.wait(60)
        if number == 2:
            assert film.status == "14 layers"
        same.close()
        balls.close()


def test_outside_a_notebook_there_is_no_cell():
    assert session.running_cell() is None


def test_a_kernel_that_no_page_shows_waits_for_the_picture(asked, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "inherited by papermill from a notebook")
    made = asked(seed=4)
    made.set(seed=8)
    bundle, _ = made._repr_mimebundle_()
    assert "final" in bundle["text/plain"] and "image/png" in bundle
