"""Batches that grow as the signal fades: big batch SGD (De, Yadav, Jacobs & Goldstein 2017)."""

from dataclasses import dataclass

__all__ = ["AdaptiveBatch"]


@dataclass(frozen=True)
class AdaptiveBatch:
    """The settings of a batch that grows."""

    initial: int = 16
