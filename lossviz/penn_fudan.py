"""The Penn-Fudan set: 170 photographs with people, and a mask of each (Wang et al. 2007)."""

from __future__ import annotations

import io
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lossviz.pedestrians import Scenes, as_image

__all__ = ["penn_fudan"]

URL = "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip"
FOLDERS = ("images", "PNGImages")
ENDINGS = (".png", ".jpg")


def penn_fudan(root: str | Path, download: bool = False) -> Scenes:
    """Return the photographs in ``root``, with a box around each person's mask.

    Parameters
    ----------
    root
        The folder that holds ``PedMasks`` and ``PNGImages`` (or ``images``), or
        ``PennFudanPed`` with them.
    download
        Whether to fetch it, 51 MB, if it is not there.

    Returns
    -------
    Scenes
        Images of several sizes, in the order of their names. Its licence is not stated: do not
        pass it on.

    Raises
    ------
    FileNotFoundError
        If the set, or the mask of an image, is not there.
    """
    root = Path(root)
    places = (root, root / "PennFudanPed")
    if download and not any((place / "PedMasks").is_dir() for place in places):
        _fetch(root)
    for place in places:
        for folder in FOLDERS:
            files = sorted(f for f in place.glob(f"{folder}/*") if f.suffix in ENDINGS)
            if files:
                images, targets = zip(*(_read(f, place / "PedMasks") for f in files), strict=True)
                return Scenes(list(images), list(targets), "Penn-Fudan")
    raise FileNotFoundError(
        f"Penn-Fudan is not in {str(root)!r}: unpack {URL} there, or pass download=True."
    )


def _fetch(root: Path) -> None:
    print(f"Penn-Fudan, 51 MB, will be downloaded into {str(root)!r} from {URL}.")
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer:
            zipfile.ZipFile(io.BytesIO(answer.read())).extractall(root)
    except (OSError, zipfile.BadZipFile) as problem:
        raise OSError(
            f"Penn-Fudan could not be fetched ({problem}): unpack {URL} into {str(root)!r}."
        ) from problem


def _read(file: Path, masks: Path) -> tuple[Tensor, dict[str, Tensor]]:
    mask = masks / f"{file.stem}_mask.png"
    if not mask.is_file():
        raise FileNotFoundError(
            f"the mask {str(mask)!r} of {file.name!r} is missing: put it there, or remove the "
            f"image."
        )
    boxes = boxes_of(np.asarray(Image.open(mask)))
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return as_image(np.asarray(Image.open(file).convert("RGB"))), {"boxes": boxes, "labels": labels}


def boxes_of(mask: np.ndarray) -> Tensor:
    """Return the box around each object of a mask.

    Parameters
    ----------
    mask
        ``[H, W]``, 0 for background and k for object k.

    Returns
    -------
    Tensor
        ``[objects, 4]``: left, top, right and bottom edge in pixels.
    """
    found = []
    for number in np.unique(mask[mask > 0]):
        rows, columns = np.nonzero(mask == number)
        found.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return torch.tensor(np.array(found, np.float32).reshape(-1, 4))
