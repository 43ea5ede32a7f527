"""Surfaces to and from other programs: the authors' h5 files, ParaView, tables.

The code of Li et al. 2018 keeps a surface, its directions and the path of training in one h5 file
each. They are read here as what they are: values stored in the order of the other axis, −1 where
nothing was computed, accuracy in percent. For xarray there is :meth:`lossviz.Surface.to_xarray`.
"""

from __future__ import annotations

import base64
import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import torch
from torch import nn

from lossviz.directions import Direction, check_same
from lossviz.storage import atomic_write
from lossviz.surface import Surface

__all__ = ["read_directions_h5", "read_path_h5", "read_surface_h5", "write_csv", "write_vtk"]

NOT_COMPUTED = -1.0
VTK_KINDS = {"Float64": "<f8", "UInt8": "u1"}
HIDDEN = 2  # VTK's flag of a point that is not drawn
TWO_DECADES = 100.0


def read_surface_h5(path: str | os.PathLike, *, split: str = "train") -> Surface:
    """Return the surface that the authors' code wrote, with its axes in our order.

    Parameters
    ----------
    path
        The file, ``….h5_[-1.0,1.0,51]x[-1.0,1.0,51].h5``.
    split
        ``"train"`` or ``"test"``: whose loss and accuracy.

    Returns
    -------
    Surface
        One axis or two; ``loss``, ``accuracy`` in 0 … 1, and where the file has them
        ``lambda_min``, ``lambda_max`` and ``ratio``. Its directions are named, not stored.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModuleNotFoundError
        If h5py is not installed.
    ValueError
        If it is no such surface; says what is missing.
    """
    arrays = _read_h5(path)
    name, loss = Path(path).name, f"{split}_loss"
    for needed in ("xcoordinates", loss):
        if needed not in arrays:
            raise ValueError(
                f"{name!r} has no {needed!r}, but {', '.join(sorted(arrays)) or 'nothing'}: give a "
                f"surface file of the authors' code, and split='train' or 'test'."
            )
    axes = tuple(arrays[k] for k in ("xcoordinates", "ycoordinates") if k in arrays)
    if any(axis.ndim != 1 or axis.size == 0 for axis in axes):
        shapes = " and ".join(str(axis.shape) for axis in axes)
        raise ValueError(f"{name!r} has axes of shape {shapes}, not rows of numbers: copy again.")
    loss = _ours(arrays[loss], axes, name)
    done = loss != NOT_COMPUTED
    values = {"loss": np.where(done, loss, np.nan)}
    if f"{split}_acc" in arrays:
        values["accuracy"] = np.where(done, _ours(arrays[f"{split}_acc"], axes, name) / 100, np.nan)
    values |= _curvatures(arrays, axes, name)
    directions = tuple(
        Direction({}, label=f"{axis} of the file", scale="as in the file", recipe={"kind": "h5"})
        for axis in "xy"[: len(axes)]
    )
    return Surface(axes, values, directions, _meta(name, split, axes, values), done)


def read_directions_h5(path: str | os.PathLike, model: nn.Module) -> tuple[Direction, ...]:
    """Return the one or two directions of the authors' direction file, named for ``model``.

    Parameters
    ----------
    path
        The file, ``….h5``, with the groups ``xdirection`` and ``ydirection``.
    model
        The net they belong to: its parameters are named in their order.

    Returns
    -------
    tuple of Direction
        As :func:`lossviz.plane` takes them.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError
        As for :func:`read_surface_h5`.
    ValueError
        If there are none, or they are not of this model; ``dir_type='states'`` counts as such.
    """
    arrays, name = _read_h5(path), Path(path).name
    weights = {k: w.detach() for k, w in model.named_parameters()}
    directions = []
    for axis in ("xdirection", "ydirection"):
        count = sum(key.startswith(f"{axis}/") for key in arrays)
        parts = [torch.from_numpy(arrays[f"{axis}/{i}"]).float() for i in range(count)]
        if count and count != len(weights):
            raise ValueError(
                f"{name!r} has {count} tensors for the {len(weights)} parameters of this net: give "
                f"the net it was made for, and a file made with dir_type='weights'."
            )
        if parts:
            tensors = dict(zip(weights, parts, strict=True))
            check_same(weights, tensors)
            recipe = {"kind": "h5", "file": name, "axis": axis}
            directions.append(
                Direction(tensors, label=f"{axis} of {name}", scale="as in the file", recipe=recipe)
            )
    if not directions:
        raise ValueError(f"{name!r} has no 'xdirection': give a direction file, not a surface.")
    return tuple(directions)


def read_path_h5(path: str | os.PathLike) -> np.ndarray:
    """Return the path of training as the authors' code projected it.

    Parameters
    ----------
    path
        The file, ``…_proj_cos.h5``.

    Returns
    -------
    float64 array ``[records, 2]``
        What ``lv.plots.trajectory`` takes. ``cos`` in the name means a dot product: right only for
        orthonormal axes, as principal ones are.

    Raises
    ------
    FileNotFoundError, ModuleNotFoundError
        As for :func:`read_surface_h5`.
    ValueError
        If it is no such file.
    """
    arrays = _read_h5(path)
    if not {"proj_xcoord", "proj_ycoord"} <= arrays.keys():
        raise ValueError(
            f"{Path(path).name!r} has no 'proj_xcoord' and 'proj_ycoord': give the file that "
            f"plot_trajectory.py wrote, its name ends in _proj_cos.h5 or _proj_lstsq.h5."
        )
    x, y = arrays["proj_xcoord"], arrays["proj_ycoord"]
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"{Path(path).name!r} has coordinates of shape {x.shape} and {y.shape}, where two rows "
            "of one length are needed: copy it again, or project the path anew."
        )
    return np.stack([x, y], axis=1).astype(np.float64)


def write_csv(surface: Surface, path: str | os.PathLike) -> None:
    """Write a surface as a table: a row per point, α, β, the values, and whether it was computed.

    Parameters
    ----------
    surface
        A line or a plane.
    path
        The file, ``….csv``; written whole or not at all.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("alpha", "beta")[: len(surface.axes)]
    writer.writerow([*names, *surface.values, "computed"])
    places = np.meshgrid(*surface.axes, indexing="ij")
    columns = [*places, *surface.values.values(), surface.done.astype(int)]
    writer.writerows(zip(*(column.ravel().tolist() for column in columns), strict=True))
    atomic_write(path, text.getvalue().encode())


def write_vtk(
    surface: Surface, path: str | os.PathLike, *, log: bool | None = None, height: float = 1.0
) -> None:
    """Write a plane as a sheet in space for ParaView (VTK XML, structured grid).

    Parameters
    ----------
    surface
        With two axes.
    path
        The file, ``….vts``; written whole or not at all.
    log
        Whether the third coordinate is log₁₀ of the loss; None: where it spans two decades.
    height
        The third coordinate is stretched so that it spans ``height`` times the first axis.

    Raises
    ------
    ValueError
        If it is no plane, or has no finite loss; or the log of a loss of 0 is asked for; or the
        file ends otherwise: ParaView chooses its reader by the ending.
    """
    if Path(path).suffix != ".vts":
        raise ValueError(f"ParaView opens this format as ….vts; got {Path(path).name!r}.")
    if len(surface.axes) != 2:
        raise ValueError("a sheet needs two axes, and this is a line: write it with write_csv.")
    loss = surface.values["loss"]
    shown = np.isfinite(loss)
    if not shown.any():
        raise ValueError("no loss of this surface is finite: there is nothing to draw.")
    low, high = loss[shown].min(), loss[shown].max()
    log = bool(low > 0 and high / low > TWO_DECADES) if log is None else log
    if log and low <= 0:
        raise ValueError(f"a loss of {low:g} has no logarithm: write it with log=False.")
    z = np.where(shown, loss, high)
    z = np.log10(z) if log else z
    z = (z - z.min()) * height * np.ptp(surface.axes[0]) / (np.ptp(z) or 1.0)
    arrays = {**surface.values, "computed": surface.done.astype(float)}
    if log:
        arrays["log10_loss"] = np.log10(np.where(shown, loss, np.nan))
    atomic_write(path, _sheet(surface, z, arrays, ~shown).encode())


def _sheet(surface: Surface, z: np.ndarray, arrays: Mapping, hidden: np.ndarray) -> str:
    """Return the XML of a structured grid: β runs fastest, as the values lie in memory."""
    alpha, beta = np.meshgrid(*surface.axes, indexing="ij")
    places = np.stack([alpha, beta, z], axis=-1)
    extent = f"0 {len(surface.axes[1]) - 1} 0 {len(surface.axes[0]) - 1} 0 0"
    data = [_data_array(name, values) for name, values in arrays.items()]
    data.append(_data_array("vtkGhostType", HIDDEN * hidden.astype(int), "UInt8"))
    return "\n".join(
        [
            '<?xml version="1.0"?>',
            '<VTKFile type="StructuredGrid" version="1.0" byte_order="LittleEndian">',
            f'<StructuredGrid WholeExtent="{extent}"><Piece Extent="{extent}">',
            '<PointData Scalars="loss">',
            *data,
            "</PointData><Points>",
            _data_array("places", places, components=3),
            "</Points></Piece></StructuredGrid></VTKFile>",
            "",
        ]
    )


def _data_array(name: str, values: np.ndarray, kind: str = "Float64", components: int = 1) -> str:
    raw = values.ravel().astype(VTK_KINDS[kind]).tobytes()  # VTK's text has no nan and no inf
    text = base64.b64encode(np.array(len(raw), "<u4").tobytes() + raw).decode()
    return (
        f'<DataArray type="{kind}" Name={quoteattr(name)} NumberOfComponents="{components}" '
        f'format="binary">{text}</DataArray>'
    )


def _read_h5(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return every numeric array of an h5 file by its full name."""
    try:
        import h5py
    except ModuleNotFoundError as problem:
        raise ModuleNotFoundError(
            "reading h5 files needs h5py, which is not installed: pip install h5py."
        ) from problem
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}: check the name.")
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            arrays[os.fsdecode(name)] = item[()]  # a damaged name comes as bytes

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as problem:
        raise ValueError(
            f"{Path(path).name!r} is damaged or no h5 file: copy it again."
        ) from problem
    return arrays


def _ours(stored: np.ndarray, axes: Sequence[np.ndarray], name: str) -> np.ndarray:
    """Return ``[x, y]``: the authors' code fills memory in the order ``[y, x]``, whatever shape."""
    shape = tuple(len(axis) for axis in axes)
    if stored.size != np.prod(shape):
        raise ValueError(f"{name!r} holds {stored.size} values for a grid of {shape}: copy again.")
    return stored.astype(np.float64).reshape(shape[::-1]).T


def _curvatures(arrays: Mapping, axes: Sequence[np.ndarray], name: str) -> dict[str, np.ndarray]:
    if not {"min_eig", "max_eig"} <= arrays.keys():
        return {}
    low, high = (_ours(arrays[k], axes, name) for k in ("min_eig", "max_eig"))
    known = high != NOT_COMPUTED
    low, high = (np.where(known, part, np.nan) for part in (low, high))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"lambda_min": low, "lambda_max": high, "ratio": np.abs(low / high)}


def _meta(name: str, split: str, axes: Sequence[np.ndarray], values: Mapping) -> dict:
    """Return what can be said of a surface whose net was not seen."""
    loss = values["loss"]
    middle = tuple(int(np.abs(axis).argmin()) for axis in axes)
    meta = {
        "model": name,
        "data": f"{split} set, as in the file",
        "batch_norm": "as in the file",
        "non_finite": int((~np.isfinite(loss)).sum()),
        "source": "the h5 file of the code of Li et al. 2018",
    }
    centred = all(axis[i] == 0 for axis, i in zip(axes, middle, strict=True))
    if centred:
        meta["center"] = {key: float(array[middle]) for key, array in values.items()}
    return meta
