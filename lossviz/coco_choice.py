"""The photographs of COCO that come with the kit: which, how small, and whose they are.

The rule: the first twelve by name of the validation images in the folder given, whatever a detector
does on them. ``python -m lossviz.coco_choice FOLDER --out data/coco-people`` stores them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from lossviz.coco_people import LIST, entries_of, open_photograph
from lossviz.storage import atomic_write

__all__ = ["main"]

PART, COUNT = "val2017", 12
LONGEST, QUALITY = 320, 85  # pixels of the long side; of JPEG
CHANGES = f"resized to at most {LONGEST} pixels a side and stored as JPEG again; boxes scaled alike"
DEEDS = {
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY-SA 2.0": "https://creativecommons.org/licenses/by-sa/2.0/",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the photographs of the kit from a folder of larger ones.

    Parameters
    ----------
    arguments
        As on the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m lossviz.coco_choice", description=__doc__)
    parser.add_argument("root", type=Path, help="with boxes.json and images")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    entries = [entry for entry in entries_of(asked.root) if PART in entry["file"]]
    entries = sorted(entries, key=lambda entry: entry["file"])[:COUNT]
    rows = [json.dumps(_shrunk(asked.root, entry, asked.out)) for entry in entries]
    atomic_write(asked.out / LIST, ("[\n" + ",\n".join(rows) + "\n]\n").encode())


def _shrunk(root: Path, entry: dict, out: Path) -> dict:
    """Store one image smaller, and return its entry with boxes of that size and its source."""
    picture, name = open_photograph(root / entry["file"]), Path(entry["file"]).name
    factor = min(1, LONGEST / max(picture.size))
    width, height = (max(1, round(side * factor)) for side in picture.size)
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    small.save(out / name, quality=QUALITY)
    scale = torch.tensor([width / picture.width, height / picture.height]).repeat(2)
    rounded = {
        key: [[round(edge, 2) for edge in box] for box in (entry[key] * scale).tolist()]
        for key in ("boxes", "ignore")
    }
    about = {"licence": entry["licence"], "licence_text": DEEDS.get(entry["licence"], "")}
    about |= {"flickr_url": entry["flickr_url"], "title": "not given", "author": "not given"}
    about |= {"changes": CHANGES}
    return {"file": name, "width": width, "height": height, **rounded, **about}


if __name__ == "__main__":
    main()
