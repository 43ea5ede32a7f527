"""A real JupyterLab and a real browser for the tests here; skipped where there is none."""

import shutil

import pytest
from jupyter_lab import FLAGS, Lab


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
