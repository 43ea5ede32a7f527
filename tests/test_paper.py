"""The command that trains the paper's nets, and draws between and around them, and their path."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import lossviz as lv
from lossviz import make
from lossviz.paper import NETS, main, trained
from lossviz.shipped import shipped

SCALE = ["--width", "1", "--epochs", "3", "--lr", "0.05"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CIFAR-10 of noise: 24 images to train on, 8 to test."""
    random, arrays = np.random.default_rng(0), {}
    folder = tmp_path_factory.mktemp("cifar10")
    for part, n in (("train", 24), ("test", 8)):
        arrays[f"{part}_images"] = random.integers(0, 256, (n, 32, 32, 3), np.uint8)
        arrays[f"{part}_labels"] = random.integers(0, 10, n).astype(np.uint8)
    np.savez(folder / "cifar10_lossless_part.npz", **arrays)
    return folder


def train(folder, name, *words):
    out = folder / f"{name}.safetensors"
    main(["train", "--cifar10", str(folder), *SCALE, *words, "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def nets(folder):
    small = train(folder, "small", "--batch-size", "4", "--weight-decay", "5e-4")
    return small, train(folder, "large", "--batch-size", "24")


def net_at(path):
    return lv.models.load_weights(lv.models.vgg(9, 1, size=32, channels=3), path).eval()


def test_a_file_of_weights_says_how_they_were_trained_and_how_well_they_do(folder, nets):
    with safe_open(nets[0], "pt") as stored:
        told = {name: json.loads(text) for name, text in stored.metadata().items()}
    assert told["settings"]["batch_size"] == 4 and told["settings"]["weight_decay"] == 5e-4
    assert told["settings"]["optimizer"] == "nesterov" and told["settings"]["images"] == 24
    test = lv.data.cifar10(folder).test
    right = (net_at(nets[0])(test.inputs).argmax(1) == test.targets).double().mean()
    assert told["history"][-1]["test_accuracy"] == pytest.approx(float(right))
    assert told["history"][-1]["steps"] == 3 * 6
    main(["table", *map(str, nets), "--out", str(folder / "table.json")])
    rows = json.loads((folder / "table.json").read_text())
    assert [row["settings"]["batch_size"] for row in rows] == [4, 24]
    assert rows[0]["end"] == told["history"][-1]


def test_the_lines_run_from_the_small_batch_net_to_the_large_batch_one(folder, nets):
    small, large = nets
    words = ["--small", str(small), "--large", str(large), "--points", "5", "--samples", "6"]
    main(["lines", "--cifar10", str(folder), *words, "--out", str(folder / "l")])
    images = lv.data.cifar10(folder)
    for part in ("train", "test"):
        split = getattr(images, part)[:6]
        scores = [net_at(path)(split.inputs).detach() for path in nets]
        expected = [float(cross_entropy(each, split.targets)) for each in scores]
        between = lv.Surface.load(folder / f"l_between_{part}.npz")
        at = dict(zip(between.axes[0], between.values["loss"], strict=True))
        assert [at[0], at[1]] == pytest.approx(expected, rel=1e-5)
        for name, loss in zip(("small", "large"), expected, strict=True):
            around = lv.Surface.load(folder / f"l_{name}_{part}.npz")
            assert around.values["loss"][2] == pytest.approx(loss, rel=1e-5)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_training_goes_on_to_the_same_bits(folder):
    words = ["--batch-size", "4", "--epochs", "40"]
    out = folder / "killed.safetensors"
    command = [sys.executable, "-m", "lossviz.paper", "train", "--cifar10", str(folder)]
    whole = [*command, *SCALE, *words, "--out", str(out)]
    with subprocess.Popen(whole, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not out.with_suffix(".run").exists():
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL and not out.exists()
    found, straight = train(folder, "killed", *words), train(folder, "straight", *words)
    expected = load_file(straight)
    assert all(torch.equal(value, expected[name]) for name, value in load_file(found).items())


def test_a_net_that_is_not_there_is_named(folder, nets, tmp_path):
    words = ["--cifar10", str(folder), "--out", str(tmp_path / "l"), "--large", str(nets[1])]
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.*give the --out"):
        main(["lines", *words, "--small", str(tmp_path / "none")])
    weights = shipped("depths/resnet8_skip_width8_seed0.safetensors")
    with pytest.raises(ValueError, match=r"has no settings: give the --out"):
        main(["lines", *words, "--small", str(weights)])


def test_the_plane_of_the_path_ends_at_the_net_and_goes_on_where_it_was(folder, tmp_path):
    out = tmp_path / "path.npz"
    net = train(folder, "recorded", "--batch-size", "8", "--record")
    words = [str(net), "--cifar10", str(folder), "--points", "5", "--samples", "16"]
    main(["path", *words, "--out", str(out)])
    drawn, told = lv.Surface.load(out), json.loads(out.with_suffix(".json").read_text())
    along = np.array(told["coordinates"])
    assert along.shape == (4, 2) and np.allclose(along[-1], 0, atol=1e-4)  # from the last weights
    for axis, column in zip(drawn.axes, along.T, strict=True):
        assert axis[0] < column.min() <= column.max() < axis[-1]
    images, recipe = lv.data.cifar10(folder), {"optimizer": "nesterov", "schedule": "step"}
    start = lv.models.vgg(9, 1, size=32, channels=3, seed=0)
    run = lv.fit(start, images.train, epochs=3, batch_size=8, lr=0.05, progress=False, **recipe)
    assert told["explained"] == pytest.approx(lv.pca(run.trajectory).explained.tolist(), rel=1e-4)
    loss = lv.Objective(trained(net), images.train[:16], batch_norm="recalibrated")
    assert told["losses"] == pytest.approx([loss(dict(each)) for each in run.trajectory], rel=1e-3)
    assert told["drops"] == [2, 2, 3]
    main(["path", *words, "--out", str(out)])
    again = lv.Surface.load(out)
    np.testing.assert_array_equal(again.values["loss"], drawn.values["loss"])


def test_a_net_without_a_recorded_path_is_told_what_it_needs(folder, nets, tmp_path):
    words = ["--cifar10", str(folder), "--out", str(tmp_path / "path.npz")]
    with pytest.raises(ValueError, match=r"no recorded path: it needs train --record"):
        main(["path", str(nets[0]), *words])


@pytest.mark.parametrize("name", NETS)
def test_every_net_of_the_paper_is_trained_and_drawn(folder, name):
    out = train(folder, name, "--net", name, "--batch-size", "24", "--epochs", "1", "--bfloat16")
    net, images = trained(out), lv.data.cifar10(folder)
    assert "batch 24" in net.name and not net.training
    assert (net.mean, net.std) == (list(images.mean), list(images.std))
    residual = name.startswith("resnet") and not name.endswith("noshort")
    expected = lv.models.vgg(9, 1, size=32, channels=3)
    if name.startswith("resnet"):
        expected = lv.models.resnet(int(name[6:8]), 1, skip=residual, channels=3)
    assert [w.shape for w in net.parameters()] == [w.shape for w in expected.parameters()]
    if name == "resnet20_noshort":
        plane = folder / "plane.npz"
        words = ["--cifar10", str(folder), "--samples", "8", "--points", "3", "--span", "0.1"]
        make.main(["plane", str(out), *words, "--out", str(plane)])
        few = images.train[:8]
        center = float(cross_entropy(net(few.inputs).detach(), few.targets))
        assert lv.Surface.load(plane).values["loss"][1, 1] == pytest.approx(center, rel=1e-5)


def test_a_set_of_images_says_its_name(folder, tmp_path):
    with np.load(folder / "cifar10_lossless_part.npz") as stored:
        np.savez(tmp_path / "own.npz", name=np.array("CIFAR-10 of noise"), **stored)
    own = lv.data.cifar10(tmp_path / "own.npz")
    assert own.name == "CIFAR-10 of noise" and own.train.name == "CIFAR-10 of noise train"
    assert torch.equal(own.train.inputs, lv.data.cifar10(folder).train.inputs)


def test_images_that_are_not_there_are_answered_in_the_words_of_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--cifar10 .*: CIFAR-10 is not there"):
        main(["train", "--cifar10", str(tmp_path / "none"), "--out", str(tmp_path / "a")])


@pytest.mark.parametrize("damage", [b"", b"no file of tensors", None])
def test_a_damaged_net_is_one_sentence(folder, nets, tmp_path, damage):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(nets[0].read_bytes()[:-9] if damage is None else damage)
    with pytest.raises(ValueError, match=r"damaged\.safetensors.* has no settings"):
        main(["lines", "--cifar10", str(folder), "--small", str(path), "--large", str(path),
              "--out", str(tmp_path / "l")])  # fmt: skip


def test_a_device_that_is_not_there_is_one_sentence(folder, tmp_path):
    words = ["--cifar10", str(folder), "--out", str(tmp_path / "a.safetensors"), *SCALE]
    with pytest.raises(ValueError, match=r"device must be .*got 'cuda:7'"):
        main(["train", *words, "--device", "cuda:7"])


@pytest.mark.parametrize("words", [["--images", "-5"], ["--images", "0"], ["--epochs", "-1"]])
def test_a_number_below_one_is_refused_by_its_name(folder, tmp_path, words, capsys):
    out = str(tmp_path / "a.safetensors")
    with pytest.raises(SystemExit):
        main(["train", "--cifar10", str(folder), *SCALE, *words, "--out", out])
    assert words[0] in capsys.readouterr().err
    with pytest.raises(SystemExit):
        make.main(["plane", out, "--cifar10", str(folder), "--samples", "-4", "--out", out])
    assert "--samples" in capsys.readouterr().err


def test_a_command_that_cannot_be_done_leaves_a_sentence_and_no_file(folder, nets, tmp_path):
    net = train(folder, "for_a_path", "--batch-size", "8", "--record")
    command = [sys.executable, "-m", "lossviz.paper", "path", str(net), "--cifar10", str(folder)]
    command += ["--tolerance", "5", "--out", str(tmp_path / "o.npz")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 2 and "Traceback" not in told.stderr
    assert "error: tolerance is a share" in told.stderr and not any(tmp_path.iterdir())
