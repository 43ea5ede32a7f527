"""Print how soon the explorer answers: key press to changed picture, in a real browser.

    python tests/benchmarks/widgets.py              # depths 20 and 56, about 2 minutes

Each row is 24 presses of one key, while the picture of the last is being refined; the time runs
from the key event in the page to the drawn canvas. Then two nets that come with the kit, asked for
two seconds after the final picture of another. Then the time to the final picture, beside a loop
over the same points and loss-landscapes (where it is installed): medians of three rounds, in turn.
"""

import argparse
import copy
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import lossviz as lv

sys.path.insert(0, str(Path(__file__).parent.parent))
from jupyter_lab import FLAGS, Lab, run_all

CELL = """
import lossviz as lv
explorer = lv.explore(lv.data.digits(), depth={depth})
explorer
"""
WATCH = """() => {
  const canvas = document.querySelector('.jp-OutputArea canvas');
  window.taken = []; let pressed = null;
  document.addEventListener('keydown', () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (pressed !== null) { window.taken.push(performance.now() - pressed); pressed = null; }
  }).observe(canvas, { attributes: true, attributeFilter: ['data-serial'] });
}"""
FINAL = "document.body.innerText.includes('33 × 33 points, 256 samples, final')"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--depths", type=int, nargs="*", default=[20, 56])
    options.add_argument("--presses", type=int, default=24)
    chosen = options.parse_args()
    for depth in chosen.depths:
        in_the_browser(depth, chosen.presses)
    final_picture()


def in_the_browser(depth: int, presses: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        lab = Lab(Path(folder))
        try:
            lab.wait()
            page = opened(browser, lab, depth)
            for name in ("seed", "rotation", "span"):
                seconds = pressed(page, name, presses)
                middle, high = np.percentile(seconds, [50, 95])
                print(f"depth {depth}, {name:8}: median {middle:4.0f} ms, p95 {high:4.0f} ms")
            for words, seconds in loaded(page, depth):
                print(f"depth {depth}, {words}: {seconds:4.0f} ms")
            lab.close()
        finally:
            lab.process.kill()
            browser.close()


def opened(browser, lab, depth):
    lab.add("w.ipynb", CELL.format(depth=depth))
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(300_000)
    page.goto(f"{lab.address}/lab/tree/w.ipynb?token={lab.token}&reset")
    run_all(page, 120_000)
    page.wait_for_selector(".jp-OutputArea canvas")
    page.wait_for_function(FINAL)
    page.evaluate(WATCH)
    return page


def loaded(page, depth: int):
    """Yield words and milliseconds for nets that come with the kit, each asked for once."""
    box = page.get_by_label("shortcuts", exact=True)
    slider = page.locator(".jp-OutputArea .widget-hslider", has_text="depth").first
    handle = slider.locator(".noUi-handle").first
    for words, place, key in (
        (f"shipped net, {depth} without shortcuts", box, "Space"),
        ("shipped net, 8 without shortcuts", handle, "Home"),
    ):
        page.wait_for_timeout(2000)
        page.evaluate("() => { window.taken = []; }")
        place.focus()
        page.keyboard.press(key)
        page.wait_for_function("window.taken.length > 0")
        yield words, page.evaluate("() => window.taken[0]")
        page.wait_for_timeout(300)
        page.wait_for_function(FINAL)


def pressed(page, name: str, presses: int) -> list[float]:
    page.evaluate("() => { window.taken = []; }")
    row = page.locator(".jp-OutputArea .widget-hslider", has_text=name)
    row.locator(".noUi-handle").first.focus()
    for n in range(presses):
        page.keyboard.press("ArrowRight" if n % 2 == 0 or name == "seed" else "ArrowLeft")
        page.wait_for_function(f"window.taken.length > {n}")
        page.wait_for_timeout(300)
    page.wait_for_function(FINAL)
    return page.evaluate("() => window.taken")


def final_picture() -> None:
    train = lv.data.digits().train[:256]
    net = lv.models.resnet(20, width=8, seed=0)
    lv.fit(net, train, epochs=1, batch_size=64, lr=0.1, progress=False)
    u, v = (lv.random_direction(net, seed=seed) for seed in (1, 2))
    ways = {"the kit": lambda: the_kit(net, train, u, v)}
    ways["a plain loop"] = lambda: plain_loop(net, train, u, v)
    try:
        import loss_landscapes
        from loss_landscapes.metrics import Loss

        metric = Loss(torch.nn.CrossEntropyLoss(), train.inputs, train.targets)
        ways["loss-landscapes"] = lambda: loss_landscapes.random_plane(
            copy.deepcopy(net), metric, 1.0, 33, "filter"
        )
    except ImportError:
        print("loss-landscapes is not installed: pip install loss-landscapes")
    rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(3)]
    seconds = {name: np.median([each[name] for each in rounds]) for name in ways}
    for name, value in seconds.items():
        told = f"{value / seconds['the kit']:.1f} times the kit"
        print(f"33 × 33 points, ResNet-20, 256 samples, {name:15}: {value:5.1f} s, {told}")


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def the_kit(net, train, u, v):
    lv.plane(lv.Objective(net, train), u, v, points=33, progress=False)


def plain_loop(net, train, u, v):
    moved, criterion = copy.deepcopy(net), torch.nn.CrossEntropyLoss()
    with torch.no_grad():
        for a in np.linspace(-1, 1, 33):
            for b in np.linspace(-1, 1, 33):
                for (name, w), own in zip(net.named_parameters(), moved.parameters(), strict=True):
                    own.copy_(w + a * u[name] + b * v[name])
                criterion(moved(train.inputs), train.targets).item()


if __name__ == "__main__":
    main()
