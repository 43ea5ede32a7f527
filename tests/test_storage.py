import contextlib
import errno
import io
import os
import pickle
import stat
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lossviz import storage
from lossviz.storage import atomic_write, check_writable, fingerprint, npz_bytes, read_npz

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([True, False])}
META = {"kind": "surface", "word": "α", "missing": float("nan")}
quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "s.npz"
    atomic_write(path, npz_bytes(ARRAYS, META))
    return path


# --- written whole or not at all ------------------------------------------------------------------


def test_what_was_written_is_read(path):
    arrays, meta = read_npz(path, "surface")
    assert all(np.array_equal(arrays[k], ARRAYS[k]) for k in ARRAYS) and set(arrays) == {"a", "b"}
    assert meta["word"] == "α" and np.isnan(meta["missing"])


def test_writing_leaves_one_file_with_the_rights_of_any_other(path):
    (path.parent / "other").write_text("x")
    rights = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent / "other")]
    assert rights[0] == rights[1]
    assert sorted(p.name for p in path.parent.iterdir()) == ["other", "s.npz"]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("problem", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_whatever_goes_wrong_the_old_file_stays_and_no_half_one(path, monkeypatch, step, problem):
    before = path.read_bytes()

    def fail(*args):
        raise problem

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(problem)):
        atomic_write(path, b"new")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["s.npz"]


def test_a_full_disk_is_said_to_be_one(path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk is full: 's.npz' was not written.*free 0.0 MiB"):
        atomic_write(path, b"new")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*gone' for 's.npz': create it"):
        check_writable(tmp_path / "gone" / "s.npz")


def test_a_folder_that_is_a_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*s.npz' for 'x.npz'"):
        check_writable(path / "x.npz")


def test_a_file_that_is_a_folder_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=r"is a folder: name a file in it"):
        check_writable(tmp_path)


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(PermissionError, match=r"s.npz' cannot be written: name a file in a folder"):
        atomic_write(tmp_path / "s.npz", b"")


# --- read without trust -------------------------------------------------------------------------


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*gone.npz': check the name"):
        read_npz(tmp_path / "gone.npz", "surface")


def test_a_file_of_another_kind_says_which(path):
    with pytest.raises(ValueError, match=r"'s.npz' holds a surface, not a trajectory: give a file"):
        read_npz(path, "trajectory")


def refused(path):
    with pytest.raises(ValueError, match=r"is not a surface of lossviz, or it is damaged: give"):
        read_npz(path, "surface")
    return True


def test_a_file_cut_off_at_any_byte_is_refused(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert refused(path)


@given(st.data())
@quick
def test_a_file_with_a_damaged_byte_is_refused_or_read_right(path, data):
    content = bytearray(npz_bytes(ARRAYS, META))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        read_npz(path, "surface")


@given(st.binary(max_size=300))
@quick
def test_any_bytes_are_refused(path, content):
    path.write_bytes(content)
    assert refused(path)


class Hostile:
    def __reduce__(self):
        return os.mkdir, (Hostile.target,)


@pytest.fixture
def trap(tmp_path):
    Hostile.target = str(tmp_path / "unpickled")
    yield Hostile()
    assert not os.path.exists(Hostile.target)


def test_a_pickle_under_the_name_of_a_surface_is_not_unpickled(path, trap):
    path.write_bytes(pickle.dumps(trap))
    assert refused(path)


def test_a_torch_file_is_not_unpickled(path, trap):
    torch.save(trap, path)
    assert refused(path)


@pytest.mark.parametrize("name", ["a", "meta"])
def test_an_array_of_objects_is_not_unpickled(path, trap, name):
    np.savez(path, **{**ARRAYS, "meta": np.zeros(1), name: np.array([trap], dtype=object)})
    assert refused(path)


@pytest.mark.parametrize("meta", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000, b'{"kind": 1'])
def test_meta_that_is_no_mapping_is_refused(path, meta):
    np.savez(path, meta=np.frombuffer(meta, np.uint8))
    assert refused(path)


def test_a_lone_array_is_refused(path):
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    path.write_bytes(stream.getvalue())
    assert refused(path)


def test_a_folder_is_refused(tmp_path):
    assert refused(tmp_path)


def header(shape):
    stream = io.BytesIO()
    described = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(10**15,), (2**62, 4), (-1,), (3,)])
def test_an_array_that_promises_more_than_is_there_is_refused(path, shape):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header(shape))
        archive.writestr("meta.npy", header((0,)))
    assert refused(path)


def test_a_small_file_that_would_fill_the_memory_is_refused(path, monkeypatch):
    monkeypatch.setattr(storage, "BOMB", (10_000, 100))
    np.savez_compressed(path, bomb=np.zeros(10**6), meta=np.zeros(1))
    assert path.stat().st_size < 10_000
    read = []
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: read.append(args))
    assert refused(path) and not read


def test_a_large_surface_of_one_value_is_read(path):
    atomic_write(path, npz_bytes({"a": np.full((300, 300), np.nan)}, META))
    assert read_npz(path, "surface")[0]["a"].shape == (300, 300)


# --- fingerprints -----------------------------------------------------------------------------


def test_a_fingerprint_does_not_depend_on_the_order_of_a_mapping():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


@pytest.mark.parametrize("one, other", [
    (1, 1.0), (True, 1), ("1", 1), (None, "None"), ((1, 2), (1, (2,))), (b"a", "a"),
    (np.zeros(2), np.zeros(2, np.float32)), (np.zeros((1, 2)), np.zeros(2)),
    (torch.zeros(2, dtype=torch.half), torch.zeros(2)), (["ab"], ["a", "b"]), ({"a": 1}, ["a", 1]),
])  # fmt: skip
def test_what_differs_has_another_fingerprint(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_a_tensor_and_its_array_have_one_fingerprint():
    values = torch.randn(3, 4)
    assert fingerprint(values) == fingerprint(values.numpy())
    assert fingerprint(values.T) == fingerprint(values.T.contiguous())
    assert len(fingerprint(torch.zeros(2, dtype=torch.bfloat16))) == 16


def test_a_fingerprint_of_something_else_is_refused():
    with pytest.raises(TypeError, match=r"cannot take a set: give tensors"):
        fingerprint({1, 2})


def test_bfloat16_and_float32_of_the_same_values_are_two_things():
    assert fingerprint(torch.ones(2, dtype=torch.bfloat16)) != fingerprint(torch.ones(2))


def test_a_link_stays_a_link_and_a_private_file_private(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    atomic_write(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
