"""What the command lines of the kit share: numbers that are checked, and errors in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from lossviz import data

__all__ = ["Help", "cifar10", "count", "run", "whole"]


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows what each option is where it is not given, and the description as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str:
        plain = action.default is None or action.default is False
        return action.help if plain else super()._get_help_string(action)


def _from(lowest: int) -> Callable[[str], int]:
    """Return what reads a whole number from ``lowest`` on, as a type of argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"must be a whole number from {lowest} on; got {text}")
        return int(text)

    return read


whole, count = _from(0), _from(1)


def run(main: Callable[[], None]) -> None:
    """Run a command; what its reader can mend is told in one sentence, and the exit status is 2.

    Parameters
    ----------
    main
        Reads the command line itself.
    """
    try:
        main()
    except (ValueError, TypeError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped: the same command goes on from there.", file=sys.stderr)
        sys.exit(130)


def cifar10(root: str, **scale: object) -> data.Dataset:
    """Return CIFAR-10 for a command; where it is not there, say how to get it from the shell.

    Parameters
    ----------
    root, **scale
        As for :func:`lossviz.data.cifar10`.

    Returns
    -------
    Dataset
        Of 32 × 32 photographs.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    try:
        return data.cifar10(root, **scale)
    except FileNotFoundError as problem:
        raise FileNotFoundError(
            f"--cifar10 {root}: CIFAR-10 is not there. Give the folder that holds "
            f'cifar-10-batches-py, or an npz file of images; python -c "import lossviz as lv; '
            f"lv.data.cifar10('{root}', download=True)\" fetches it."
        ) from problem
