"""Which term's gradient is no number; asked when the gradient of a step has turned out to be none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


@dataclass
class Pulls:
    """The vectors that each term was computed from, whose gradients are those of that term alone.

    The gradient of the weighted sum does not say which term it comes from, and the rows of the tables have
    moved when it is known, so the terms cannot be computed again. Their pulls at the vectors are kept instead
    (a few numbers per photo) and, where they are asked for, led back through the encoders one by one.
    """

    _kept: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)

    def of(self, term: str, role: str, vectors: Tensor) -> Tensor:
        """An encoder's vectors for one term alone."""
        own = vectors.view_as(vectors)
        if own.requires_grad:
            own.retain_grad()
            self._kept.setdefault(term, []).append((role, own))
        return own

    def at_fault(
        self, terms: Iterable[str], outputs: Mapping[str, Tensor], parameters: Sequence[Tensor]
    ) -> list[str]:
        """The terms whose own gradient is not finite; all of them where each by itself is finite.

        Args:
            terms: Names.
            outputs: By role, the encoders' vectors computed anew: the first graph is gone.
            parameters: What is trained.
        """
        names = list(terms)
        found = [name for name in names if not self._finite(name, outputs, parameters)]
        return found or names

    def _finite(self, term: str, outputs: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> bool:
        pulls: dict[str, Tensor] = {}
        for role, vectors in self._kept.get(term, []):
            if vectors.grad is not None:
                pulls[role] = vectors.grad + pulls[role] if role in pulls else vectors.grad
        if not all(bool(pull.isfinite().all()) for pull in pulls.values()):
            return False
        roles = [role for role in pulls if role in outputs and outputs[role].requires_grad]
        if not roles:
            return True
        return finite(
            [outputs[role] for role in roles], parameters, [pulls[role].to(outputs[role]) for role in roles]
        )


def finite(
    outputs: Sequence[Tensor], parameters: Sequence[Tensor], pulls: Sequence[Tensor] | None = None
) -> bool:
    """Whether the gradient of some outputs has a length that is a number; the graph stays."""
    gradients = torch.autograd.grad(outputs, parameters, pulls, retain_graph=True, allow_unused=True)
    norms = [gradient.norm() for gradient in gradients if gradient is not None]
    return not norms or bool(torch.stack(norms).norm().isfinite())


def bare(network: Any) -> Any:
    """A network as it was before it was compiled, and its gradients averaged over processes."""
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    return getattr(inner, "_orig_mod", inner)
