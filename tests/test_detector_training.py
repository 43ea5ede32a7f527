"""How a detector is trained: precision and batch norms."""

import json
import math

import pytest
import torch

import lossviz as lv
from lossviz.checkpoint import Checkpoint
from lossviz.detect import detector_objective, evaluate, fit_detector, main
from lossviz.models.detector import ssdlite, tiny_ssd
from lossviz.models.stored import load_weights

OPTIONS = {"steps": 120, "batch_size": 8, "lr": 0.003}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_training_in_bfloat16_comes_as_far_and_keeps_float32_weights():
    scenes, losses = lv.data.pedestrians(64, seed=0), {}
    for half in (False, True):
        net = tiny_ssd(seed=0)
        losses[half] = fit_detector(net, scenes, bfloat16=half, **OPTIONS)
        assert {w.dtype for w in net.parameters()} == {torch.float32}
    assert losses[True] != losses[False]
    ends = {half: sum(history[-20:]) / 20 for half, history in losses.items()}
    assert ends[True] == pytest.approx(ends[False], rel=0.15)
    assert ends[False] < 0.6 * losses[False][0]


def test_a_run_in_another_precision_is_not_gone_on_with(tmp_path):
    scenes, options = lv.data.pedestrians(4, seed=0), {"steps": 2, "batch_size": 2}
    fit_detector(tiny_ssd(seed=0), scenes, path=tmp_path / "run", **options)
    with pytest.raises(ValueError, match="other settings"):
        fit_detector(tiny_ssd(seed=0), scenes, path=tmp_path / "run", bfloat16=True, **options)


def test_batch_norms_learn_in_training_and_stand_still_afterwards():
    net, scenes = ssdlite(seed=0), lv.data.pedestrians(4, seed=0, size=64)
    before = net.state_dict()["backbone.features.0.0.1.running_mean"].clone()
    fit_detector(net, scenes, steps=1, batch_size=2)
    after = net.state_dict()["backbone.features.0.0.1.running_mean"].clone()
    assert not torch.equal(before, after) and not net.training
    net(scenes.images)
    assert torch.equal(net.state_dict()["backbone.features.0.0.1.running_mean"], after)


def test_the_commands_evaluate_a_run_and_write_its_weights_in_half_precision(tmp_path):
    run, told, half = (tmp_path / name for name in ("run", "told.json", "half.safetensors"))
    scale = ["--net", "tiny", "--images", "6"]
    main(["train", *scale, "--steps", "3", "--batch-size", "2", "--out", str(run)])
    main(["evaluate", *scale, "--weights", str(run), "--out", str(told)])
    read = json.loads(told.read_text())
    assert read["steps"] == len(read["losses"]) == 3
    assert read["images"] == {"drawn": 6, "coco_people": 12}
    main(["weights", *scale, "--weights", str(run), "--out", str(half)])
    net, stored = load_weights(tiny_ssd(seed=5), half), Checkpoint(run).read()[0]
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, stored[f"model.{name}"], rtol=1e-3, atol=1e-6)


def test_an_evaluation_is_that_of_the_scenes_no_training_draws(tmp_path):
    main(["evaluate", "--images", "6", "--out", str(tmp_path / "told.json")])
    told = json.loads((tmp_path / "told.json").read_text())
    unseen = lv.data.pedestrians(6, seed=1000)
    assert told["average_precision"]["drawn"] == evaluate(tiny_ssd(seed=0), unseen)


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run at .*give --weights"):
        main(["weights", "--weights", str(tmp_path / "none"), "--out", str(tmp_path / "w")])


def test_weights_never_replace_the_run_they_come_from(tmp_path):
    run = tmp_path / "run"
    main(["train", "--images", "6", "--steps", "2", "--batch-size", "2", "--out", str(run)])
    before = run.read_bytes()
    with pytest.raises(ValueError, match=r"holds a run, which would be lost"):
        main(["weights", "--weights", str(run), "--out", str(run)])
    assert run.read_bytes() == before


def test_shipped_weights_may_be_evaluated_like_a_run(tmp_path):
    half, told = tmp_path / "half.safetensors", tmp_path / "told.json"
    run = tmp_path / "run"
    main(["train", "--images", "6", "--steps", "2", "--batch-size", "2", "--out", str(run)])
    main(["weights", "--weights", str(run), "--out", str(half)])
    main(["evaluate", "--images", "6", "--weights", str(half), "--out", str(told)])
    assert "steps" not in json.loads(told.read_text())


def test_a_training_that_diverges_says_so_and_keeps_the_state_before(tmp_path):
    net, scenes = tiny_ssd(seed=0), lv.data.pedestrians(6, seed=0)
    with pytest.raises(FloatingPointError, match="take a smaller lr"):
        fit_detector(net, scenes, steps=9, batch_size=4, lr=1e20, warmup=0, path=tmp_path / "run")


def test_a_run_goes_on_with_the_same_scenes_alone(tmp_path):
    options = {"steps": 2, "batch_size": 2, "path": tmp_path / "run"}
    one, other = (lv.data.pedestrians(4, seed=seed) for seed in (0, 5))
    other.name = one.name
    fit_detector(tiny_ssd(seed=0), one, **options)
    with pytest.raises(ValueError, match="other settings"):
        fit_detector(tiny_ssd(seed=0), other, **options)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"steps": 0}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"every": 0}, "every must be"),
        ({"lr": float("nan")}, "lr must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        fit_detector(tiny_ssd(seed=0), lv.data.pedestrians(4, seed=0), **wrong)


def test_scenes_without_people_are_refused():
    empty = lv.data.pedestrians(3, seed=0, people=0)
    assert "at most 0" in empty.name
    with pytest.raises(ValueError, match="has a person"):
        fit_detector(tiny_ssd(seed=0), empty, steps=1)
    assert math.isnan(detector_objective(tiny_ssd(seed=0), empty.batches(1))())


@pytest.mark.parametrize(
    ("boxes", "labels", "words"),
    [
        ([[0.0, 0.0, 200.0, 30.0]], [1], "within its image of 64 × 64"),
        ([[0.0, float("nan"), 20.0, 30.0]], [1], "must have an area"),
        ([[0.0, 0.0, 20.0, 30.0]], [7], "labels must be 1"),
        ([[0.0, 0.0, 20.0, 30.0]], [1, 1], "labels must be 1"),
    ],
)
def test_boxes_outside_and_foreign_labels_are_refused(boxes, labels, words):
    target = {"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)}
    scenes = lv.data.pedestrians(1, seed=0)
    scenes.targets = [target]
    for use in (
        lambda: fit_detector(tiny_ssd(seed=0), scenes, steps=1),
        lambda: detector_objective(tiny_ssd(seed=0), scenes.batches(1))(),
    ):
        with pytest.raises(ValueError, match=words):
            use()


@pytest.mark.parametrize("wrong", [["--steps", "0"], ["--seed", "-1"], ["--threads", "0"]])
def test_the_command_line_names_what_it_takes(wrong, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", *wrong, "--out", str(tmp_path / "run")])
    assert "must be a whole number from" in capsys.readouterr().err


def test_a_run_of_another_detector_is_refused_in_a_sentence(tmp_path):
    run = tmp_path / "run"
    main(["train", "--images", "6", "--steps", "1", "--batch-size", "2", "--out", str(run)])
    with pytest.raises(ValueError, match="another detector"):
        main(["weights", "--net", "ssdlite", "--weights", str(run), "--out", str(tmp_path / "w")])
