"""Which kernel runs: that on a GPU where torch sees one, else that of bytes or of floats, as the processor has it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lake.nearest.coded import MOST_DIMENSIONS, NearestCoded
from lake.nearest.kernel import Floats, Nearest
from lake.nearest.tile import available
from lake.run.threads import Hands

_DRIVER = Path("/dev/nvidiactl")


def kernel(queries: Floats, k: int, metric: str, within: float | None = None, hands: Hands | None = None) -> Nearest:
    """Begin a search for the nearest rows, where it is fastest; the rows are the same everywhere. See `Nearest`."""
    if not has_gpu():
        return processor(queries, k, metric, within, hands)
    from lake.nearest.gpu import NearestOnDevice  # loads torch

    return NearestOnDevice(queries, k, metric, within)


def processor(queries: Floats, k: int, metric: str, within: float | None = None, hands: Hands | None = None) -> Nearest:
    """Begin a search for the nearest rows that does without a GPU. See `Nearest`."""
    if available() and queries.shape[1] <= MOST_DIMENSIONS:
        return NearestCoded(queries, k, metric, within, hands)
    return Nearest(queries, k, metric, within, hands)


def has_gpu() -> bool:
    """Tell whether torch is installed and sees a GPU, unless the environment has ``LAKE_GPU=0``."""
    # To load torch takes seconds: not where there is no driver.
    if os.environ.get("LAKE_GPU") == "0" or ("torch" not in sys.modules and not _DRIVER.exists()):
        return False
    try:
        import torch
    except ModuleNotFoundError:
        return False

    return bool(torch.cuda.is_available())
