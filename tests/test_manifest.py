import json
import shutil

import numpy as np
import pytest

from lossviz import manifest
from lossviz.shipped import data_folder, shipped

MAKE = """python -c "from pathlib import Path; Path('data/numbers.txt').write_text('{}')" """
SHA256 = "7c8f5059290305cec8323d79521f0353c9ac308b60cb4c1976340d0ce4a121d5"  # "1 2 3", by sha256sum


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with one recorded file."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "numbers.txt").write_text("1 2 3")
    monkeypatch.setenv("LOSSVIZ_DATA", str(folder))
    manifest.record("numbers.txt", command=MAKE.format("1 2 3"), seed=4, source="a hat")
    return folder


def test_everything_shipped_is_as_recorded():
    assert manifest.problems() == []


def test_every_entry_has_a_command_and_versions():
    for name, entry in manifest.read().items():
        assert entry["command"].startswith("python "), name
        assert entry["versions"], name
        assert "seed" in entry, name


def test_digits_come_out_of_the_published_text_files_by_their_command(tmp_path, monkeypatch):
    stored = np.load(shipped("digits.npz"))
    for part, ending in (("train", "tra"), ("test", "tes")):
        labels = stored[f"{part}_labels"][:, None]
        rows = np.concatenate([stored[f"{part}_images"].reshape(-1, 64), labels], axis=1)
        np.savetxt(tmp_path / f"optdigits.{ending}", rows, fmt="%d", delimiter=",")
    (tmp_path / "data").mkdir()
    for name in ("digits.npz", "manifest.json"):
        shutil.copy(data_folder() / name, tmp_path / "data")
    (tmp_path / "data" / "digits.npz").write_bytes(b"something else")
    monkeypatch.setenv("LOSSVIZ_DATA", str(tmp_path / "data"))
    manifest.remake("digits.npz")
    made = np.load(tmp_path / "data" / "digits.npz")
    assert set(made.files) == set(stored.files)
    assert all(np.array_equal(made[name], stored[name]) for name in stored.files)


def test_an_entry_holds_what_was_given_and_measured(folder):
    entry = manifest.read()["numbers.txt"]
    assert (entry["seed"], entry["source"], entry["bytes"]) == (4, "a hat", 5)
    assert entry["sha256"] == SHA256


def test_a_changed_file_is_a_problem(folder):
    (folder / "numbers.txt").write_text("1 2 4")
    assert ["not the file that was recorded" in problem for problem in manifest.problems()] == [
        True
    ]


def test_a_missing_file_is_a_problem(folder):
    (folder / "numbers.txt").unlink()
    assert ["missing" in problem for problem in manifest.problems()] == [True]


def test_a_file_without_an_entry_is_a_problem_unless_it_is_a_text_about_others(folder):
    for name in ("extra.npz", "README.md", "LICENSE-x"):
        (folder / name).write_text("")
    assert ["extra.npz" in problem for problem in manifest.problems()] == [True]


def test_remaking_tells_whether_the_file_is_the_same(folder):
    assert manifest.remake("numbers.txt")
    manifest.record("numbers.txt", command=MAKE.format("5"), seed=4)
    assert not manifest.remake("numbers.txt")
    assert (folder / "numbers.txt").read_text() == "5"
    assert manifest.problems() == []


def test_remaking_keeps_seed_and_source(folder):
    manifest.remake("numbers.txt")
    entry = manifest.read()["numbers.txt"]
    assert (entry["seed"], entry["source"]) == (4, "a hat")


def test_a_command_that_fails_leaves_the_manifest_and_says_what_it_needs(folder, capfd):
    manifest.record("numbers.txt", command='python -c "raise SystemExit(3)"', source="a hat")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(ValueError, match=r"failed.*a hat"):
        manifest.remake("numbers.txt")
    assert (folder / "manifest.json").read_bytes() == before


def test_a_file_has_one_name_in_the_manifest(folder):
    (folder / "more.txt").write_text("x")
    manifest.record("./more.txt", command="true")
    assert manifest.problems() == [] and "more.txt" in manifest.read()
    with pytest.raises(ValueError, match="does not lie in the data folder"):
        manifest.record("../more.txt", command="true")


def test_remaking_what_has_no_entry_is_an_error(folder):
    with pytest.raises(ValueError, match=r"no entry: take one of numbers\.txt"):
        manifest.remake("other")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "{", '{"files": []}', '{"files": {"a": {}}}', '{"files": {"a": 1}}']
)
def test_a_damaged_manifest_is_an_error(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        manifest.read()


def test_the_command_line_verifies_remakes_and_records(folder, capfd):
    assert manifest.main(["verify"]) == 0
    assert manifest.main(["remake", "numbers.txt"]) == 0
    (folder / "more.txt").write_text("x")
    assert manifest.main(["verify"]) == 1
    assert manifest.main(["record", "more.txt", "--command", "python x", "--seed", "1"]) == 0
    assert manifest.main(["verify"]) == 0
    assert json.loads((folder / "manifest.json").read_text())["files"]["more.txt"]["seed"] == 1
    printed = capfd.readouterr().out
    assert "1 files are as recorded." in printed
    assert "more.txt is not in the manifest" in printed


def test_an_entry_without_its_sum_is_named(folder):
    content = json.loads((folder / "manifest.json").read_text())
    del content["files"]["numbers.txt"]["sha256"]
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'numbers\.txt' has no 'sha256'"):
        manifest.problems()
