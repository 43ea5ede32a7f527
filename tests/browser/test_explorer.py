"""The explorer in a real JupyterLab: controls, pictures, clicks, and no way to the outside."""

import pytest
from jupyter_lab import Shown, notebook

CELL = """
import torch
torch.set_num_threads(1)
import lossviz as lv
class Small:
    samples = lv.data.digits().train[:256]
    @property
    def train(self):
        if "explorer" in globals() and explorer.view.batch_norm == "recalibrated":
            raise ValueError("no <samples> today: take another batch norm.")
        return self.samples
explorer = lv.explore(Small(), depth=8, width=2, points=17, samples=128, epochs=1)
explorer
"""
START = "-0.70 0.55"
FINAL = "17 × 17 points, 128 samples, final"
pytestmark = pytest.mark.browser


class Explorer(Shown):
    """The explorer, whose pictures are refined until they are final."""

    def final(self):
        """Wait for the finished picture; return what it is in words."""
        self.says(FINAL)
        return self.label()

    def drawn_after(self, serial, *words):
        """Wait until a later picture than this is drawn, is said to be this, and is final."""
        super().drawn_after(serial, "17 × 17 points", *words)
        self.says(FINAL)


@pytest.fixture(scope="module")
def shown(browser, lab):
    page = notebook(browser, lab, "explorer.ipynb", CELL)
    yield Explorer(page)
    page.close()


def test_the_picture_has_colour_and_is_told_in_words(shown):
    text = shown.final()
    assert "ResNet-8: loss from" in text and "17 × 17 points" in text
    colours = shown.canvas.evaluate(
        "c => new Set(Array.from(new Uint32Array("
        "c.getContext('2d').getImageData(60, 40, 300, 300).data.buffer))).size"
    )
    assert colours > 100


@pytest.mark.parametrize("name", ["seed", "rotation", "span"])
def test_a_key_on_a_slider_draws_another_picture(shown, name):
    shown.final()
    before, serial = shown.canvas.screenshot(), shown.serial()
    shown.slider(name).focus()
    shown.page.keyboard.press("ArrowRight")
    shown.drawn_after(serial)
    assert shown.canvas.screenshot() != before


def test_thirty_keys_in_a_row_end_on_the_picture_of_the_last(shown):
    shown.final()
    handle, serial = shown.slider("seed"), shown.serial()
    handle.focus()
    for _ in range(30):
        shown.page.keyboard.press("ArrowRight")
    asked = int(float(handle.get_attribute("aria-valuenow")))
    assert asked >= 30
    shown.drawn_after(serial, f"random, seed {asked}")
    last, serial = shown.final(), shown.serial()
    shown.page.keyboard.press("ArrowLeft")
    shown.drawn_after(serial, f"random, seed {asked - 1}")
    serial = shown.serial()
    shown.page.keyboard.press("ArrowRight")
    shown.drawn_after(serial, f"random, seed {asked}")
    assert shown.final() == last


def test_arrow_keys_and_a_drag_turn_the_surface_without_the_kernel(shown):
    shown.final()
    serial = shown.serial()
    turns = [shown.canvas.get_attribute("data-turn")]
    shown.canvas.focus()
    shown.page.keyboard.press("ArrowLeft")
    shown.page.wait_for_timeout(100)
    turns.append(shown.canvas.get_attribute("data-turn"))
    box = shown.canvas.bounding_box()
    x, y = box["x"] + 0.72 * box["width"], box["y"] + 0.5 * box["height"]
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x + 60, y + 10, steps=4)
    shown.page.mouse.up()
    shown.page.wait_for_timeout(100)
    turns.append(shown.canvas.get_attribute("data-turn"))
    assert len(set(turns)) == 3 and shown.serial() == serial


def test_a_click_tells_loss_and_curvature_and_trains_on(shown):
    shown.final()
    box = shown.canvas.bounding_box()
    shown.page.mouse.click(box["x"] + 160, box["y"] + 130)
    shown.says("λ max")
    shown.says("steps of training: loss")


def test_each_list_and_box_draws_another_picture(shown):
    for label, choice in (("scale", "layer"), ("batch norm", "batch"), ("directions", "curvature")):
        serial = shown.serial()
        row = shown.page.locator(".jp-OutputArea .widget-dropdown", has_text=label)
        row.locator("select").select_option(choice)
        shown.drawn_after(serial)
    for label in ("both, side by side", "shortcuts"):
        serial = shown.serial()
        shown.page.locator(".jp-OutputArea .widget-checkbox", has_text=label).locator(
            "input"
        ).click()
        shown.drawn_after(serial)
    assert "without shortcuts" in shown.canvas.get_attribute("aria-label")


def test_an_error_in_the_background_is_one_sentence_and_the_next_choice_goes_on(shown):
    lists = shown.page.locator(".jp-OutputArea .widget-dropdown", has_text="batch norm")
    lists.locator("select").select_option("recalibrated")
    shown.says("no <samples> today: take another batch norm.")
    serial = shown.serial()
    lists.locator("select").select_option("stored")
    shown.drawn_after(serial)


def test_tab_goes_through_all_controls_each_with_a_name_a_tooltip_and_a_ring(shown):
    stops = shown.tab_stops()
    assert all(name and tip and ring >= 2 for name, tip, ring, _ in stops)
    names = [name for name, *_ in stops if not name.endswith(", typed")]
    assert names[:5] == ["depth", "width", "shortcuts", "both, side by side", "directions"]
    assert names[5:10] == ["seed", "rotation °", "span", "scale", "batch norm"]
    assert names[10].startswith("ResNet-8") and names[11:] == ["stop", "reset"]
    assert {name for name, *_ in stops} - set(names) == {
        f"{slider}, typed" for slider in ("depth", "width", "seed", "rotation °", "span")
    }


def test_stop_says_how_to_go_on_and_a_deeper_net_is_trained_by_keys(shown):
    shown.slider("depth").focus()
    shown.page.keyboard.press("ArrowRight")
    shown.page.click(".jp-OutputArea button:text('stop')")
    shown.says("stopped: move a control to go on")
    serial = shown.serial()
    shown.slider("depth").focus()
    shown.page.keyboard.press("ArrowLeft")
    shown.drawn_after(serial)


DEEP = """
import torch
torch.set_num_threads(1)
import lossviz as lv
class Few:
    train = lv.data.digits().train[:64]
lv.explore(Few, depth=8, width=2, points=5, samples=32, epochs=20)
"""


@pytest.fixture
def deep(browser, lab, request):
    page = notebook(browser, lab, f"{request.node.name}.ipynb", DEEP)
    shown = Shown(page)
    shown.says("5 × 5 points, 32 samples, final")
    yield shown
    page.close()


def test_depth_and_width_go_to_their_ends_by_a_key_and_training_is_stopped(deep):
    place = deep.place()
    for key, width in (("End", "32"), ("Home", "2")):
        serial = deep.serial()
        deep.slider("width").focus()
        deep.page.keyboard.press(key)
        deep.root.locator(".widget-readout", has_text=width).wait_for()
        deep.drawn_after(serial)
        deep.says("5 × 5 points, 32 samples, final")
        assert deep.place() == place
    deep.slider("depth").focus()
    deep.page.keyboard.press("End")
    deep.says("training ResNet-302")
    assert deep.slider("depth").get_attribute("aria-valuenow") == "302.0"
    assert deep.place() == place
    deep.root.locator("button", has_text="stop").click()
    deep.says("stopped: move a control to go on")
    assert deep.place() == place


def test_a_cell_that_runs_again_keeps_controls_and_turn_and_reset_forgets_them(deep):
    deep.slider("seed").focus()
    deep.page.keyboard.press("ArrowRight")
    deep.canvas.focus()
    for key in ("ArrowLeft", "ArrowUp", "+"):
        deep.page.keyboard.press(key)
    ahead = "([canvas, turn]) => canvas.dataset.turn !== turn"
    deep.page.wait_for_function(ahead, arg=[deep.canvas.element_handle(), START])
    turn = deep.canvas.get_attribute("data-turn")
    old = deep.canvas.element_handle()
    deep.page.locator(".jp-CodeCell .cm-content").first.click()
    deep.page.keyboard.press("Control+Enter")
    deep.page.wait_for_function("old => !old.isConnected", arg=old)
    deep.page.wait_for_function(
        "turn => document.querySelector('.lossviz canvas')?.dataset.turn === turn", arg=turn
    )
    assert deep.slider("seed").get_attribute("aria-valuenow") == "2.0"
    deep.root.locator("button", has_text="reset").click()
    deep.page.wait_for_function(
        "start => document.querySelector('.lossviz canvas').dataset.turn === start", arg=START
    )
    deep.page.wait_for_function(
        "e => e.getAttribute('aria-valuenow') === '1.0'", arg=deep.slider("seed").element_handle()
    )


def test_nothing_was_asked_of_the_world_outside_and_no_script_failed(shown):
    assert shown.page.problems == [] and shown.page.outside == []
