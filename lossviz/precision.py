"""How much of a surface is rounding: the same points at other precisions, held against float64.

A quicker precision is good enough where its error cannot be seen in the figure, so errors are told
as shares of the figure's own scale: the range of log loss, or of loss where that is not positive.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lossviz.losses import cross_entropy
from lossviz.objective import Objective
from lossviz.planes import plane
from lossviz.samples import mapped
from lossviz.snapshot import snapshot
from lossviz.surface import Surface

__all__ = ["PRECISIONS", "TF32", "at_precision", "error", "planes", "warn_if_emulated"]

PRECISIONS = ("float64", "float32", "tf32", "float16", "bfloat16", "bfloat16 weights")
WEIGHTS = {"float64": torch.float64, "bfloat16 weights": torch.bfloat16}
PRODUCTS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert")  # x86 that has it has one of these
MANTISSA_BITS_DROPPED = 13  # float32 keeps 23 bits, TF32 10
ATEN = torch.ops.aten
FACTORS = {  # of torch's products: which arguments are factors; the others are addends, or settings
    ATEN.mm: (0, 1), ATEN.bmm: (0, 1), ATEN.mv: (0, 1), ATEN.dot: (0, 1),
    ATEN.addmm: (1, 2), ATEN.baddbmm: (1, 2), ATEN.addmv: (1, 2), ATEN.addbmm: (1, 2),
    ATEN.linear: (0, 1), ATEN.matmul: (0, 1), ATEN.convolution: (0, 1),
    ATEN._convolution: (0, 1), ATEN.convolution_backward: (0, 1, 2),
    ATEN._scaled_dot_product_flash_attention_for_cpu: (0, 1, 2),
}  # fmt: skip


def at_precision(
    model: nn.Module,
    data: object,
    precision: str,
    *,
    loss: Callable = cross_entropy,
    **settings: object,
) -> Objective:
    """Return the objective whose net computes at the given precision.

    Parameters
    ----------
    model, data, loss, **settings
        As for :class:`lossviz.Objective`.
    precision
        ``"float64"``, ``"float32"``: weights and products. ``"tf32"``: products of factors with 10
        bits after the point, as tensor cores take them; where there are none, the rounding is done
        by hand, and costs time. ``"bfloat16"``, ``"float16"``: products by
        ``torch.autocast``, weights in float32. ``"bfloat16 weights"``: all of it, so that a small
        step away from the centre may round to no step at all.

    Returns
    -------
    Objective
        Of a copy of the model; sums over samples are kept in float64 as ever.

    Raises
    ------
    ValueError
        If there is no such precision.

    Examples
    --------
    >>> net, data = nn.Linear(2, 2), (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    >>> gap = at_precision(net, data, "float32")() - at_precision(net, data, "float64")()
    >>> abs(gap) < 1e-6
    True
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(map(repr, PRECISIONS))}; got {precision!r}: take "
            f"'float32'."
        )
    copied = snapshot(model, settings.get("device")).to(WEIGHTS.get(precision, torch.float32))
    device = next(copied.parameters()).device.type
    context = partial(_context, precision, device)
    if loss is cross_entropy and "metrics" not in settings:
        settings["metrics"] = {}
    return Objective(copied, data, loss=_Within(loss, context), **settings)


def planes(
    model: nn.Module,
    data: object,
    u: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
    *,
    precisions: Sequence[str] = PRECISIONS,
    loss: Callable = cross_entropy,
    **settings: object,
) -> dict[str, Surface]:
    """Return the same plane at each precision.

    Parameters
    ----------
    model, data, loss
        As for :class:`lossviz.Objective`.
    u, v
        Directions of the model, rounded where its weights are.
    precisions
        Which; the first should be ``"float64"``, to hold the others against.
    **settings
        ``span``, ``points`` and ``progress`` of :func:`lossviz.plane`.

    Returns
    -------
    dict
        Precision to surface; ``meta["seconds"]`` says what it took.
    """
    return {
        name: plane(at_precision(model, data, name, loss=loss), u, v, **settings)
        for name in precisions
    }


def error(surface: Surface, exact: Surface) -> np.ndarray:
    """Return |difference| at each point, as a share of the figure's scale.

    Parameters
    ----------
    surface
        At some precision.
    exact
        The same points at float64.

    Returns
    -------
    float64 array
        Shaped like the values: differences of log loss over the range of log loss of ``exact``;
        of loss over the range of loss, where a loss is not positive. inf where only one is finite.

    Raises
    ------
    ValueError
        If the two are not of the same points.
    """
    if [axis.tolist() for axis in surface.axes] != [axis.tolist() for axis in exact.axes]:
        raise ValueError("the two surfaces are not of the same points: give both the same grid.")
    ours, theirs = surface.values["loss"], exact.values["loss"]
    both = np.isfinite(ours) & np.isfinite(theirs)
    if (ours[both] > 0).all() and (theirs[both] > 0).all():
        ours, theirs = (np.log(np.where(both, loss, 1.0)) for loss in (ours, theirs))
    gap = np.abs(np.where(both, ours, 0.0) - np.where(both, theirs, 0.0))
    scale = np.ptp(theirs[both]) if both.any() else 0.0
    same = np.isfinite(surface.values["loss"]) == np.isfinite(exact.values["loss"])
    return np.where(same, gap / (scale or 1.0), np.inf)


class TF32(TorchDispatchMode):
    """Within it, products take their factors with 10 bits after the point, as TF32 does.

    Whatever the model calls them, products arrive here in torch's own few. Addends (biases) and
    sums stay in float32, as they do on tensor cores (NVIDIA A100 whitepaper, 2020).
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Call ``function``, its factors rounded if it is a product."""
        factors = FACTORS.get(getattr(function, "overloadpacket", None), ())
        args = tuple(_to_tf32(arg) if k in factors else arg for k, arg in enumerate(args))
        return function(*args, **(kwargs or {}))


def _to_tf32(factor: object) -> object:
    """Return the nearest number with 10 bits after the point (ties away from zero)."""
    if not isinstance(factor, Tensor) or factor.dtype != torch.float32:
        return factor
    bits = factor.view(torch.int32)
    rounded = (bits + (1 << (MANTISSA_BITS_DROPPED - 1))) & -(1 << MANTISSA_BITS_DROPPED)
    return torch.where(torch.isfinite(factor), rounded.view(torch.float32), factor)


class _Within:
    """A loss function that is called within a context; it travels to other processes."""

    def __init__(self, loss: Callable, context: partial):
        self.loss, self.context = loss, context
        self.precision = context.args[0]  # tells two objectives apart
        self.__name__ = getattr(loss, "__name__", type(loss).__name__)

    def __call__(self, model: Callable, batch: tuple) -> object:
        with self.context():
            return self.loss(_Single(model), batch)


class _Single:
    """A model whose outputs are widened: a loss of half precision would be rounded itself."""

    def __init__(self, model: Callable):
        self.model = model

    def __call__(self, *inputs: object, **named: object) -> object:
        return mapped(_widened, self.model(*inputs, **named))


def _widened(output: Tensor) -> Tensor:
    return output.float() if output.dtype in (torch.bfloat16, torch.float16) else output


def _context(precision: str, device: str) -> AbstractContextManager:
    if precision in PRODUCTS:
        return torch.autocast(device, dtype=PRODUCTS[precision])
    if precision == "tf32":
        return _Hardware(True) if device == "cuda" else TF32()
    return _Hardware(False) if device == "cuda" else nullcontext()


class _Hardware:
    """Allow or forbid TF32 on a GPU for a while: convolutions use it unless told otherwise."""

    def __init__(self, allowed: bool):
        self.allowed = allowed

    def __enter__(self):
        self.before = [backend.allow_tf32 for backend in self._backends()]
        for backend in self._backends():
            backend.allow_tf32 = self.allowed

    def __exit__(self, *exception):
        for backend, allowed in zip(self._backends(), self.before, strict=True):
            backend.allow_tf32 = allowed

    @staticmethod
    def _backends() -> tuple:
        return torch.backends.cuda.matmul, torch.backends.cudnn


def warn_if_emulated(model: nn.Module) -> None:
    """Warn where the processor has no products in bfloat16, so that they take longer, not shorter.

    Parameters
    ----------
    model
        Whose device computes. Nothing is said of GPUs, nor of processors that torch cannot ask.
    """
    here = getattr(torch.cpu, "get_capabilities", dict)()
    on_x86 = here.get("architecture") == "x86_64" and next(model.parameters()).device.type == "cpu"
    if on_x86 and not any(here.get(name) for name in BFLOAT16):
        warnings.warn(
            "this processor has no bfloat16 instructions: steps in bfloat16 take several times as "
            "long as in float32. Leave bfloat16 off, or run this where there are some.",
            stacklevel=3,
        )
