import signal

import matplotlib
import pytest
import torch
from jupyter_lab import browser, lab  # noqa: F401 (fixtures of the tests in a browser)
from matplotlib import pyplot as plt

matplotlib.use("Agg")


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard():
    """A shell that runs the tests in the background has them ignore Ctrl-C, which some send."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def one_thread():
    """Nets this small lose more to threads that wait for each other than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_figure_left_open():
    yield
    plt.close("all")
