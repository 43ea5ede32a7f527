"""What is left of a widget where no kernel runs: the picture as the reader left it."""

import base64
import shutil

import nbformat
import pytest
from jupyter_lab import WAIT, Shown, notebook
from nbconvert import HTMLExporter

CELL = """
import torch
torch.set_num_threads(1)
import lossviz as lv
digits = lv.data.digits().train[:128]
net = lv.models.resnet(8, width=2, seed=0)
lv.fit(net, digits, epochs=2, batch_size=32, lr=0.05, progress=False)
lv.same_function(net, digits, points=5, samples=64)
"""
IMAGE = ".jp-OutputArea .jp-RenderedImage img"
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def saved(browser, lab):
    """Return a notebook, saved after a reader had moved a slider, and what they saw."""
    page = notebook(browser, lab, "still.ipynb", CELL)
    shown = Shown(page)
    shown.says("c = 1: loss")
    place = shown.place()
    shown.slider("c").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    words = shown.says("c = 4: loss")
    seen = "([canvas, image]) => document.querySelector(image).src === canvas.toDataURL()"
    page.wait_for_function(seen, arg=[shown.canvas.element_handle(), IMAGE], timeout=WAIT)
    assert page.locator(IMAGE).is_hidden() and shown.place() == place
    told = shown.label(), words, shown.canvas.evaluate("c => c.toDataURL()").split(",")[1]
    page.keyboard.press("Control+s")
    page.wait_for_selector(".lm-TabBar-tab.jp-mod-current:not(.jp-mod-dirty)", timeout=WAIT)
    for session in lab.ask("api/sessions"):
        lab.ask(f"api/sessions/{session['id']}", method="DELETE")
    page.close()
    return lab.notebooks / "still.ipynb", *told


def test_the_saved_notebook_holds_the_picture_as_it_was_left_and_its_words(saved):
    path, label, words, picture = saved
    still, widget = nbformat.read(path, as_version=4).cells[0].outputs
    assert still.data["image/png"].strip() == picture
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert still.metadata["image/png"]["alt"] == label and words in still.data["text/plain"]
    assert "image/png" not in widget.data


def test_the_page_that_nbconvert_writes_shows_it_once(saved):
    path, *_, picture = saved
    page, _ = HTMLExporter().from_filename(str(path))
    assert page.replace("\n", "").count(picture) == 1
    assert "run this cell for the picture that moves" in page


def test_the_notebook_that_is_opened_again_shows_it(saved, browser, lab):
    path, *_, picture = saved
    shutil.copy(path, lab.notebooks / "again.ipynb")
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.goto(f"{lab.address}/lab/tree/again.ipynb?token={lab.token}&reset")
    page.locator(IMAGE).wait_for(timeout=WAIT)
    assert page.locator(IMAGE).get_attribute("src").split(",")[1].replace("\n", "") == picture
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=WAIT)
    assert page.locator(".lossviz").count() == 0
    page.close()
