"""What the command lines of the kit share: numbers that are checked, and errors in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

__all__ = ["count", "run", "whole"]


def whole(text: str) -> int:
    """Return a whole number from 0 on.

    Parameters
    ----------
    text
        As on the command line.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ArgumentTypeError
        If it is none.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on; got {text}")
    return int(text)


def count(text: str) -> int:
    """Return a whole number from 1 on.

    Parameters
    ----------
    text
        As on the command line.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ArgumentTypeError
        If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on; got {text}")
    return int(text)


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
