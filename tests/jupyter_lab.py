"""A JupyterLab of its own, for tests and benchmarks that need a real page."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest

FLAGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WAIT = 120_000  # ms, for a crowded machine
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false", "checkForUpdates": False,
    },
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}  # fmt: skip


FOCUSED = """() => {
    const e = document.activeElement, ring = parseFloat(getComputedStyle(e).outlineWidth);
    const name = e.getAttribute("aria-label") || e.innerText || e.labels?.[0]?.innerText;
    const tip = e.title || document.getElementById(e.getAttribute("aria-describedby"))?.innerText;
    return [name, tip, e.closest(".lossviz") ? ring : 0, e.tagName];
}"""


class Lab:
    """A JupyterLab on a port of its own, with settings of its own."""

    def __init__(self, folder):
        self.folder, self.token = folder, secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        for name, content in SETTINGS.items():
            path = folder / "settings" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}
        own |= {"JUPYTER_RUNTIME_DIR": "run", "JUPYTERLAB_SETTINGS_DIR": "settings"}
        own |= {"JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             f"--port={self.port}", f"--IdentityProvider.token={self.token}",
             f"--ServerApp.root_dir={self.notebooks}", "--ServerApp.port_retries=0"],
            env={**os.environ, **{k: str(folder / v) for k, v in own.items()}},
            stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def ask(self, path, content=None, method=None):
        """Return what the server answers to a request, as Python objects."""
        data = None if content is None else json.dumps(content).encode()
        head = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.address}/{path}", data=data, headers=head, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def wait(self, seconds=60):
        """Wait until the server answers."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.ask("api/status")
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def add(self, name, *sources):
        """Write a notebook with these cells, and start its kernel."""
        # without the name of a kernel in it, JupyterLab now and then asks for one in a dialog
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
        made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(made, self.notebooks / name)
        told = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
        self.ask("api/sessions", told)

    def close(self):
        """End the kernels and the server."""
        for session in self.ask("api/sessions"):
            self.ask(f"api/sessions/{session['id']}", method="DELETE")
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


class Shown:
    """A widget of the kit in a notebook that is open, and what a reader does to it."""

    def __init__(self, page, cell=0):
        self.page = page
        self.root = page.locator(".jp-CodeCell").nth(cell).locator(".lossviz")
        self.canvas = self.root.locator("canvas")

    def says(self, text):
        """Wait until the line under the picture says this; return the line."""
        line = self.root.locator(".lossviz-words", has_text=text)
        try:
            line.wait_for(timeout=WAIT)
        except Exception as problem:
            problem.add_note(f"it says: {self.root.locator('.lossviz-words').inner_text()}")
            raise
        return line.inner_text()

    def label(self):
        """Return what the picture is in words."""
        return self.canvas.get_attribute("aria-label")

    def serial(self):
        """Return the number of the picture that is drawn."""
        return int(self.canvas.get_attribute("data-serial") or 0)

    def drawn_after(self, serial, *words):
        """Wait until a later picture than this is drawn whose label has these words."""
        self.page.wait_for_function(
            "([canvas, serial, words]) => +canvas.dataset.serial > serial"
            " && words.every(each => canvas.getAttribute('aria-label').includes(each))",
            arg=[self.canvas.element_handle(), serial, list(words)],
            timeout=WAIT,
        )

    def slider(self, name):
        """Return the handle of a slider."""
        return self.root.locator(".widget-hslider", has_text=name).locator("[role=slider]")

    def tab_stops(self):
        """Go through all controls by the Tab key; return name, tooltip, ring and kind of each."""
        stops = self.root.locator("button, [role=slider], [contenteditable], select, input, canvas")
        stops.first.focus()
        self.page.keyboard.press("Shift")  # the browser shows rings to readers at the keys
        found = []
        for _ in range(stops.count()):
            found.append(self.page.evaluate(FOCUSED))
            self.page.keyboard.press("Tab")
        return found

    def place(self):
        """Return where the widget is in the page, and how large."""
        return self.root.bounding_box()


def notebook(browser, lab, name, *sources):
    """Open a notebook with these cells and run them; return its page, problems and requests."""
    lab.add(name, *sources)
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.set_default_timeout(WAIT)
    page.problems, page.outside = [], []
    ours = (lab.address, lab.address.replace("http", "ws"), "data:", "blob:")

    def note(request):
        if not request.url.startswith(ours):
            page.outside.append(request.url)

    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", note)
    page.goto(f"{lab.address}/lab/tree/{name}?token={lab.token}&reset")
    run_all(page, WAIT)
    return page


def run_all(page, timeout):
    """Run all cells of the notebook that is open; once more if JupyterLab let the click pass."""
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell .jp-InputPrompt", timeout=timeout)
    idle = ".jp-Notebook-ExecutionIndicator[data-status='idle']"
    page.wait_for_selector(idle, timeout=timeout)
    page.wait_for_selector(".jp-Toolbar-kernelName:has-text('Python 3')", timeout=timeout)
    begun = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\[(\*|\d+)\]"))
    for _ in range(5):
        accept = page.locator("dialog.jp-Dialog:has-text('Select Kernel') .jp-mod-accept")
        if accept.count():  # the click came before the page had found its kernel
            accept.first.click()
        page.click("div.lm-MenuBar-itemLabel:text-is('Run')")
        page.click("li[data-command='runmenu:run-all'] >> visible=true")
        with contextlib.suppress(Exception):
            begun.first.wait_for(timeout=timeout / 20)
            return
    raise RuntimeError("JupyterLab did not begin to run the notebook: see its log.")


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium on this machine: install it (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    made = Lab(tmp_path_factory.mktemp("lab"))
    try:
        made.wait()
        yield made
        made.close()
    finally:
        made.process.kill()
