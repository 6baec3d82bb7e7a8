"""The kernel of the join on a GPU: products and what they leave out there, distances and heaps here.

Whatever a product says may be among the nearest gets its distance anew, by the same code as without a GPU: rows and
distances are the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lake.errors import JobError
from lake.nearest.kernel import ALL_PAIRS, Floats, Ids, Nearest, Pairs, Rows
from lake.nearest.topk import keep_pairs

_CELLS: Final = 1 << 24  # of a block: of its rows, and of its products
_COMPARE: Final = (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)  # as OPERATORS has them
_products = Lock()


class NearestOnDevice(Nearest):
    """The k nearest rows of each query so far, with the queries on a device of torch.

    Parameters
    ----------
    device : str
        As torch calls it.

    Others as `Nearest` has them.
    """

    def __init__(
        self,
        queries: Floats,
        k: int,
        metric: str,
        within: float | None = None,
        *,
        device: str = "cuda",
    ) -> None:
        super().__init__(queries, k, metric, within)
        with _enough_memory():
            self._queries = torch.tensor(queries, device=device)
        self._device = self._queries.device  # with its number: "cuda" is another one in each thread that chose one
        self.device = torch.cuda.get_device_name(self._device) if self._queries.is_cuda else device

    def meet(self, which: NDArray[np.int32], rows: Rows, pairs: Pairs | None = None) -> None:
        """Let some queries meet some rows; see `Nearest`."""
        chosen = pairs or ALL_PAIRS
        vectors, ids = rows.vectors, rows.ids
        most = max(1, _CELLS // vectors.shape[1])
        step = max(1, _CELLS // max(1, min(most, len(rows))))
        for row in range(0, len(rows), most):
            part = slice(row, row + most)
            with _enough_memory():
                there = [self._there(x) for x in (vectors[part], rows.half[part], ids[part], chosen.right[part])]
            for start in range(0, len(which), step):
                block = which[start : start + step]
                with _enough_memory():
                    at, to = self._near(block, there, rows.longest, chosen)
                keep_pairs(
                    block[at],
                    to,
                    self.queries,
                    vectors[part],
                    ids[part],
                    self.distances,
                    self.ids,
                    self.metric,
                )

    def _near(self, which: NDArray[np.int32], there: list[Any], longest: np.float32, pairs: Pairs) -> tuple[Ids, Ids]:
        """Find the pairs that may matter, by their positions."""
        rows, half, ids, right = there
        scores = torch.empty((len(which), len(rows)), dtype=torch.float32, device=self._device)
        with _full_precision():  # and whatever has `out` is let alone by autocast
            torch.mm(self._queries.index_select(0, self._there(which)), rows.T, out=scores)
        scores -= half
        if len(pairs.own):
            scores.masked_fill_(self._there(pairs.own[which])[:, None] == ids, -torch.inf)
        for c, operator in enumerate(pairs.operators):
            left = self._there(pairs.left[which, c])
            scores.masked_fill_(~_COMPARE[operator](left[:, None], right[:, c]), -torch.inf)
        slack = self._slack(which, longest)
        bar = self._there(self._bars(which, slack))
        bar.clamp_(min=torch.finfo(torch.float32).min)  # which a pair that may not be does not reach
        near = scores >= bar[:, None]
        k = self.ids.shape[1]
        if int(near.sum()) > k * len(which):
            # Most are no match for others of the same block: k of them are as near as the k-th best, but for the slack.
            kth = scores.topk(k, sorted=False).values.amin(1)
            near = scores >= torch.fmax(bar, kth - 2 * self._there(slack))[:, None]
        at, to = near.nonzero(as_tuple=True)
        return at.cpu().numpy(), to.cpu().numpy()

    def _there(self, array: NDArray[Any]) -> Any:
        return torch.tensor(array, device=self._device)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Hold products to float32, and leave the process as it was: how a product is computed is set when it starts."""
    with _products:
        # Torch has two ways to set it, and a process that has used one may not use the other.
        try:
            before, full, put = torch.get_float32_matmul_precision(), "highest", torch.set_float32_matmul_precision
        except RuntimeError:
            matmul = torch.backends.cuda.matmul
            before, full, put = matmul.fp32_precision, "ieee", partial(setattr, matmul, "fp32_precision")
        if before == full:
            yield
            return
        put(full)
        try:
            yield
        finally:
            put(before)


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise JobError(f"the GPU's memory is full ({error}); LAKE_GPU=0 lets joins do without it") from error
