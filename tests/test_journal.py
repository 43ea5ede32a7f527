import errno
import json
import multiprocessing
import os
import pickle
import random
import signal
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from little_nets import dense, samples, seeded

import lossviz as lv
from lossviz.journal import Journal
from lossviz.storage import npz_bytes, read_npz

F64 = torch.float64
SPEC = {"model": "a", "axis 0": [0.0, 1.0, 5], "loss at the centre": 1.25}
PARTS = [
    (np.array([0, 1]), {"loss": np.array([0.1, np.nan]), "accuracy": np.array([1.0, 0.5])}),
    (np.array([7]), {"loss": np.array([np.inf]), "accuracy": np.array([0.0])}),
    (np.array([3, 2]), {"loss": np.array([1e-310, -0.0]), "accuracy": np.array([1 / 3, 1e300])}),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s.npz"


def beside(path):
    return Path(f"{path}.journal")


def written(path, parts=PARTS):
    journal = Journal(path, SPEC)
    for part in parts:
        journal.add(*part)
    journal.close()
    return beside(path).read_bytes()


def read(path, spec=SPEC):
    journal = Journal(path, spec)
    entries = list(journal.entries())
    journal.close()
    return entries


def same(entries, parts):
    assert len(entries) == len(parts)
    for (indices, values), (wanted, numbers) in zip(entries, parts, strict=True):
        assert indices.tolist() == wanted.tolist() and set(values) == set(numbers)
        for name in numbers:
            assert np.array_equal(values[name], numbers[name], equal_nan=True)
    return True


# --- the file -------------------------------------------------------------------------------------


def test_what_was_added_is_read_to_the_last_bit(path):
    written(path)
    assert same(read(path), PARTS)


def test_a_journal_cut_off_at_any_byte_keeps_every_whole_line_and_goes_on(path):
    content = written(path)
    for length in range(len(content) + 1):
        beside(path).write_bytes(content[:length])
        whole = max(content[:length].count(b"\n") - 1, 0)
        journal = Journal(path, SPEC)
        journal.add(*PARTS[1])
        assert same(list(journal.entries()), [*PARTS[:whole], PARTS[1]]), length
        journal.close()


def test_a_damaged_line_costs_its_points_only(path):
    lines = written(path).split(b"\n")
    lines[2] = lines[2].replace(b":", b";")
    beside(path).write_bytes(b"\n".join(lines))
    assert same(read(path), [PARTS[0], PARTS[2]])


def test_a_digit_that_changed_on_the_disk_costs_the_points_of_its_line_only(path):
    content = written(path)
    start = content.index(b"\n", content.index(b"\n") + 1)
    end = content.index(b"crc32", start)
    for at in range(start, end):
        if content[at : at + 1].isdigit():
            other = b"1" if content[at : at + 1] != b"1" else b"2"
            beside(path).write_bytes(content[:at] + other + content[at + 1 :])
            assert same(read(path), [PARTS[0], PARTS[2]]), at


ENTRIES = [
    {"i": [0.5], "v": {"loss": [1.0]}}, {"i": [-1], "v": {"loss": [1.0]}},
    {"i": [True], "v": {"loss": [1.0]}}, {"i": ["1"], "v": {"loss": [1.0]}},
    {"i": [float("nan")], "v": {"loss": [1.0]}}, {"i": [2**70], "v": {"loss": [1.0]}},
    {"i": [[0]], "v": {"loss": [[1.0]]}}, {"i": [0, 1], "v": {"loss": [1.0]}},
    {"i": [0], "v": {"loss": [None]}}, {"i": [0], "v": {"loss": ["x"]}},
    {"i": [0], "v": {"loss": 1.0}}, {"i": [0], "v": [1.0]}, {"i": [0]}, {"v": {}}, [], 3, "x", None,
    {"i": "00", "v": {"loss": "11"}}, {"i": {}, "v": {}}, {"i": [0], "v": {"loss": [10**400]}},
]  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_a_line_that_is_no_entry_is_left_out(path, entry):
    written(path)
    if isinstance(entry, dict):  # with a sum that is right, so that it is left out for what it says
        content = json.dumps([entry.get("i"), entry.get("v")]).encode()
        entry = {**entry, "crc32": zlib.crc32(content)}
    with beside(path).open("a") as stream:
        stream.write(json.dumps(entry) + "\n")
    entries = read(path)
    assert same(entries[:3], PARTS) and all(indices.size == 0 for indices, _ in entries[3:])


@given(st.lists(st.binary(max_size=60), max_size=5))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bytes_after_the_first_line_never_break_the_reader(path, lines):
    beside(path).unlink(missing_ok=True)
    head = written(path, [])
    beside(path).write_bytes(head + b"\n".join([*lines, b"[" * 3000, b""]))
    for indices, values in read(path):
        assert all(len(v) == len(indices) for v in values.values())


@pytest.mark.parametrize(
    "content",
    [b"hello", b"hello\n", b"{}\n", b"[1]\n", b'{"journal": "lossviz"}\n', pickle.dumps({1: 2}),
     b'{"journal": "lossviz", "spec": 3}\n', b'{"journal": "other", "spec": {}}\n', b"\xff\xfe\n",
     b"[" * 100_000 + b"\n"],
)  # fmt: skip
def test_a_file_that_is_no_journal_is_refused_and_left_alone(path, content):
    beside(path).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a journal of lossviz: give another path, or del"):
        Journal(path, SPEC)
    assert beside(path).read_bytes() == content


def test_a_journal_of_another_computation_is_refused_and_says_what_differs(path):
    content = written(path)
    said = r"holds another computation \(model: \"a\" there, \"b\" here\): give another path"
    with pytest.raises(ValueError, match=said):
        Journal(path, {**SPEC, "model": "b"})
    assert beside(path).read_bytes() == content


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [(1.25, 1.2501, True), (1.25, 1.26, False), (float("nan"), float("nan"), True),
     (float("nan"), 1.0, False), (float("inf"), float("inf"), True), (0.0, 0.0, True)],
)  # fmt: skip
def test_a_value_measured_again_may_differ_in_the_last_digits(path, found, wanted, same):
    Journal(path, {**SPEC, "loss at the centre": found}).close()
    if same:
        Journal(path, {**SPEC, "loss at the centre": wanted}).close()
    else:
        with pytest.raises(ValueError, match="loss at the centre"):
            Journal(path, {**SPEC, "loss at the centre": wanted})


# --- one writer, a full disk ---------------------------------------------------------------------


def test_a_second_writer_is_refused_and_the_first_goes_on(path):
    pytest.importorskip("fcntl")
    first = Journal(path, SPEC)
    first.add(*PARTS[0])
    with pytest.raises(RuntimeError, match=r"being written by another process: wait for it, or"):
        Journal(path, SPEC)
    first.add(*PARTS[1])
    first.close()
    assert same(read(path), PARTS[:2])


def test_a_file_system_without_locks_is_written_all_the_same(path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    written(path)
    assert same(read(path), PARTS)


class Filling:
    """A disk that takes some bytes more, and then none."""

    def __init__(self, stream, room):
        self.stream, self.room = stream, room

    def write(self, data):
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = self.stream.write(data[: self.room])
        self.room -= n
        return n

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.parametrize("room", [0, 1, 40])
def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_whole_lines(path, room):
    journal = Journal(path, SPEC)
    journal.add(*PARTS[0])
    journal._stream = Filling(journal._stream, room)
    with pytest.raises(OSError, match="No space left"):
        journal.add(*PARTS[1])
    journal._stream.room = 10**6
    journal.add(*PARTS[2])
    journal.close()
    assert same(read(path), [PARTS[0], PARTS[2]])


# --- planes that resume -----------------------------------------------------------------------


@pytest.fixture
def objective():
    return lv.Objective(seeded(dense, dtype=F64), samples(12, 4, dtype=F64))


@pytest.fixture
def pair(objective):
    return [lv.random_direction(objective.model, seed=seed) for seed in (1, 2)]


def with_journal_of(path, objective, pair, kept, **options):
    """Compute a plane, and leave only the journal's first ``kept`` points."""
    from lossviz import grid

    whole = lv.plane(objective, *pair, path=path, **options)
    spec = whole.meta["spec"]
    path.unlink()
    journal = grid.Journal(path, spec)
    for i in kept:
        journal.add(np.array([i]), {k: v.ravel()[[i]] for k, v in whole.values.items()})
    journal.close()
    return whole


@pytest.mark.parametrize("kept", [[], [0], range(24), [24, 3, 3, 7], range(25)])
def test_a_resumed_plane_is_the_uninterrupted_one(path, objective, pair, kept):
    whole = with_journal_of(path, objective, pair, kept, points=5)
    again = lv.plane(objective, *pair, points=5, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"]) and again.done.all()
    assert not beside(path).exists()
    stored = lv.Surface.load(path)
    assert np.array_equal(stored.values["loss"], whole.values["loss"])


def test_what_the_journal_has_is_not_computed_again(path, objective, pair, monkeypatch):
    from lossviz.points import Points

    with_journal_of(path, objective, pair, range(20), points=5)
    asked = []
    evaluate = Points.values
    monkeypatch.setattr(
        Points, "values", lambda self, steps: asked.append(len(steps)) or evaluate(self, steps)
    )
    lv.plane(objective, *pair, points=5, path=path)
    assert sum(asked) == 5


def test_points_that_are_nan_or_zero_are_not_computed_for_ever(path, pair):
    def strange(model, batch):
        return (model(batch[0]) * 0).mean()

    objective = lv.Objective(seeded(dense, dtype=F64), samples(6, 4, dtype=F64), loss=strange)
    whole = with_journal_of(path, objective, pair, range(9), points=3, span=1e300)
    assert np.isnan(whole.values["loss"]).any() and (whole.values["loss"] == 0).any()
    again = lv.plane(objective, *pair, points=3, span=1e300, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"], equal_nan=True)


def test_a_refinement_with_a_tolerance_resumes_to_the_same_choice_of_points(path, objective, pair):
    options = {"points": 33, "span": 0.5, "tolerance": 0.05}
    *_, whole = lv.refine(objective, *pair, **options)
    assert 0 < whole.done.sum() < whole.done.size
    journal = Journal(path, whole.meta["spec"])
    for i in np.flatnonzero(whole.done)[::2]:
        journal.add(np.array([i]), {k: v.ravel()[[i]] for k, v in whole.values.items()})
    journal.close()
    *_, again = lv.refine(objective, *pair, path=path, **options)
    assert np.array_equal(again.done, whole.done)
    # other points are computed together now, which may round the last bit another way
    assert np.allclose(again.values["loss"], whole.values["loss"], rtol=1e-14, atol=0)
    *_, stored = lv.refine(objective, *pair, path=path, **options)
    assert np.array_equal(stored.values["loss"], again.values["loss"])


def test_a_finished_file_is_returned_without_being_written(path, objective, pair):
    whole = lv.plane(objective, *pair, points=5, path=path)
    before = path.stat().st_mtime_ns
    again = lv.plane(objective, *pair, points=5, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"])
    assert path.stat().st_mtime_ns == before and len(list(path.parent.iterdir())) == 1


def test_a_part_saved_by_hand_is_completed(path, objective, pair):
    first, *_ = lv.refine(objective, *pair, points=9)
    first.save(path)
    whole = lv.plane(objective, *pair, points=9, path=path)
    assert whole.done.all() and lv.Surface.load(path).done.all()
    assert [p.name for p in path.parent.iterdir()] == ["s.npz"]


def test_a_journal_left_by_a_kill_between_file_and_clean_up_goes(path, objective, pair):
    whole = lv.plane(objective, *pair, points=3, path=path)
    Journal(path, whole.meta["spec"]).close()
    lv.plane(objective, *pair, points=3, path=path)
    assert [p.name for p in path.parent.iterdir()] == ["s.npz"]


def test_indices_out_of_range_and_other_quantities_are_left_out(path, objective, pair):
    whole = with_journal_of(path, objective, pair, range(5), points=3)
    journal = Journal(path, whole.meta["spec"])
    journal.add(np.array([9]), {k: np.zeros(1) for k in whole.values})
    journal.add(np.array([6, 10**6]), {k: np.zeros(2) for k in whole.values})
    journal.add(np.array([7]), {"loss": np.zeros(1)})
    journal.close()
    again = lv.plane(objective, *pair, points=3, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"span": 0.5}, r"axis 0: \[-1.0, 1.0, 5\] there, \[-0.5, 0.5, 5\] here"),
     ({"points": 7}, r"axis 0: \[-1.0, 1.0, 5\] there, \[-1.0, 1.0, 7\] here")],
)  # fmt: skip
@pytest.mark.parametrize("finished", [True, False])
def test_a_file_of_another_grid_is_refused(path, objective, pair, change, said, finished):
    options = {"points": 5, "path": path}
    with_journal_of(path, objective, pair, [0], points=5)
    if finished:
        lv.plane(objective, *pair, **options)
    with pytest.raises(ValueError, match=said):
        lv.plane(objective, *pair, **{**options, **change})


def test_a_file_of_another_run_is_refused_and_names_what_differs(path, objective, pair):
    lv.plane(objective, *pair, points=3, path=path)
    content = path.read_bytes()
    other = lv.Objective(seeded(dense, seed=1, dtype=F64), samples(12, 4, dtype=F64))
    fewer = lv.Objective(objective.model, samples(11, 4, dtype=F64))
    third = lv.random_direction(objective.model, seed=3)
    for named, call in {
        "weights": (other, *pair), "n_samples: 12 there, 11 here": (fewer, *pair),
        r'direction 1: "random, seed 2 .* "random, seed 3 ': (objective, pair[0], third),
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"another computation .*{named}.*give another path"):
            lv.plane(*call, points=3, path=path)
    assert path.read_bytes() == content


def test_two_losses_of_one_name_are_told_apart(path, pair):
    def loss_of(factor):
        def loss(model, batch):
            return factor * model(batch[0]).square().mean()

        return loss

    net, data = seeded(dense, dtype=F64), samples(6, 4, dtype=F64)
    lv.plane(lv.Objective(net, data, loss=loss_of(1.0)), *pair, points=3, path=path)
    with pytest.raises(ValueError, match="loss at the centre"):
        lv.plane(lv.Objective(net, data, loss=loss_of(1.1)), *pair, points=3, path=path)


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps({"loss": 1}), b"PK\x03\x04"])
def test_a_file_that_is_none_of_ours_is_neither_read_nor_overwritten(
    path, objective, pair, content
):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is not a surface of lossviz, or it is damaged: give"):
        lv.plane(objective, *pair, points=3, path=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("spec", [None, 3, [], "x"])
def test_a_file_that_says_nothing_of_its_run_is_refused(path, objective, pair, spec):
    lv.plane(objective, *pair, points=3, path=path)
    arrays, meta = read_npz(path, "surface")
    meta["meta"]["spec"] = spec
    path.write_bytes(npz_bytes(arrays, meta))
    with pytest.raises(ValueError, match="another computation"):
        lv.plane(objective, *pair, points=3, path=path)


def test_a_file_whose_arrays_are_not_what_it_says_is_refused(path, objective, pair):
    lv.plane(objective, *pair, points=3, path=path)
    arrays, meta = read_npz(path, "surface")
    cut = {"axis_0": arrays["axis_0"][:2]}
    cut |= {k: v[:2] for k, v in arrays.items() if k.startswith("value_") or k == "done"}
    path.write_bytes(npz_bytes({**arrays, **cut}, meta))
    with pytest.raises(ValueError, match=r"another grid than it says: delete it, or name another"):
        lv.plane(objective, *pair, points=3, path=path)


# --- a disk that cannot be written: nothing computed is lost -------------------------------------


def test_a_folder_without_permission_is_said_before_anything_is_computed(
    path, objective, pair, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda *args: False)
    monkeypatch.setattr(objective, "check_repeatable", lambda: pytest.fail("computed"))
    with pytest.raises(PermissionError, match=r"cannot be written: name a file in a folder where"):
        lv.plane(objective, *pair, points=3, path=path)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path, objective, pair):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=r"no folder '.*file' for 's.npz': create it, or"):
        lv.plane(objective, *pair, points=3, path=tmp_path / "file" / "s.npz")


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_the_end_hands_over_the_surface_and_keeps_the_journal(
    path, objective, pair, monkeypatch
):
    whole = lv.plane(objective, *pair, points=5)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"'s.npz' cannot be written .*full.*error's .surface"
    ) as told:
        lv.plane(objective, *pair, points=5, path=path)
    assert np.array_equal(told.value.surface.values["loss"], whole.values["loss"])
    monkeypatch.undo()
    assert [p.name for p in path.parent.iterdir()] == ["s.npz.journal"]
    again = lv.plane(objective, *pair, points=5, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"])


def test_a_disk_that_fills_up_midway_hands_over_what_there_is(path, objective, pair, monkeypatch):
    append, lines = Journal._append, []

    def filling(journal, entry):
        lines.append(entry)
        full() if len(lines) > 3 else append(journal, entry)

    objective.forward.quick = False  # a line per point
    monkeypatch.setattr(Journal, "_append", filling)
    with pytest.raises(OSError, match=r"make room or name another path") as told:
        lv.plane(objective, *pair, points=5, path=path)
    assert told.value.errno == errno.ENOSPC and told.value.surface.done.sum() == 3


def test_a_disk_that_is_full_from_the_start_says_so(path, objective, pair, monkeypatch):
    monkeypatch.setattr(Journal, "_append", full)
    with pytest.raises(OSError, match=r"'s.npz' cannot be written \(No space left"):
        lv.plane(objective, *pair, points=3, path=path)


def test_a_refinement_hands_over_what_there_is_too(path, objective, pair, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    surfaces = lv.refine(objective, *pair, points=5, path=path)
    with pytest.raises(OSError, match="cannot be written") as told:
        list(surfaces)
    assert told.value.surface.done.all()


# --- kills and rivals, in real processes --------------------------------------------------------


def forked(target, *args):
    """A process of its own, without the seconds that importing torch takes."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot be forked here")
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


def slowly(objective, pair, path, pause):
    evaluate = objective.forward.totals

    def slow(state):
        time.sleep(pause)
        return evaluate(state)

    objective.forward.totals = slow
    lv.plane(objective, *pair, points=9, path=path, progress=False)


def lines(path):
    return beside(path).read_bytes().count(b"\n") if beside(path).exists() else 0


def wait_for_lines(path, process, n):
    while lines(path) < n:
        assert process.is_alive()
        time.sleep(0.0005)


def test_a_plane_that_is_killed_again_and_again_resumes_to_the_uninterrupted_one(
    path, objective, pair
):
    objective.forward.quick = False  # a line per point
    whole = lv.plane(objective, *pair, points=9)
    moments, kept = random.Random(0), [0]
    for n in (1, 4, 15, 40, 60):
        process = forked(slowly, objective, pair, path, 0.002)
        wait_for_lines(path, process, n)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        assert not path.exists() and lines(path) >= kept[-1]
        kept.append(lines(path))
    assert kept[-1] < 82
    again = lv.plane(objective, *pair, points=9, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"])
    assert [p.name for p in path.parent.iterdir()] == ["s.npz"]


def test_a_kill_while_the_file_is_written_leaves_it_whole_or_absent(path, objective, pair):
    def dying(*args):
        os.kill(os.getpid(), signal.SIGKILL)

    whole = lv.plane(objective, *pair, points=5)
    for step in ("fsync", "replace", "unlink"):

        def plane(step=step):
            setattr(os, step, dying)
            lv.plane(objective, *pair, points=5, path=path)

        process = forked(plane)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if path.exists():
            assert lv.Surface.load(path).done.all()
    again = lv.plane(objective, *pair, points=5, path=path)
    assert np.array_equal(again.values["loss"], whole.values["loss"])
    assert not beside(path).exists()


def test_ctrl_c_in_a_real_process_leaves_a_journal_and_no_half_written_file(path, objective, pair):
    objective.forward.quick = False
    process = forked(slowly, objective, pair, path, 0.1)
    wait_for_lines(path, process, 4)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 0
    assert [p.name for p in path.parent.iterdir()] == ["s.npz.journal"]


def test_of_two_processes_on_one_path_one_computes_and_the_other_is_told(path, objective, pair):
    pytest.importorskip("fcntl")
    objective.forward.quick = False
    process = forked(slowly, objective, pair, path, 0.01)
    wait_for_lines(path, process, 2)
    with pytest.raises(RuntimeError, match="is being written by another process"):
        lv.plane(objective, *pair, points=9, path=path)
    process.join()
    assert process.exitcode == 0 and lv.Surface.load(path).done.all()
