"""Which sites feed which, over any number of others."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ._ids import distinct
from ._pool import Pool


@dataclass
class Feeding:
    """Arrows between sites: through tensors, and without.

    In a recurrent network the hidden state feeds itself, which tells that it is one set of neurons
    at several times::

        state ---- weight ---- sum ---- tanh        feeds(state, sum) is true
          ^______________________________|
    """

    pool: Pool
    _through_tensors: dict[int, set[int]] = field(default_factory=dict)
    _directly: dict[int, set[int]] = field(default_factory=dict)

    def note(self, source: Tensor, destination: Tensor, through_tensor: bool) -> None:
        """Some nodes feed others."""
        above = self._through_tensors if through_tensor else self._directly
        sites = self._sites(source)
        for site in self._sites(destination):
            above.setdefault(site, set()).update(sites)

    def feeds(self, first: Tensor, last: Tensor, weights: bool = True) -> bool:
        """Whether some of the first nodes feed some of the last, over any number of sites."""
        goal, todo = self._sites(first), self._sites(last)
        seen: set[int] = set()
        while todo:
            site = todo.pop()
            if site in goal:
                return True
            seen.add(site)
            todo |= self._directly.get(site, set()) - seen
            if weights:
                todo |= self._through_tensors.get(site, set()) - seen
        return False

    def _sites(self, nodes: Tensor) -> set[int]:
        return set(torch.unique(self.pool.site_number(distinct(nodes))).tolist())
