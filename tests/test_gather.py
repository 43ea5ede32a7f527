"""Results of runs: written, read, gathered, and refused where they do not belong together."""

import csv
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from lossviz.gather import gather
from lossviz.results import read_results, save_results


def runs(folder, losses, **settings):
    """One result a loss, with seeds 0, 1, …"""
    for seed, loss in enumerate(losses):
        parameters = {"depth": 8, "seed": seed, "out_dir": "x"} | settings
        name = "-".join(f"{key}={value}" for key, value in parameters.items())
        save_results(folder / name, "trial", parameters=parameters, values={"loss": loss})
    return folder / "*" / "results.json"


@pytest.fixture
def close():
    yield
    plt.close("all")


# --- written and read


def test_results_come_back_as_they_were_saved(tmp_path):
    values = {"loss": np.float64(0.5), "curve": torch.ones(2), "word": "yes", "high": math.inf}
    path = save_results(tmp_path / "a" / "b", "trial", parameters={"depth": 8}, values=values)
    told = read_results(path)
    assert told["values"] == {"loss": 0.5, "curve": [1.0, 1.0], "word": "yes", "high": math.inf}
    assert told["parameters"] == {"depth": 8} and set(told["versions"]) > {"torch", "lossviz"}


def test_results_are_strict_json_without_the_folder_of_this_machine(tmp_path):
    where = str(tmp_path)
    path = save_results(where, "t", parameters={"out_dir": where}, values={"loss": math.nan})
    assert "NaN" not in path.read_text() and where not in path.read_text()
    assert math.isnan(read_results(path)["values"]["loss"])


def test_figures_are_saved_as_png_and_pdf_and_twice_alike(tmp_path, close):
    figure, ax = plt.subplots()
    (line,) = ax.plot([1, 2])
    for folder in ("a", "b"):
        figures = {"one": figure, "two": ax, "three": [line]}
        save_results(tmp_path / folder, "t", parameters={}, values={}, figures=figures)
    for name in ("one.png", "one.pdf", "two.pdf", "three.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "one.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_is_written_without_out_dir():
    assert save_results(None, "t", parameters={}, values={}) is None


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        ({"values": {"depth": 1}}, ValueError, "another name"),
        ({"values": {"net": object()}}, TypeError, "JSON cannot hold"),
        ({"figures": {"a": 3}}, TypeError, "matplotlib figure"),
    ],
)
def test_results_that_cannot_be_saved_are_named(tmp_path, wrong, kind, sentence):
    with pytest.raises(kind, match=sentence):
        save_results(tmp_path, "t", **({"parameters": {"depth": 8}, "values": {}} | wrong))
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"kind": "results"}', "\udcff", "[" * 100_000])
def test_a_file_that_is_no_result_is_refused(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="not the result of a lesson"):
        read_results(path)


# --- gathered


def test_runs_of_one_setting_are_a_row_each_in_the_order_of_their_seeds(tmp_path):
    table = gather(runs(tmp_path, range(11)))
    assert table["seed"].tolist() == list(range(11)) == table["loss"].tolist()
    assert table.settings["depth"] == 8 and len(table) == 11


def test_runs_of_different_settings_are_not_mixed_and_the_sentence_says_which(tmp_path):
    runs(tmp_path, [1.0], depth=8, lr=0.1)
    pattern = runs(tmp_path, [1.0], depth=14, lr=0.2)
    with pytest.raises(ValueError, match=r"differ in depth \(14 .*8 .*; lr \(0.2 .*by="):
        gather(pattern)
    with pytest.raises(ValueError, match="differ in lr"):
        gather(pattern, by="depth")
    assert gather(pattern, by=("depth", "lr"))["depth"].tolist() == [8, 14]


def test_runs_of_different_lessons_are_not_mixed(tmp_path):
    runs(tmp_path, [1.0])
    save_results(tmp_path / "b", "other", parameters={"depth": 8, "seed": 1}, values={"loss": 1})
    with pytest.raises(ValueError, match="differ in lesson"):
        gather(tmp_path / "*" / "results.json")


def test_a_run_that_was_handed_in_twice_is_refused(tmp_path):
    for name in ("ada", "bob"):
        save_results(tmp_path / name, "t", parameters={"seed": 1}, values={"loss": 1.0})
    with pytest.raises(ValueError, match=r"ada.*bob.*count twice"):
        gather(tmp_path / "*" / "results.json")


def test_a_pattern_that_finds_nothing_and_a_name_that_is_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        gather(tmp_path / "*.json")
    with pytest.raises(ValueError, match="at least one"):
        gather([])
    with pytest.raises(ValueError, match=r"dept, which.*depth, seed"):
        gather(runs(tmp_path, [1.0]), by="dept")


def test_who_disagrees_lies_beyond_the_quartiles_by_one_and_a_half_of_their_distance(tmp_path):
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 8.1]  # quartiles 2.5 and 6.5: the fence is at 12.5
    assert gather(runs(tmp_path / "a", losses)).outliers("loss") == []
    found = gather(runs(tmp_path / "b", [*losses, 20.0, math.inf])).outliers("loss")
    assert [row["loss"] for row in found] == [20.0, math.inf]


def test_of_four_runs_nobody_disagrees(tmp_path):
    assert gather(runs(tmp_path, [1.0, 1.0, 1.0, 99.0])).outliers("loss") == []


def test_summary_is_that_of_numpy(tmp_path):
    losses = [3.0, 1.0, 2.0, 10.0]
    (told,) = gather(runs(tmp_path, [*losses, math.nan])).summary("loss")
    assert (told["n"], told["n_not_finite"]) == (4, 1)
    assert told["median"] == np.median(losses) and told["std"] == np.std(losses, ddof=1)
    assert told["upper_quartile"] == np.quantile(losses, 0.75)


def test_a_sweep_is_summed_up_for_each_depth(tmp_path):
    for depth in (8, 14):
        pattern = runs(tmp_path, [depth + 1.0, depth + 3.0], depth=depth)
    told = gather(pattern, by=("depth", "seed")).summary("loss", by="depth")
    assert [(row["depth"], row["median"]) for row in told] == [(8, 10.0), (14, 16.0)]
    with pytest.raises(ValueError, match="in which the runs differ"):
        gather(pattern, by=("depth", "seed")).summary("loss", by="lr")


def test_only_numbers_have_a_spread(tmp_path):
    path = save_results(tmp_path, "t", parameters={}, values={"curve": [1, 2], "loss": 1.0})
    with pytest.raises(ValueError, match="take one of loss"):
        gather([path]).summary("curve")
    with pytest.raises(KeyError, match="no column"):
        gather([path])["los"]


def test_picture_names_who_disagrees_and_says_how_many_runs(tmp_path, close):
    ax = gather(runs(tmp_path, [1.0, 2.0, 3.0, 4.0, 5.0, 60.0])).plot("loss")
    texts = " ".join(text.get_text() for text in ax.texts)
    caption = " ".join(a.get_text() for a in ax.figure.findobj(lambda a: a.get_gid() == "caption"))
    assert "seed=5" in texts and "seed=4" not in texts
    assert "6 runs" in caption.replace("\N{NO-BREAK SPACE}", " ")


def test_picture_of_a_sweep_has_a_place_for_each_depth_in_their_order(tmp_path, close):
    for depth in (14, 8):
        pattern = runs(tmp_path, [1.0, 2.0], depth=depth)
    ax = gather(pattern, by=("depth", "seed")).plot("loss", by="depth")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "14"]
    assert ax.get_xlabel() == "depth"


def test_table_is_written_with_all_settings(tmp_path):
    table = gather(runs(tmp_path, [1.0, 2.0]))
    table.save(tmp_path / "table.csv")
    with open(tmp_path / "table.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["loss"] for row in rows] == ["1.0", "2.0"] and rows[0]["depth"] == "8"


def test_table_reads_as_columns(tmp_path):
    lines = repr(gather(runs(tmp_path, [1.0, 2.0]))).splitlines()
    assert lines[0].split() == ["who", "seed", "loss"] and lines[2].split()[1:] == ["1", "2"]


def test_json_of_a_result_has_its_parameters(tmp_path):
    runs(tmp_path, [1.0])
    (path,) = tmp_path.glob("*/results.json")
    assert json.loads(path.read_text())["parameters"] == {"depth": 8, "seed": 0}
