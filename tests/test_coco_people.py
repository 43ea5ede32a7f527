"""Photographs of people: what is shipped, how it was made smaller, and what is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lossviz as lv
from lossviz.coco_choice import main
from lossviz.coco_people import entries_of
from lossviz.shipped import data_folder

SHIPPED = data_folder() / "coco-people"
PERSON = {"file": "a.png", "width": 30, "height": 20, "boxes": [[3, 2, 8, 12]], "ignore": []}


def stored(folder, *entries, mode="RGB"):
    (folder / "boxes.json").write_text(json.dumps(list(entries)))
    Image.new(mode, (30, 20)).save(folder / "a.png")
    return folder


# --- what is shipped


def test_shipped_photographs_are_small_and_sizes_and_boxes_agree_with_the_files():
    scenes, entries = lv.data.coco_people(), json.loads((SHIPPED / "boxes.json").read_text())
    assert len(scenes) == len(entries) == 12
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 500_000
    for image, target, entry in zip(scenes.images, scenes.targets, entries, strict=True):
        with Image.open(SHIPPED / entry["file"]) as picture:
            assert list(image.shape) == [3, picture.height, picture.width]
            assert max(picture.size) <= 320
        assert image.min() >= 0 and image.max() <= 1
        assert np.allclose(target["boxes"].tolist(), entry["boxes"])
        assert target["labels"].tolist() == [1] * len(entry["boxes"])
        assert target["ignored"].shape == (len(entry["ignore"]), 4)
    assert sum(len(target["ignored"]) for target in scenes.targets) == 2


def test_each_shipped_photograph_names_source_licence_and_what_was_changed():
    for entry in entries_of(SHIPPED):
        assert entry["licence"].startswith("CC BY") and entry["flickr_url"].startswith("http")
        assert entry["licence_text"].startswith("https://creativecommons.org/licenses/by")
        assert "resized" in entry["changes"] and entry["author"] and entry["title"]


@pytest.mark.skipif("LOSSVIZ_COCO" not in os.environ, reason="LOSSVIZ_COCO names no larger set")
def test_shipped_boxes_are_those_of_the_larger_set_scaled_and_the_choice_follows_the_rule():
    larger = json.loads((Path(os.environ["LOSSVIZ_COCO"]) / "boxes.json").read_text())
    names = sorted(each["file"] for each in larger if "val2017" in each["file"])[:12]
    known = {Path(each["file"]).name: each for each in larger}
    ours = json.loads((SHIPPED / "boxes.json").read_text())
    assert [each["file"] for each in ours] == [Path(name).name for name in names]
    for each in ours:
        whole = known[each["file"]]
        factor = np.array([each[side] / whole[side] for side in ("width", "height")] * 2)
        assert np.ptp(factor) < 0.003  # one scale for both axes, but for rounding to pixels
        for key in ("boxes", "ignore"):
            expected = np.reshape(whole[key], (-1, 4)) * factor
            assert np.allclose(np.reshape(each[key], (-1, 4)), expected, atol=0.011)
        assert [each[key] for key in ("licence", "flickr_url")] == [
            whole[key] for key in ("licence", "flickr_url")
        ]


def test_a_photograph_made_smaller_keeps_its_box_around_what_is_in_it(tmp_path):
    larger, out = tmp_path / "larger", tmp_path / "out"
    larger.mkdir()
    pixels = np.zeros((400, 640, 3), np.uint8)
    pixels[100:300, 200:260] = 255
    Image.fromarray(pixels).save(larger / "val2017_1.png")
    source = {"licence": "CC BY 2.0", "flickr_url": "http://example.org/1"}
    box = {"boxes": [[200, 100, 260, 300]], "ignore": [[0, 0, 640, 400]]}
    entry = {"file": "val2017_1.png", "width": 640, "height": 400, **box, **source}
    (larger / "boxes.json").write_text(json.dumps([entry]))
    main([str(larger), "--out", str(out)])
    small = lv.data.coco_people(out)
    rows, columns = np.nonzero(small.images[0].mean(0).numpy() > 0.5)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(np.array(seen) - small.targets[0]["boxes"].numpy()).max() <= 1
    assert small.targets[0]["ignored"].tolist() == [[0, 0, 320, 200]]


# --- what is read, and what is refused


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_grey_and_transparent_photographs_get_three_channels(tmp_path, mode):
    scenes = lv.data.coco_people(stored(tmp_path, {**PERSON, "boxes": []}, mode=mode))
    assert scenes.images[0].shape == (3, 20, 30) and scenes.images[0].dtype == torch.float32
    assert scenes.targets[0]["boxes"].shape == scenes.targets[0]["ignored"].shape == (0, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"boxes": [[3, 2, 3, 12]]}, "must have an area and lie within"),
        ({"ignore": [[3, 2, 31, 12]]}, "must have an area and lie within"),
        ({"boxes": [[float("nan"), 2, 8, 12]]}, "must have an area and lie within"),
        ({"width": 60}, r"30 × 20 pixels, and boxes.json says 60 × 20"),
        ({"boxes": [[1, 2, 3]]}, "is damaged: it must list file"),
        ({"boxes": [[1, 2], [3, 4]]}, "is damaged: it must list file"),
        ({"boxes": "none"}, "is damaged: it must list file"),
        ({"boxes": [[0, 0, 10**400, 1]]}, "is damaged: it must list file"),
    ],
)
def test_a_bad_box_or_size_is_refused_in_a_sentence(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        lv.data.coco_people(stored(tmp_path, {**PERSON, **changed}))


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'boxes.json' is not in"):
        lv.data.coco_people(tmp_path)
    stored(tmp_path, PERSON)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"a.png' is not an image, or it is damaged"):
        lv.data.coco_people(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"the image .*a.png' is missing: put it there"):
        lv.data.coco_people(tmp_path)
    (tmp_path / "boxes.json").write_text("[]")
    with pytest.raises(ValueError, match="lists no image"):
        lv.data.coco_people(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.sampled_from(list(PERSON)), each),
    max_leaves=8,
)


@given(found=JSON | st.lists(st.fixed_dictionaries({key: JSON for key in PERSON}), max_size=2))
def test_any_list_is_read_or_refused(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("any")
    (folder / "boxes.json").write_text(json.dumps(found))
    try:
        lv.data.coco_people(folder)
    except (ValueError, FileNotFoundError) as refused:
        assert "take it from its source again" in str(refused) or "put it there" in str(refused)
