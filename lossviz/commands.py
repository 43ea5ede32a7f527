"""What the command lines of the kit share: numbers that are checked, and errors in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

__all__ = ["count", "run", "whole"]


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
