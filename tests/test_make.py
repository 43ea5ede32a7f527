"""What the manifest's commands make, held against what the sources of the weights measured."""

import json

import numpy as np
import pytest

import lossviz as lv
from lossviz import make
from lossviz.shipped import shipped

# net: test accuracy, test loss, train accuracy, train loss, as the collection of weights tells them
TOLD = {
    "li2018_resnet56": ("93.81", "0.261", "100.00", "0.00083"),
    "li2018_resnet56_noshort": ("87.22", "0.386", "95.50", "0.134"),
    "resnet20": ("91.64", "0.378", "99.76", "0.0084"),
    "resnet56": ("92.72", "0.354", "99.98", "0.0011"),
}


@pytest.mark.parametrize("name", TOLD)
def test_accuracies_and_losses_come_out_to_the_last_printed_digit(name):
    told = json.loads(shipped(f"accuracies/{name}.json").read_text())
    test, train = told["test"], told["train"]
    assert (test["n"], train["n"]) == (1017, 5085)
    found = [100 * test["accuracy"], test["loss"], 100 * train["accuracy"], train["loss"]]
    for number, text in zip(found, TOLD[name], strict=True):
        digits = len(text.split(".")[1])
        assert f"{number:.{digits}f}" == text


@pytest.fixture
def folder(tmp_path):
    """A CIFAR-10 of noise: 12 images to train on, 5 to test."""
    random, arrays = np.random.default_rng(0), {}
    for part, n in (("train", 12), ("test", 5)):
        arrays[f"{part}_images"] = random.integers(0, 256, (n, 32, 32, 3), np.uint8)
        arrays[f"{part}_labels"] = random.integers(0, 10, n).astype(np.uint8)
    np.savez(tmp_path / "cifar10_lossless_part.npz", **arrays)
    return tmp_path


def test_a_file_of_accuracies_holds_what_the_net_says(folder):
    out = folder / "told" / "resnet20.json"
    make.main(["accuracy", "resnet20", "--cifar10", str(folder), "--out", str(out)])
    told, net = json.loads(out.read_text()), lv.models.pretrained("resnet20")
    test = lv.data.cifar10(folder, mean=net.mean, std=net.std).test
    assert told["test"]["n"] == 5
    assert told["test"]["loss"] == pytest.approx(lv.Objective(net, test)(), rel=1e-6)
    right = (net(test.inputs).argmax(1) == test.targets).float().mean()
    assert told["test"]["accuracy"] == pytest.approx(float(right))


def test_a_plane_is_made_and_goes_on_where_it_was(folder):
    out = folder / "s.npz"
    words = ["plane", "resnet20", "--cifar10", str(folder), "--out", str(out)]
    for _ in range(2):
        make.main([*words, "--samples", "4", "--points", "3", "--span", "0.1"])
    s = lv.Surface.load(out)
    assert s.shape == (3, 3) and s.done.all() and s.meta["model"] == "resnet20"


def test_a_plane_within_a_tolerance_is_that_of_a_refinement(folder):
    out = folder / "thin.npz"
    words = ["plane", "resnet20", "--cifar10", str(folder), "--out", str(out), "--samples", "2"]
    make.main([*words, "--points", "5", "--span", "0.1", "--tolerance", "0.5"])
    thin, net = lv.Surface.load(out), lv.models.pretrained("resnet20")
    few = lv.data.cifar10(folder, mean=net.mean, std=net.std).train[:2]
    pair = [lv.random_direction(net, seed=seed) for seed in (1, 2)]
    *_, expected = lv.refine(lv.Objective(net, few), *pair, points=5, span=0.1, tolerance=0.5)
    assert thin.meta["spec"]["tolerance"] == expected.meta["spec"]["tolerance"] == 0.5
    np.testing.assert_array_equal(thin.done, expected.done)
    assert thin.values["loss"] == pytest.approx(expected.values["loss"], rel=1e-5)


def test_a_tolerance_is_refused_where_nothing_is_predicted(capsys):
    words = ["--cifar10", "nowhere", "--out", "map.npz", "--tolerance", "0.1"]
    with pytest.raises(SystemExit, match="2"):
        make.main(["convexity", "resnet20", *words])
    assert "--tolerance predicts points of a plane" in capsys.readouterr().err


def test_missing_images_are_told_in_the_words_of_the_shell(tmp_path):
    words = ["--cifar10", str(tmp_path), "--out", str(tmp_path / "plane.npz")]
    with pytest.raises(FileNotFoundError, match=r"--cifar10 .*python -c .*download=True\)"):
        make.main(["plane", "resnet20", *words])
