"""Image sets: handwritten digits that come with the kit, larger sets on request.

Every set keeps its published division into train and test, holds pixels in 0 … 1, and is normalized
per channel with the mean and deviation of the train images alone.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lossviz.coco_people import coco_people
from lossviz.pedestrians import pedestrians
from lossviz.penn_fudan import penn_fudan
from lossviz.shipped import data_folder, shipped
from lossviz.split import Dataset, Split

__all__ = [
    "Dataset",
    "Split",
    "cifar10",
    "coco_people",
    "digits",
    "fashion",
    "pedestrians",
    "penn_fudan",
]

# What numpy and zipfile raise for bytes that are no npz file, or ask for more memory than there is.
DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, RuntimeError,
    NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
CIFAR10_PART = "cifar10_lossless_part.npz"
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def digits() -> Dataset:
    """Return handwritten digits, 8 × 8: 3,823 for training, 1,797 by other writers for the test.

    Returns
    -------
    Dataset
        Inputs ``[N, 1, 8, 8]``, classes 0 … 9. "Optical Recognition of Handwritten Digits",
        E. Alpaydin and C. Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49.

    Raises
    ------
    FileNotFoundError
        If the data folder is not found.

    Examples
    --------
    >>> digits()
    Dataset('digits', 3823 + 1797 samples of [1, 8, 8])
    """
    arrays = _read_arrays(shipped("digits.npz"))
    return _dataset("digits", arrays, white=16, classes=tuple("0123456789"))


def fashion(root: str | Path | None = None, download: bool = False) -> Dataset:
    """Return Fashion-MNIST, 28 × 28 pictures of clothes: 60,000 for training, 10,000 for the test.

    Parameters
    ----------
    root
        The folder that holds ``FashionMNIST/raw``; None: the kit's data folder.
    download
        Whether to fetch it, 30 MB, if it is not there.

    Returns
    -------
    Dataset
        Inputs ``[N, 1, 28, 28]``. Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.

    Raises
    ------
    FileNotFoundError
        If it is not there and ``download`` is False; says what to fetch and where to put it.
    OSError
        If it cannot be fetched.
    """
    from torchvision.datasets import FashionMNIST  # a second to import; only who asks for it waits

    root = data_folder() if root is None else Path(root)
    instead = (
        f"30 MB from {FashionMNIST.mirrors[0]}; by hand, put its four files *-ubyte.gz, unpacked, "
        f"into {str(root / 'FashionMNIST' / 'raw')!r}"
    )
    train, test = _torchvision(FashionMNIST, root, download, "Fashion-MNIST", instead)
    arrays = dict(zip(ARRAYS, (train.data, train.targets, test.data, test.targets), strict=True))
    arrays = {key: np.asarray(value) for key, value in arrays.items()}
    name = "Fashion-MNIST" if len(train) == 60_000 else "Fashion-MNIST (part)"
    return _dataset(name, arrays, white=255, classes=FASHION_CLASSES)


def cifar10(
    root: str | Path,
    download: bool = False,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Return CIFAR-10, 32 × 32 colour photographs: 50,000 for training, 10,000 for the test.

    Parameters
    ----------
    root
        The folder that holds ``cifar-10-batches-py``, as torchvision leaves it. A partial set in
        npz form is taken too: a file, or a folder with ``cifar10_lossless_part.npz``, of arrays
        ``train_images`` and ``test_images``, uint8 ``[N, 32, 32, 3]``, ``train_labels`` and
        ``test_labels``, uint8 ``[N]``; a text ``name`` may be among them.
    download
        Whether to fetch it, 170 MB, if it is not there.
    mean, std
        Per channel, instead of the train set's own: a pretrained network wants those of its
        training, ``cifar10(root, mean=net.mean, std=net.std)``.

    Returns
    -------
    Dataset
        Inputs ``[N, 3, 32, 32]``. Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny
        Images".

    Raises
    ------
    FileNotFoundError
        If it is not there and ``download`` is False; says what to fetch and where to put it.
    OSError
        If it cannot be fetched.
    """
    root = Path(root)
    part = root if root.suffix == ".npz" else root / CIFAR10_PART
    if part.is_file() or root.suffix == ".npz":
        arrays = _read_arrays(part)
        name = str(arrays.get("name", "CIFAR-10 (part)"))
    else:
        name, arrays = "CIFAR-10", _cifar10_arrays(root, download)
    return _dataset(name, arrays, white=255, classes=CIFAR10_CLASSES, mean=mean, std=std)


def _cifar10_arrays(root: Path, download: bool) -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10  # checks sums before it reads the pickles inside

    instead = (
        f"170 MB from {CIFAR10.url}; by hand, put that file into {str(root)!r} and unpack it there"
    )
    train, test = _torchvision(CIFAR10, root, download, "CIFAR-10", instead)
    values = (train.data, np.asarray(train.targets), test.data, np.asarray(test.targets))
    return dict(zip(ARRAYS, values, strict=True))


def _torchvision(
    source: Callable, root: Path, download: bool, name: str, instead: str
) -> tuple[object, object]:
    """Return torchvision's train and test set; where to get them is said before it is done."""
    try:
        return source(root, train=True), source(root, train=False)
    except (RuntimeError, ValueError, OSError, EOFError, AssertionError) as problem:
        if not download:
            raise FileNotFoundError(
                f"{name} is not in {str(root)!r}, or it is damaged there: pass download=True to "
                f"fetch {instead}."
            ) from problem
    print(f"{name} will be downloaded into {str(root)!r}: {instead}.")
    try:
        return source(root, train=True, download=True), source(root, train=False)
    except (RuntimeError, OSError) as problem:
        raise OSError(f"{name} could not be fetched ({problem}): get {instead}.") from problem


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {str(path)!r}: name one, or the folder it is in."
        )
    try:
        # An open stream: numpy leaves a file that it opened itself open when it fails.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            wanted = (*ARRAYS, "name") if "name" in stored else ARRAYS
            return {name: stored[name] for name in wanted}
    except DAMAGE as problem:
        raise ValueError(
            f"{path.name!r} is damaged or not a set of images: it must be an npz file with the "
            f"arrays {', '.join(ARRAYS)}, and no pickle; fetch it again."
        ) from problem


def _dataset(
    name: str,
    arrays: dict[str, np.ndarray],
    *,
    white: int,
    classes: tuple[str, ...],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Return ``arrays`` as a data set; ``white`` is the largest value a pixel may take."""
    train, test = (_pixels(arrays[f"{part}_images"], white) for part in ("train", "test"))
    if (mean is None) != (std is None):
        raise ValueError("mean and std belong together: give both of them, or neither.")
    if mean is None or std is None:
        deviation, average = torch.std_mean(train.double(), dim=(0, 2, 3), correction=0)
        mean, std = average.tolist(), deviation.tolist()
    mean, std = _per_channel("mean", mean, train), _per_channel("std", std, train)
    splits = (
        Split(_normalized(images, mean, std), _labels(arrays[f"{part}_labels"]), name=label)
        for part, images, label in (
            ("train", train, f"{name} train"),
            ("test", test, f"{name} test"),
        )
    )
    return Dataset(*splits, mean=mean, std=std, classes=classes, name=name)


def _pixels(images: np.ndarray, white: int) -> Tensor:
    """Return float32 ``[N, C, H, W]`` in 0 … 1 from uint8 ``[N, H, W]`` or ``[N, H, W, C]``."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) == 0:
        raise ValueError(
            f"images must be uint8 of shape [N, H, W] or [N, H, W, C], N at least 1; got "
            f"{images.dtype} of shape {list(images.shape)}: store them so."
        )
    if images.max() > white:
        raise ValueError(f"pixels must lie in 0 … {white}; got {images.max()}: the set is another.")
    pixels = torch.from_numpy(images).float() / white
    return pixels[:, None] if images.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()


def _labels(labels: np.ndarray) -> Tensor:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be integers of shape [N]; got {labels.dtype} of shape "
            f"{list(labels.shape)}: store one class number per image."
        )
    return torch.from_numpy(labels.astype(np.int64))


def _per_channel(name: str, values: Sequence[float], images: Tensor) -> tuple[float, ...]:
    values = tuple(float(value) for value in values)
    if len(values) != images.shape[1] or (name == "std" and min(values) <= 0):
        raise ValueError(
            f"{name} must be {images.shape[1]} numbers, one per channel, deviations above 0; got "
            f"{values}: take those the network was trained with."
        )
    return values


def _normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    shift, scale = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (images - shift) / scale
