"""Detectors: the loss as sums and counts, mining, training that goes on, average precision."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import lossviz as lv
from lossviz.checkpoint import Checkpoint
from lossviz.detect import detector_objective, evaluate, fit_detector, main
from lossviz.detection import (
    average_precision,
    detector_loss,
    freeze_mining,
    hardest,
    match_detections,
)

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scenes():
    return lv.data.pedestrians(6, seed=3)


@pytest.fixture(scope="module")
def net():
    return lv.models.tiny_ssd(64, width=4, seed=0)


def by_torchvision(net, batch):
    """Return torchvision's own losses: given in train mode only, so the top module alone is."""
    net.eval()
    net.training = True
    try:
        with torch.no_grad():
            return {k: float(v) for k, v in net(*batch).items()}
    finally:
        net.training = False


# --- the loss


def test_loss_and_parts_are_those_of_torchvision(net, scenes):
    whole = scenes.batches(6)
    theirs = by_torchvision(net, whole[0])
    ours = detector_objective(net, whole).values()
    assert ours["localisation"] == pytest.approx(theirs["bbox_regression"], rel=1e-6)
    assert ours["classification"] == pytest.approx(theirs["classification"], rel=1e-6)
    assert ours["loss"] == pytest.approx(sum(theirs.values()), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_loss_does_not_depend_on_how_scenes_are_cut(net, scenes, size):
    whole = detector_objective(net, scenes.batches(6)).values()
    cut = detector_objective(net, scenes.batches(size)).values()
    assert cut == pytest.approx(whole, rel=1e-6)
    assert any(len(target["boxes"]) == 0 for target in scenes.targets)  # one without objects


def test_ssdlite_is_repeatable_and_its_statistics_stay():
    net, scenes = lv.models.ssdlite(seed=0), lv.data.pedestrians(2, seed=3, size=64)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    objective = detector_objective(net, scenes.batches(1))
    objective.check_repeatable()
    detector_loss(net, scenes.batches(2)[0])
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    assert not any(module.training for module in net.modules())


def test_ssd300_lists_its_one_dimensional_scale():
    net = lv.models.ssd300(seed=0)
    assert sum(p.numel() for p in net.parameters()) == 23_745_908
    assert "backbone.scale_weight" in str(lv.describe(lv.random_direction(net, seed=0), net))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules())


def test_a_plane_has_both_parts_and_they_add_up(net, scenes):
    loss = detector_objective(net, scenes.batches(3))
    u, v = (lv.random_direction(net, seed=seed) for seed in (1, 2))
    values = lv.plane(loss, u, v, points=3, progress=False).values
    assert np.allclose(values["localisation"] + values["classification"], values["loss"])


# --- mining


def test_mined_anchors_are_the_three_worst_for_each_match():
    losses = torch.tensor([[9.0, 1.0, 5.0, 2.0, 4.0, 3.0]])
    mined = hardest(losses, torch.tensor([[0, -1, -1, -1, -1, -2]]), 3.0)
    assert mined.tolist() == [[False, False, True, False, True, True]]


def test_frozen_mining_agrees_at_the_centre_and_is_lower_elsewhere(net, scenes):
    live = detector_objective(net, scenes.batches(3))
    frozen = detector_objective(net, freeze_mining(net, scenes.batches(3)))
    assert frozen() == pytest.approx(live(), rel=1e-6)
    away = lv.random_direction(net, seed=1)
    moved = {name: w + away[name] for name, w in live.weights.items()}
    here, there = frozen.values(moved), live.values(moved)
    assert here["localisation"] == pytest.approx(there["localisation"], rel=1e-6)
    assert here["classification"] < there["classification"]  # the live set is the worst one


def test_batches_with_a_frozen_set_say_so_and_keep_the_name_of_their_scenes(net, scenes):
    named, plain = scenes.batches(4), list(scenes.batches(4))
    assert freeze_mining(net, named).name == f"{scenes.name}, mined set frozen"
    assert freeze_mining(net, plain).name == "6 images with boxes, mined set frozen"
    assert detector_objective(net, freeze_mining(net, named)).data_name.startswith(scenes.name)


# --- bad input


def test_bad_images_and_boxes_are_refused_in_a_sentence(net):
    person = {"boxes": torch.tensor([[1.0, 1.0, 9.0, 20.0]]), "labels": torch.ones(1).long()}
    flat = {**person, "boxes": torch.tensor([[4.0, 1.0, 4.0, 20.0]])}
    odd = {**person, "boxes": torch.zeros(0)}
    for channels, target, message in (
        (1, person, "repeat a grey channel"),
        (4, person, "drop an alpha channel"),
        (3, flat, "must have an area"),
        (3, odd, r"torch.zeros\(0, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            detector_loss(net, ([torch.rand(channels, 64, 64)], [target]))
    with pytest.raises(ValueError, match="n must be an int from 1 on"):
        lv.data.pedestrians(0)
    with pytest.raises(ValueError, match="size must lie in 32"):
        lv.models.tiny_ssd(300)


def test_penn_fudan_reads_masks_grey_and_rgba_and_names_a_missing_mask(tmp_path):
    for folder in ("PNGImages", "PedMasks"):
        (tmp_path / "PennFudanPed" / folder).mkdir(parents=True)
    here, mask = tmp_path / "PennFudanPed", np.zeros((20, 30), np.uint8)
    mask[2:12, 3:8], mask[5:20, 20:30] = 1, 2
    for name, mode in (("a", "L"), ("b", "RGBA")):
        Image.new(mode, (30, 20)).save(here / "PNGImages" / f"{name}.png")
        Image.fromarray(mask).save(here / "PedMasks" / f"{name}_mask.png")
    scenes = lv.data.penn_fudan(tmp_path)
    assert [list(image.shape) for image in scenes.images] == [[3, 20, 30]] * 2
    assert scenes.targets[0]["boxes"].tolist() == [[3, 2, 8, 12], [20, 5, 30, 20]]
    (here / "PedMasks" / "b_mask.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"the mask .* is missing"):
        lv.data.penn_fudan(tmp_path)
    with pytest.raises(FileNotFoundError, match="download=True"):
        lv.data.penn_fudan(tmp_path / "PennFudanPed" / "PedMasks")


# --- scenes and training


def test_scenes_are_the_same_however_many_are_drawn():
    few, many = lv.data.pedestrians(2, seed=5), lv.data.pedestrians(4, seed=5)
    assert all(map(torch.equal, few.images, many.images))
    for image, target in zip(many.images, many.targets, strict=True):
        left, top, right, bottom = target["boxes"].T
        assert (left >= 0).all() and (right > left).all() and (right <= image.shape[2]).all()
        assert (top >= 0).all() and (bottom > top).all() and (bottom <= image.shape[1]).all()


def test_scenes_move_in_another_precision_with_whole_labels_and_their_name(scenes):
    exact = scenes.to(dtype=torch.float64)
    assert {image.dtype for image in exact.images} == {torch.float64}
    assert exact.targets[0]["boxes"].dtype == torch.float64
    assert exact.targets[0]["labels"].dtype == torch.int64 and exact.name == scenes.name
    assert all(map(torch.equal, exact.to("cpu", torch.float32).images, scenes.images))


def test_a_tiny_ssd_finds_figures_in_unseen_scenes():
    net = lv.models.tiny_ssd(64, width=8, seed=0)
    losses = fit_detector(net, lv.data.pedestrians(256, seed=0), steps=200, batch_size=16, lr=0.004)
    assert np.median(losses[-20:]) < 0.6 * losses[0]
    assert evaluate(net, lv.data.pedestrians(64, seed=1)) > 0.15


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, scenes, monkeypatch):
    options = {"steps": 4, "batch_size": 2, "every": 1}
    straight, killed = (lv.models.tiny_ssd(64, width=2, seed=0) for _ in range(2))
    losses = fit_detector(straight, scenes, **options)
    path, taken = tmp_path / "run.safetensors", []

    def dies(*args):
        taken.append(original(*args))
        if len(taken) == 3:
            raise KeyboardInterrupt
        return taken[-1]

    from lossviz import detector_training

    original = detector_training._step
    monkeypatch.setattr(detector_training, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        fit_detector(killed, scenes, path=path, **options)
    monkeypatch.setattr(detector_training, "_step", original)
    anew = lv.models.tiny_ssd(64, width=2, seed=7)
    assert fit_detector(anew, scenes, path=path, **options) == losses
    for ours, theirs in zip(anew.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(ValueError, match="other settings"):
        fit_detector(anew, scenes, path=path, **{**options, "steps": 5})


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_between_checkpoints_goes_on_to_the_same_weights(tmp_path):
    command = ["train", "--net", "tiny", "--images", "8", "--steps", "200", "--batch-size", "2"]
    command += ["--every", "7", "--out"]
    straight, path = tmp_path / "straight", tmp_path / "killed"
    whole = [sys.executable, "-m", "lossviz.detect", *command, path]
    with subprocess.Popen(whole, stderr=subprocess.PIPE) as process:
        while os.read(process.stderr.fileno(), 1 << 16):  # the bar, at every tenth of a second
            if path.exists():
                process.kill()
    assert process.returncode == -signal.SIGKILL
    done = len(Checkpoint(path).read()[1]["history"])
    assert 0 < done < 200 and done % 7 == 0
    for out in (straight, path):
        main([*command, str(out)])
    (expected, facts, _), (tensors, others, _) = (Checkpoint(p).read() for p in (straight, path))
    assert tensors.keys() == expected.keys() and facts["history"] == others["history"]
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_checkpoint_that_was_cut_off_is_refused_in_a_sentence(tmp_path, scenes, share):
    options = {"steps": 2, "batch_size": 2, "path": tmp_path / "run"}
    fit_detector(lv.models.tiny_ssd(64, width=2, seed=0), scenes, **options)
    whole = options["path"].read_bytes()
    options["path"].write_bytes(whole[: int(share * len(whole))])
    anew = lv.models.tiny_ssd(64, width=2, seed=0)
    with pytest.raises(ValueError, match="damaged: delete it to begin anew, or name another path"):
        fit_detector(anew, scenes, **options)
    assert all(
        map(torch.equal, anew.parameters(), lv.models.tiny_ssd(64, width=2, seed=0).parameters())
    )


# --- average precision


def random_detections(rng):
    targets, detections = [], []
    for _ in range(20):
        corner = rng.uniform(0, 40, (rng.integers(0, 4), 2))
        boxes = np.hstack([corner, corner + rng.uniform(8, 24, corner.shape)])
        near = np.repeat(boxes, 2, 0) + rng.normal(0, 3, (2 * len(boxes), 4))
        far = np.hstack([c := rng.uniform(0, 40, (2, 2)), c + 12])
        found = torch.tensor(np.vstack([near, far]).round(1), dtype=torch.float32)
        found = found[(found[:, 2:] > found[:, :2]).all(1)]
        scores = torch.tensor(rng.uniform(0, 1, len(found)).round(1), dtype=torch.float32)
        targets.append({"boxes": torch.tensor(boxes, dtype=torch.float32)})
        detections.append({"boxes": found, "scores": scores})
    return detections, targets


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed):
    detections, targets = random_detections(np.random.default_rng(seed))
    scores, right, n_objects = match_detections(detections, targets)
    found = right.sum() / n_objects  # scikit-learn knows only of objects that were found
    expected = average_precision_score(right, scores) * found
    assert average_precision(detections, targets) == pytest.approx(expected, abs=1e-12)


def test_an_object_is_found_once_and_an_empty_set_is_refused():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    twice = [{"boxes": box.repeat(2, 1), "scores": torch.tensor([0.9, 0.8])}]
    scores, right, n_objects = match_detections(twice, [{"boxes": box}])
    assert right.tolist() == [True, False] and n_objects == 1 and scores[0] > scores[1]
    with pytest.raises(ValueError, match="at least one object"):
        average_precision(twice, [{"boxes": torch.zeros(0, 4)}])


def test_what_is_found_in_an_ignored_region_counts_neither_way():
    person, crowd = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[20.0, 0.0, 40.0, 10.0]])
    wrong, inside, half_out = (
        [60.0, 0.0, 70.0, 10.0],
        [22.0, 0.0, 26.0, 8.0],
        [36.0, 0.0, 46.0, 9.0],
    )
    boxes = torch.tensor([wrong, inside, half_out, person[0].tolist(), inside])
    found = [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])}]
    scores, right, n_objects = match_detections(found, [{"boxes": person, "ignored": crowd}])
    assert right.tolist() == [False, False, True] and n_objects == 1  # 0.4 of one lies inside
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    known = {"boxes": person, "ignored": torch.zeros(0, 4)}
    assert average_precision(found, [{"boxes": person, "ignored": crowd}]) == 1 / 3
    assert (
        average_precision(found, [known]) == average_precision(found, [{"boxes": person}]) == 0.25
    )


def test_an_object_in_an_ignored_region_is_found_before_anything_is_left_out():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    found = [{"boxes": box.repeat(2, 1), "scores": torch.tensor([0.9, 0.8])}]
    scores, right, _ = match_detections(found, [{"boxes": box, "ignored": 2 * box}])
    assert right.tolist() == [True] and scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize("seed", range(5))
def test_matches_are_those_of_coco_s_own_code(seed, capsys):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is no dependency").COCO()
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval
    rng = np.random.default_rng(seed)
    detections, targets = random_detections(rng)
    for target in targets:
        corner = rng.uniform(0, 40, (rng.integers(0, 2), 2))
        target["ignored"] = torch.tensor(np.hstack([corner, corner + 25])).float()
    rows = [
        {"image_id": k, "category_id": 1, "iscrowd": int(kind == "ignored"), "bbox": box}
        for k, target in enumerate(targets, 1)
        for kind in ("boxes", "ignored")
        for box in sizes(target[kind])
    ]
    rows = [
        {**row, "id": k, "area": row["bbox"][2] * row["bbox"][3]} for k, row in enumerate(rows, 1)
    ]
    images = [{"id": k} for k in range(1, len(targets) + 1)]
    coco.dataset = {"images": images, "annotations": rows, "categories": [{"id": 1}], "info": {}}
    coco.createIndex()
    results = [
        {"image_id": k, "category_id": 1, "bbox": box, "score": score}
        for k, found in enumerate(detections, 1)
        for box, score in zip(sizes(found["boxes"]), found["scores"].tolist(), strict=True)
    ]
    run = evaluation(coco, coco.loadRes(results), "bbox")
    run.params.iouThrs, run.params.areaRng, run.params.areaRngLbl = [0.5], [[0, 1e10]], ["all"]
    run.evaluate()
    theirs = [
        (score, bool(match))
        for each in run.evalImgs
        if each
        for score, match, left_out in zip(
            each["dtScores"], each["dtMatches"][0], each["dtIgnore"][0], strict=True
        )
        if not left_out
    ]
    scores, right, _ = match_detections(detections, targets)
    assert len(scores) < len(results)
    assert list(zip(scores.tolist(), right.tolist(), strict=True)) == theirs


def sizes(boxes):
    """Return boxes as COCO has them: left, top, width, height."""
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()


def test_scenes_are_drawn_with_both_kinds_of_boxes(scenes):
    found = [{"boxes": t["boxes"], "scores": torch.ones(len(t["boxes"]))} for t in scenes.targets]
    axes = lv.plots.scenes(scenes.images, scenes.targets, found, columns=3, caption="six")
    n_boxes = sum(len(target["boxes"]) for target in scenes.targets)
    assert len(axes) == 6 and sum(len(ax.patches) for ax in axes) == 2 * n_boxes
