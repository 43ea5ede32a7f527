"""A surface: an objective sampled on a line or a plane, with everything needed to read it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from lossviz.directions import Direction
from lossviz.storage import atomic_write, npz_bytes, read_npz

__all__ = ["Surface"]


@dataclass
class Surface:
    """Values of an objective at θ + α·u (one axis) or θ + α·u + β·v (two axes).

    Attributes
    ----------
    axes : tuple of float64 arrays
        The coefficients along each direction.
    values : dict[str, float64 array]
        ``values["loss"][i, j]`` is the loss at ``axes[0][i]·u + axes[1][j]·v``; its shape is the
        lengths of the axes. inf or nan where the loss overflowed.
    directions : tuple of Direction
        One per axis.
    meta : dict
        Where it came from (JSON): model, data, samples, batch norm mode, seeds, versions, time,
        the value at the centre, the number of points that are not finite.
    done : bool array
        Which points were computed; the others hold nan, or what their neighbours predict.
    """

    axes: tuple[np.ndarray, ...]
    values: dict[str, np.ndarray]
    directions: tuple[Direction, ...]
    meta: dict = field(default_factory=dict)
    done: np.ndarray | None = None

    def __post_init__(self):
        self.axes = tuple(np.asarray(axis, dtype=np.float64) for axis in self.axes)
        shape = tuple(len(axis) for axis in self.axes)
        self.values = {k: np.asarray(v, dtype=np.float64) for k, v in self.values.items()}
        self.done = np.ones(shape, bool) if self.done is None else np.asarray(self.done, bool)
        if any(axis.ndim != 1 for axis in self.axes):
            raise ValueError("an axis is a list of coefficients: give arrays of one dimension.")
        for name, array in {**self.values, "done": self.done}.items():
            if array.shape != shape:
                raise ValueError(
                    f"{name!r} has shape {array.shape}, but the axes have {shape} points: values "
                    f"are indexed [axis 0, axis 1]."
                )

    def __repr__(self) -> str:
        grid = " × ".join(str(len(axis)) for axis in self.axes)
        of, data = self.meta.get("model", "a model"), self.meta.get("data", "data")
        return f"Surface({grid} points, {of}, {data}, {int(self.done.sum())} computed)"

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of points along each axis."""
        return self.done.shape

    @property
    def excess(self) -> np.ndarray:
        """Loss − loss at the centre, shaped like the values: what sharpness is read from."""
        return self.values["loss"] - self.meta["center"]["loss"]

    def save(self, path: str | os.PathLike, *, arrays: bool | None = None) -> None:
        """Write the surface to one npz file (no pickle), whole or not at all.

        Parameters
        ----------
        path
            The file, usually ``….npz``.
        arrays
            Whether the tensors of the directions go along; default: only of those that cannot be
            made again from their recipe (a random one can, from its seed and the model).

        Raises
        ------
        OSError
            If it cannot be written; what was at ``path`` stays.
        ValueError
            If it has no loss, or not one direction for each axis: it could not be read again.
        """
        if "loss" not in self.values or len(self.directions) != len(self.axes):
            raise ValueError(
                f"a surface to be saved has a 'loss' and a direction for each of its "
                f"{len(self.axes)} axes; got {', '.join(self.values)} and {len(self.directions)}."
            )
        stored = {f"axis_{i}": axis for i, axis in enumerate(self.axes)}
        stored |= {f"value_{name}": array for name, array in self.values.items()}
        stored["done"] = self.done
        notes = []
        for i, direction in enumerate(self.directions):
            keep = not _can_be_made_again(direction) if arrays is None else arrays
            notes.append(_note(direction, keep and len(direction) > 0))
            if keep:
                stored |= _named(f"direction_{i}_", direction)
                stored |= _named(f"buffers_{i}_", direction.buffers)
        meta = {"kind": "surface", "format": 1, "directions": notes, "meta": self.meta}
        atomic_write(path, npz_bytes(stored, meta))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Surface:
        """Return the surface that :meth:`save` wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        Surface
            Its directions are empty where only their recipe was stored.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, or not a surface of lossviz.
        """
        arrays, meta = read_npz(path, "surface")
        try:
            return cls(*_parts(arrays, meta))
        except (LookupError, TypeError, ValueError, AttributeError, MemoryError) as problem:
            raise ValueError(
                f"{os.path.basename(path)!r} lacks parts of a surface ({problem}): it is damaged "
                f"or was made by something else; make it again."
            ) from problem

    def to_xarray(self):
        """Return the values as an ``xarray.Dataset`` with the axes as coordinates α and β.

        Returns
        -------
        xarray.Dataset
            With ``meta`` as attributes, as netCDF can hold them: what is no number and no text is
            JSON.

        Raises
        ------
        ModuleNotFoundError
            If xarray is not installed.
        """
        try:
            import xarray
        except ModuleNotFoundError as problem:
            raise ModuleNotFoundError(
                "to_xarray needs xarray, which is not installed: pip install xarray."
            ) from problem
        names = ("alpha", "beta")[: len(self.axes)]
        variables = {name: (names, array) for name, array in self.values.items()}
        variables["done"] = (names, self.done)
        attributes = {key: _attribute(value) for key, value in self.meta.items()}
        return xarray.Dataset(variables, dict(zip(names, self.axes, strict=True)), attributes)


def _attribute(value: object) -> object:
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


def _array(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _parts(arrays: Mapping[str, np.ndarray], meta: Mapping) -> tuple:
    """Return axes, values, directions, meta and done of a file's arrays and notes."""
    notes = list(meta["directions"])
    values = {k[6:]: v for k, v in arrays.items() if k.startswith("value_")}
    if not notes or "loss" not in values:
        raise KeyError("loss")
    axes = tuple(arrays[f"axis_{i}"] for i in range(len(notes)))
    directions = tuple(_direction(arrays, i, note) for i, note in enumerate(notes))
    return axes, values, directions, {**meta["meta"]}, arrays["done"]


def _can_be_made_again(direction: Direction) -> bool:
    return direction.recipe.get("kind") == "random" and "weights" not in direction.recipe


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return arrays under their name in the file; those of zeros alone are told in the note."""
    return {prefix + name: _array(tensor) for name, tensor in tensors.items() if tensor.any()}


def _zeros(tensors: Mapping[str, torch.Tensor]) -> dict[str, list]:
    empty = {name: _array(tensor) for name, tensor in tensors.items() if not tensor.any()}
    return {name: [list(array.shape), array.dtype.str] for name, array in empty.items()}


def _note(direction: Direction, stored: bool) -> dict:
    return {
        "label": direction.label,
        "scale": direction.scale,
        "recipe": direction.recipe,
        "rules": direction.rules,
        "names": list(direction) if stored else [],
        "zeros": _zeros(direction) if stored else {},
        "buffers": list(direction.buffers) if stored else [],
        "zero_buffers": _zeros(direction.buffers) if stored else {},
    }


def _direction(arrays: Mapping[str, np.ndarray], i: int, note: Mapping) -> Direction:
    tensors = _tensors(arrays, f"direction_{i}_", note["names"], note.get("zeros", {}))
    kept = note.get("buffers", ())  # (files of before knew none)
    buffers = _tensors(arrays, f"buffers_{i}_", kept, note.get("zero_buffers", {}))
    return Direction(
        tensors,
        buffers=buffers,
        label=str(note["label"]),
        scale=str(note["scale"]),
        rules=note["rules"],
        recipe=note["recipe"],
    )


def _tensors(
    arrays: Mapping[str, np.ndarray], prefix: str, names: Sequence[str], zeros: Mapping
) -> dict[str, torch.Tensor]:
    found = {}
    for name in names:
        shape, kind = zeros.get(name, (None, None))
        array = arrays[prefix + name].copy() if shape is None else np.zeros(shape, kind)
        found[name] = torch.from_numpy(array)
    return found
