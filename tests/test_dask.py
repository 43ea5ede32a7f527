"""A real cluster: worker processes of Dask that die, and a driver that does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lossviz as lv
from lossviz.grid import Grid
from lossviz.points import Points

distributed = pytest.importorskip("distributed", reason="distributed is an extra")
HERE = Path(__file__).parent
POINTS = 9


def job():
    """The net, its samples and a plane: the same in every process that asks."""
    net = lv.models.resnet(8, width=2, channels=1, seed=0)
    return lv.Objective(net, lv.data.digits().train[:32]), [
        lv.random_direction(net, seed=seed) for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def serial():
    objective, pair = job()
    return lv.plane(objective, *pair, points=POINTS, progress=False)


@pytest.fixture(scope="module")
def cluster():
    settings = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(**settings, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client(cluster):
    """A worker that was killed is replaced by Dask's nanny."""
    cluster.wait_for_workers(2)
    return cluster


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr("lossviz.grid.SECONDS_PER_TILE", 1e-9)
    monkeypatch.setattr("lossviz.points.MOST_POINTS", 3)


def same(serial, other):
    assert other.done.all()
    for name, values in serial.values.items():
        assert other.values[name] == pytest.approx(values, rel=1e-6)


def test_two_worker_processes_give_what_one_process_gives(client, serial):
    pids = set(client.run(os.getpid).values())
    assert len(pids) == 2 and os.getpid() not in pids
    objective, pair = job()
    same(serial, lv.plane(objective, *pair, points=POINTS, executor=client.get_executor()))


def test_a_worker_that_is_killed_costs_its_tiles_and_nothing_else(client, serial, monkeypatch):
    """SIGKILL as soon as tiles arrive: the surface is whole, and work went on on the cluster."""
    objective, pair = job()
    victim = next(iter(client.run(os.getpid).values()))
    note, killed, here = Grid._note, [], []

    def noted(grid, *part):
        note(grid, *part)
        if not killed:
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    monkeypatch.setattr(Grid, "_note", noted)
    values = Points.values
    monkeypatch.setattr(Points, "values", lambda self, at: here.append(len(at)) or values(self, at))
    spread = lv.plane(objective, *pair, points=POINTS, executor=client.get_executor())
    assert killed and victim not in set(client.run(os.getpid).values())
    assert not here  # nothing fell back on the driver
    same(serial, spread)


DRIVER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import distributed
import lossviz as lv, lossviz.grid, lossviz.points
from test_dask import POINTS, job

if __name__ == "__main__":
    lossviz.grid.SECONDS_PER_TILE, lossviz.points.MOST_POINTS = 1e-9, 3
    note = lossviz.grid.Grid._note

    def noted(grid, *part):
        note(grid, *part)
        if grid.done.sum() > 30:
            os.kill(os.getpid(), signal.SIGKILL)

    lossviz.grid.Grid._note = noted
    objective, pair = job()
    with distributed.Client(sys.argv[2]) as client:
        lv.plane(objective, *pair, points=POINTS, path=sys.argv[3], executor=client.get_executor())
"""


def test_a_driver_that_is_killed_goes_on_where_it_was(client, serial, tmp_path, monkeypatch):
    script, path = tmp_path / "driver.py", tmp_path / "s.npz"
    script.write_text(DRIVER)
    command = [sys.executable, script, HERE, client.scheduler.address, path]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not path.exists() and (tmp_path / "s.npz.journal").exists()
    computed = []
    note = Grid._note
    monkeypatch.setattr(
        Grid,
        "_note",
        lambda grid, indices, values: computed.extend(indices) or note(grid, indices, values),
    )
    objective, pair = job()
    spread = lv.plane(objective, *pair, points=POINTS, path=path, executor=client.get_executor())
    same(serial, spread)
    assert 0 < len(computed) < POINTS**2 - 25
    same(serial, lv.Surface.load(path))
    assert [p.name for p in tmp_path.glob("s.npz*")] == ["s.npz"]
