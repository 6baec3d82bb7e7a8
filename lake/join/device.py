"""Where the kernel of a join runs: on a GPU where torch sees one, else on the processor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lake.join.kernel import Floats, Nearest

_DRIVER = Path("/dev/nvidiactl")


def kernel(queries: Floats, k: int, metric: str, within: float | None = None, *, exact: bool = True) -> Nearest:
    """Begin a search for the nearest rows, where it is fastest; the rows are the same everywhere. See `Nearest`."""
    if not has_gpu():
        return Nearest(queries, k, metric, within, exact=exact)
    from lake.join.gpu import NearestOnDevice  # loads torch

    return NearestOnDevice(queries, k, metric, within, exact=exact)


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
