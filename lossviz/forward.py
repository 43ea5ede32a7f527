"""From the state of a net (weights and statistics) to sums of loss and metrics over the samples.

Where the model can be traced, the quick :class:`~lossviz.network.Network` does the work, checked
against the model itself; elsewhere the model does, with its tensors exchanged for the call.
"""

from __future__ import annotations

import math
from collections import ChainMap, Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from lossviz.losses import batch_length, total, wide
from lossviz.network import Folded, Network
from lossviz.plain import Plain, Remembering
from lossviz.samples import mapped

__all__ = ["Forward"]


class Forward:
    """Sums of the loss and the metrics over fixed batches, at any state.

    Parameters
    ----------
    model
        A private copy, in eval mode.
    functions
        The loss first, then the metrics; each takes ``(model, batch)``.
    batches
        The samples.
    batch_norm
        ``"stored"``, ``"batch"``, ``"recalibrated"`` or ``"interpolated"``.
    calibration
        Inputs on which statistics are recomputed, for ``"recalibrated"``.

    Attributes
    ----------
    quick : bool
        Whether the traced network is used.
    reason : str
        Why not, where it is not.
    guarded : bool
        Whether batches are given as copies, since the model or the loss writes to its inputs.
    kernels : frozenset of str
        The weights of convolutions that may be laid out channels last.
    """

    def __init__(
        self,
        model: nn.Module,
        functions: Sequence[Callable],
        batches: Sequence[tuple],
        batch_norm: str,
        calibration: Tensor | None,
    ):
        self.functions, self.batches = tuple(functions), list(batches)
        self.batch_norm, self.calibration = batch_norm, calibration
        self.plain = Plain(model)
        self.folded = self.measured = None
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        state = {**dict(model.named_parameters()), **buffers}
        self.guarded, steady = self._writes_inputs(state)
        self.quick, self.reason = self._traced(model, state) if steady else (False, "noise")
        self.kernels = self._kernels(state) if self.quick else frozenset()

    def totals(self, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (sums, counts) over all batches, each float64 ``[1 + metrics]``, at one point.

        Parameters
        ----------
        state
            Parameters and buffers by name.

        Returns
        -------
        tuple
            Sums and counts.
        """
        if self.quick:
            return self.quick_totals(state)
        state = self._calibrated(state)
        measuring = self.batch_norm == "batch"
        parts = [self._plain_values(state, batch, measuring) for batch in self.batches]
        return _summed(parts, self.batches)

    def _plain_values(self, state: Mapping[str, Tensor], batch: tuple, measuring: bool) -> list:
        if not self.guarded:
            return self.plain.values(state, batch, self.functions, measuring)
        each = ([function] for function in self.functions)
        return [self.plain.values(state, self._given(batch), f, measuring)[0] for f in each]

    def quick_totals(
        self, state: Mapping[str, Tensor], *, folded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return what :meth:`totals` does, by the traced network; may be mapped over states.

        Parameters
        ----------
        state
            Parameters and buffers by name, computed when they are looked up.
        folded
            Whether ``state`` itself offers the folded weights.

        Returns
        -------
        tuple
            Sums and counts.
        """
        outputs = self._outputs(state, folded)
        parts = []
        for batch in self.batches:
            model = Remembering(outputs)
            parts.append([function(model, self._given(batch)) for function in self.functions])
        return _summed(parts, self.batches)

    def differentiable(self, state: Mapping[str, Tensor], batch: tuple) -> object:
        """Return what the loss function gives for one batch, as a differentiable value.

        Parameters
        ----------
        state
            Parameters and buffers by name.
        batch
            One batch.

        Returns
        -------
        object
            A mean, or a pair (sum, count).

        Raises
        ------
        NotImplementedError
            For recalibrated statistics in a net that cannot be traced: they depend on the weights
            in a way the net's own batch norm does not differentiate.
        """
        batch = self._given(batch)
        if self.quick:
            return self.functions[0](Remembering(self._outputs(state, False)), batch)
        if self.batch_norm == "recalibrated" and self.plain.norms:
            raise NotImplementedError(
                "gradients with recalibrated statistics need a net that torch.fx can trace, and "
                f"this one it cannot ({self.reason}): use batch_norm='stored' or 'batch'."
            )
        measuring = self.batch_norm == "batch"
        return self.plain.values(state, batch, self.functions[:1], measuring)[0]

    def noise_cause(self) -> str:
        """Return the likely cause of two evaluations that differ."""
        kinds = {type(m) for m in self.plain.model.modules()}
        own = [kind.__name__ for kind in kinds if not kind.__module__.startswith("torch.nn.")]
        random = sorted(name for name in own if "Drop" in name or "Noise" in name)
        if random:
            return f"a random layer that stays on in eval mode ({', '.join(random)})"
        return (
            "a random step in the loss function or the model's forward (dropout with "
            "training=True, augmentation, sampling, shuffling)"
        )

    def _given(self, batch: tuple) -> tuple:
        return mapped(torch.clone, batch) if self.guarded else batch

    def _outputs(self, state: Mapping[str, Tensor], folded: bool) -> Callable:
        if self.batch_norm == "batch":
            return partial(self.measured, Measuring(state))
        if self.batch_norm == "recalibrated" and self.plain.norms:
            measuring = Measuring(state)
            self.measured(measuring, self.calibration)
            state = ChainMap(measuring.statistics, state)
        return partial(self.folded, state if folded else Folded(state, self.folded))

    def _calibrated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.batch_norm != "recalibrated" or not self.plain.norms:
            return state
        return self.plain.recalibrated(state, self.calibration)

    def _writes_inputs(self, state: Mapping[str, Tensor]) -> tuple[bool, bool]:
        """Return whether a batch is written to, and whether two evaluations agree."""
        few, seen = mapped(torch.clone, _few(self.batches[0])), []
        mapped(lambda tensor: seen.append(tensor) or tensor, few)
        before = [tensor._version for tensor in seen]
        try:
            with torch.no_grad():
                value = total(self.plain.values(state, few, self.functions, False)[0], few)[0]
                again = self._value(state)
        except Exception:  # too few samples for this net, perhaps: copies are sure, and cheap
            return True, True
        return [tensor._version for tensor in seen] != before, _close(value, again, 1e-6)

    def _value(self, state: Mapping[str, Tensor], measuring: bool = False) -> Tensor:
        few = mapped(torch.clone, _few(self.batches[0]))
        return total(self.plain.values(state, few, self.functions[:1], measuring)[0], few)[0]

    def _traced(self, model: nn.Module, start: Mapping[str, Tensor]) -> tuple[bool, str]:
        """Trace the model and compare; whatever goes wrong means the slow, sure way."""
        try:
            self.folded = Network(model, fold=True)
            if self.batch_norm in ("batch", "recalibrated"):
                self.measured = Network(model, fold=False)
            for state in (start, _shaken(start)):
                before = [tensor._version for tensor in state.values()]
                self._compare(state)
                if [tensor._version for tensor in state.values()] != before:
                    raise ValueError("the net writes to its own buffers")
            self._compare_slopes(start)
        except Exception as problem:  # a tracer may raise anything; the reason is kept and shown
            return False, f"{type(problem).__name__}: {problem}".splitlines()[0]
        return True, ""

    def _kernels(self, state: Mapping[str, Tensor]) -> frozenset[str]:
        """Return the convolutions' weights; none where the net calls ``view`` on their outputs."""
        modules, names = self.folded.modules.items(), self.folded.names
        kernels = {names[f"{k}.weight"] for k, layer in modules if type(layer) is nn.Conv2d}
        last = {k: state[k].contiguous(memory_format=torch.channels_last) for k in kernels}
        try:
            self._compare({**state, **last})
        except (RuntimeError, ValueError):
            return frozenset()
        return frozenset(kernels)

    def _compare(self, state: Mapping[str, Tensor]) -> None:
        networks = {False: partial(self.folded, Folded(state, self.folded))}
        if self.plain.norms and self.measured is not None:
            networks[True] = partial(self.measured, Measuring(state))
        exact = next(iter(state.values())).dtype == torch.float64
        for measuring, network in networks.items():
            batch = mapped(torch.clone, _few(self.batches[0]))
            with torch.no_grad():
                values = [function(Remembering(network), batch) for function in self.functions]
                ours = total(values[0], batch)[0]
                theirs = self._value(state, measuring)
            if not _close(ours, theirs, 1e-8 if exact else 1e-3):
                raise ValueError(f"the traced net gives {float(ours)}, the net {float(theirs)}")

    def _compare_slopes(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a trace that lost a custom backward: tracing sees the forward only."""
        names = [k for k, w in self.plain.model.named_parameters() if _is_small_float(w)]
        moving = {name: state[name].detach().clone().requires_grad_() for name in names}
        at, batch = {**state, **moving}, mapped(torch.clone, _few(self.batches[0]))
        with torch.enable_grad():
            model = Remembering(partial(self.folded, Folded(at, self.folded)))
            values = [self.functions[0](model, batch)]
            values += self.plain.values(at, batch, self.functions[:1], False)
            sums = [total(value, batch)[0] for value in values]
        if not all(value.requires_grad for value in sums):
            return
        slopes = [torch.autograd.grad(s, list(moving.values()), allow_unused=True) for s in sums]
        for name, ours, theirs in zip(names, *slopes, strict=True):
            if not _same_slope(ours, theirs):
                raise ValueError(f"the traced net has another gradient with respect to {name}")


class Measuring(Mapping):
    """A state in which batch norms use, and note down, the statistics of what they are given."""

    def __init__(self, state: Mapping[str, Tensor]):
        self.state = state
        self.statistics: dict[str, Tensor] = {}
        self.calls: Counter = Counter()

    def note(self, names: tuple[str, str], *found: Tensor) -> None:
        """Keep a norm's mean and variance, or their average over its calls, as torch does."""
        for name, value in zip(names, found, strict=True):
            self.calls[name] += 1
            if name in self.statistics:
                value = torch.lerp(self.statistics[name], value, 1 / self.calls[name])
            self.statistics[name] = value

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def __iter__(self):
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def _summed(parts: Sequence[Sequence], batches: Sequence[tuple]) -> tuple[Tensor, Tensor]:
    """Add up (sum, count) of every function over the batches, in float64."""
    sums, counts = [], []
    for values in zip(*parts, strict=True):
        pairs = [total(value, batch) for value, batch in zip(values, batches, strict=True)]
        sums.append(torch.stack([wide(s.reshape(())) for s, _ in pairs]).sum())
        counts.append(_counted([count for _, count in pairs], sums[0]))
    return torch.stack(sums), torch.stack(counts)


def _counted(counts: Sequence[Tensor | float], like: Tensor) -> Tensor:
    """Add up counts on the device of ``like``: numbers are written there, and nobody waits."""
    if not any(isinstance(count, Tensor) for count in counts):
        return torch.full_like(like, float(sum(counts)))
    placed = [c if isinstance(c, Tensor) else torch.full_like(like, float(c)) for c in counts]
    return torch.stack([wide(count.reshape(())).to(like.device) for count in placed]).sum()


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool(torch.isclose(wide(a), wide(b), rtol=tolerance, atol=0.0, equal_nan=True))


def _shaken(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state in which tensors up to a MiB differ: a trace that froze one of them shows."""
    factors = [1 + 0.05 * math.sin(i + 1) for i in range(len(state))]
    return {
        name: factor * tensor if _is_small_float(tensor) else tensor
        for factor, (name, tensor) in zip(factors, state.items(), strict=True)
    }


def _same_slope(ours: Tensor | None, theirs: Tensor | None) -> bool:
    if ours is None or theirs is None:
        return not any(slope is not None and bool(slope.any()) for slope in (ours, theirs))
    gap, size = (ours - theirs).double().norm(), theirs.double().norm()
    return bool(gap <= 1e-2 * size + 1e-6) or not bool(torch.isfinite(gap))


def _is_small_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() * tensor.element_size() <= 2**20


def _few(batch: tuple, n: int = 8) -> tuple:
    """Return the first samples of a batch: of each part that has an entry per sample."""
    length = batch_length(batch)

    def per_sample(part: object) -> bool:
        whole = isinstance(part, list) or (isinstance(part, Tensor) and part.ndim > 0)
        return whole and len(part) == length

    return tuple(part[:n] if per_sample(part) else part for part in batch)
