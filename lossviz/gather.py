"""The class as the experiment: the results of many runs in one table, and who disagrees."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from lossviz.plots.figures import light_grid, new_axes, text_size, write_caption
from lossviz.plots.levels import log_wanted
from lossviz.plots.lines import log_axis
from lossviz.plots.palette import OKABE_ITO, look
from lossviz.results import read_results
from lossviz.storage import atomic_write

__all__ = ["Gathered", "gather"]

SEEDS = ("seed", "seeds")


def gather(
    results: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    by: str | Iterable[str] = SEEDS,
) -> Gathered:
    """Return one table of the results of many runs of a lesson, a row each.

    Parameters
    ----------
    results
        A pattern, such as ``"runs/*/results.json"``, or the files.
    by
        The parameters in which the runs may differ; they become columns. By default the seeds: the
        same experiment, repeated.

    Returns
    -------
    Gathered
        Ordered by the parameters in ``by``.

    Raises
    ------
    FileNotFoundError
        If the pattern finds nothing.
    ValueError
        If a file is no result, if the runs differ in other settings than ``by`` (the sentence says
        which), if two runs have the same settings, or if ``by`` names no parameter.
    """
    files = _files(results)
    runs = [read_results(file) for file in files]
    settings = [{"lesson": r["lesson"], "lossviz": r["versions"].get("lossviz")} for r in runs]
    settings = [mine | r["parameters"] for mine, r in zip(settings, runs, strict=True)]
    allowed = (by,) if isinstance(by, str) else tuple(by)
    unknown = [name for name in allowed if not any(name in mine for mine in settings)]
    if unknown and by is not SEEDS:
        raise ValueError(
            f"by names {', '.join(unknown)}, which these runs do not have: take some of "
            f"{', '.join(settings[0])}."
        )
    allowed = tuple(name for name in allowed if name not in unknown)
    _refuse_mixture(settings, allowed, files)
    who = _names(files, settings[0]["lesson"])
    rows = [
        {"who": name, **{key: mine.get(key) for key in allowed}, **run["values"]}
        for name, mine, run in zip(who, settings, runs, strict=True)
    ]
    rows.sort(key=lambda row: [_order(row[key]) for key in (*allowed, "who")])
    shared = {name: value for name, value in settings[0].items() if name not in allowed}
    return Gathered(rows, shared, allowed)


@dataclass
class Gathered:
    """Results of many runs of one lesson.

    Attributes
    ----------
    rows : list of dict
        One a run: ``who`` (its folder), the parameters in ``by``, the values. A
        ``pandas.DataFrame`` takes it as it is.
    settings : dict
        What all runs share: lesson, version, parameters.
    by : tuple of str
        The parameters in which the runs may differ.
    """

    rows: list[dict]
    settings: dict
    by: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column, one entry a run."""
        if name not in self.rows[0]:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self.rows[0])}.")
        return np.array([row[name] for row in self.rows])

    def __repr__(self) -> str:
        columns = [
            name for name, value in self.rows[0].items() if not isinstance(value, (list, dict))
        ]
        cells = [columns, *([_short(row[name]) for name in columns] for row in self.rows)]
        widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
        lines = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
        return "\n".join(lines)

    def summary(self, value: str, *, by: str | None = None) -> list[dict]:
        """Return count, median, quartiles, mean, deviation and ends of a value, a row a group.

        Parameters
        ----------
        value
            Name of a column of numbers.
        by
            The parameter that makes the groups; None: all runs are one.

        Returns
        -------
        list of dict
            Over the finite numbers; ``n`` counts these, ``n_not_finite`` the others.
        """
        return [
            {**_spread(self._numbers(value, rows)), **_key(by, key)}
            for key, rows in self._groups(by)
        ]

    def outliers(self, value: str, *, by: str | None = None) -> list[dict]:
        """Return the rows that disagree: beyond the quartiles by 1.5 times their distance.

        Parameters
        ----------
        value
            Name of a column of numbers.
        by
            The parameter that makes the groups, each with its own quartiles.

        Returns
        -------
        list of dict
            Rows, those not finite included; of fewer than 5 runs only these (Tukey 1977).
        """
        found = []
        for _, rows in self._groups(by):
            numbers = self._numbers(value, rows)
            found += [row for row, out in zip(rows, _disagree(numbers), strict=True) if out]
        return found

    def plot(self, value: str, *, by: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw each run as a dot over the quartiles of its group; those that disagree by name.

        Parameters
        ----------
        value
            Name of a column of numbers.
        by
            The parameter along the horizontal axis; None: one group.
        ax
            Axes to draw on; a new figure by default.

        Returns
        -------
        Axes
            With the picture.
        """
        ax = new_axes(ax)
        light_grid(ax)
        groups = self._groups(by)
        columns = [self._numbers(value, rows) for _, rows in groups]
        if log_wanted(*columns):
            log_axis(ax.yaxis, *columns)
        for place, ((_, rows), numbers) in enumerate(zip(groups, columns, strict=True)):
            who = [row["who"].removeprefix(f"{by}={rows[0].get(by)}-") for row in rows]
            _draw_group(ax, place, numbers, who)
        ax.set_xticks(range(len(groups)), [_short(key) for key, _ in groups])
        ax.set_xlim(-0.6, len(groups) - 0.4)
        ax.set_xlabel(by.replace("_", " ") if by else "")
        scale = " (log scale)" if ax.get_yscale() == "log" else ""
        ax.set_ylabel(value.replace("_", " ") + scale)
        write_caption(ax, self._caption(columns))
        return ax

    def save(self, path: str | os.PathLike) -> None:
        """Write the table as CSV, the settings that all runs share included.

        Parameters
        ----------
        path
            The file, usually ``table.csv``.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        stream = io.StringIO()
        rows = [{**row, **self.settings} for row in self.rows]
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
            )
        atomic_write(path, stream.getvalue().encode())

    def _groups(self, by: str | None) -> list[tuple[object, list[dict]]]:
        if by is None:
            return [("all runs", self.rows)]
        if by not in self.by:
            raise ValueError(
                f"by must be a parameter in which the runs differ ({', '.join(self.by)}); "
                f"got {by!r}: gather with by={by!r}."
            )
        keys = {json.dumps(row[by]): row[by] for row in self.rows}
        return [(key, [row for row in self.rows if row[by] == key]) for key in keys.values()]

    def _numbers(self, value: str, rows: list[dict]) -> np.ndarray:
        column = [row.get(value) for row in rows]
        if not all(isinstance(x, (int, float)) for x in column):
            numbers = [name for name, x in self.rows[0].items() if isinstance(x, (int, float))]
            raise ValueError(
                f"{value!r} is no column of numbers: take one of {', '.join(numbers)}."
            )
        return np.array(column, dtype=np.float64)

    def _caption(self, columns: list[np.ndarray]) -> str:
        numbers = np.concatenate(columns)
        shared = [
            f"{k} {_short(v)}" for k, v in self.settings.items() if k not in ("lossviz", "lesson")
        ]
        missing = int((~np.isfinite(numbers)).sum())
        parts = [f"{self.settings['lesson']}", f"{len(numbers)} runs", *shared]
        parts += [f"{missing} not finite"] if missing else []
        return " · ".join(parts) + " · box: quartiles, bar: median, named: over 1.5 boxes from it"


def _files(results: object) -> list[Path]:
    if isinstance(results, (str, os.PathLike)):
        files = sorted(glob.glob(os.fspath(results), recursive=True))
        if not files:
            raise FileNotFoundError(
                f"no file matches {os.fspath(results)!r}: run the lesson with out_dir set, or name "
                f"another folder."
            )
    else:
        files = [os.fspath(file) for file in results]
        if not files:
            raise ValueError("gather needs at least one results.json; got none: name some.")
    return [Path(file) for file in files]


def _refuse_mixture(settings: list[dict], allowed: tuple[str, ...], files: list[Path]) -> None:
    first, told = settings[0], []
    for name in dict.fromkeys(name for mine in settings for name in mine):
        for mine, file in zip(settings, files, strict=True):
            if name not in allowed and mine.get(name) != first.get(name):
                told.append(
                    f"{name} ({_short(first.get(name))} in {files[0]}, "
                    f"{_short(mine.get(name))} in {file})"
                )
                break
    if told:
        raise ValueError(
            f"these runs differ in {'; '.join(told)}: gather runs of one setting, or say in which "
            f"they may differ, with by=(…)."
        )
    seen: dict[str, Path] = {}
    for mine, file in zip(settings, files, strict=True):
        other = seen.setdefault(json.dumps(mine, sort_keys=True), file)
        if other != file:
            raise ValueError(
                f"{other} and {file} have the same settings, seeds included, and would count "
                f"twice: leave one out, or run it with another seed."
            )


def _names(files: list[Path], lesson: str) -> list[str]:
    """Folder of each file, without the lesson's name; the whole path where two are alike."""
    names = [file.absolute().parent.name.removeprefix(f"{lesson}-") for file in files]
    return names if len(set(names)) == len(names) else [file.parent.as_posix() for file in files]


def _order(value: object) -> tuple:
    if isinstance(value, (int, float)):
        return (0, value, "")
    return (1, 0, re.sub(r"\d+", lambda digits: digits[0].zfill(12), str(value)))


def _key(by: str | None, key: object) -> dict:
    return {by: key} if by else {}


def _spread(numbers: np.ndarray) -> dict:
    finite = numbers[np.isfinite(numbers)]
    told = {"n": len(finite), "n_not_finite": len(numbers) - len(finite)}
    if not len(finite):
        return told
    low, median, high = np.quantile(finite, [0.25, 0.5, 0.75]).tolist()
    told |= {"median": median, "lower_quartile": low, "upper_quartile": high}
    told |= {"mean": float(finite.mean()), "min": float(finite.min()), "max": float(finite.max())}
    return told | {"std": float(finite.std(ddof=1)) if len(finite) > 1 else 0.0}


def _disagree(numbers: np.ndarray) -> np.ndarray:
    told = _spread(numbers)
    if told["n"] < 5:
        return ~np.isfinite(numbers)
    low, high = told["lower_quartile"], told["upper_quartile"]
    reach = 1.5 * (high - low)
    return ~np.isfinite(numbers) | (numbers < low - reach) | (numbers > high + reach)


def _draw_group(ax: Axes, place: int, numbers: np.ndarray, who: list[str]) -> None:
    blue, red = look("", 0)["color"], OKABE_ITO["vermillion"]
    sound, out = np.isfinite(numbers), _disagree(numbers)
    if not sound.any():
        return
    told = _spread(numbers)
    if told["n"] > 1:
        low, high = told["lower_quartile"], told["upper_quartile"]
        ax.bar(place, high - low, bottom=low, width=0.5, color=blue, alpha=0.2, zorder=2)
        ax.hlines(told["median"], place - 0.25, place + 0.25, color=blue, linewidth=3, zorder=3)
    x = place + np.linspace(-0.18, 0.18, len(numbers)) if len(numbers) > 1 else np.array([place])
    dots = {"s": 36, "edgecolors": "black", "linewidths": 0.6, "zorder": 4}
    ax.scatter(x[sound & ~out], numbers[sound & ~out], color=blue, **dots)
    ax.scatter(x[sound & out], numbers[sound & out], color=red, marker="D", **dots)
    for k in np.flatnonzero(sound & out):
        ax.annotate(
            who[k], (x[k], numbers[k]), xytext=(7, 0), textcoords="offset points", va="center",
            fontsize=text_size(ax, 11.0),
        )  # fmt: skip


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
