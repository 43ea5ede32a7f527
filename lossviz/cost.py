"""What one evaluation of an objective costs: the figure that a plan for a picture starts from."""

from __future__ import annotations

from time import process_time

from torch.utils.flop_counter import FlopCounterMode

from lossviz.objective import Objective

__all__ = ["cost"]


def cost(objective: Objective) -> tuple[int, float]:
    """Return operations and seconds of one evaluation; a picture costs its points times that.

    Parameters
    ----------
    objective
        Over the samples that the picture would average over, or a few of them.

    Returns
    -------
    tuple
        Floating point operations of convolutions and matrix products (a multiplication and an
        addition are two), and processor seconds of all cores together.

    Examples
    --------
    >>> import torch
    >>> samples = (torch.zeros(10, 3), torch.zeros(10, dtype=torch.long))
    >>> cost(Objective(torch.nn.Linear(3, 2), samples))[0]  # 2 · 10 · 3 · 2
    120
    """
    objective()  # what is made once is made now
    with FlopCounterMode(display=False) as counted:
        objective()
    begun = process_time()
    objective()
    return counted.get_total_flops(), process_time() - begun
