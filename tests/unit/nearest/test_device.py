"""Where the kernel runs, with a torch that only says what it sees."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from lake.nearest import device
from lake.nearest.coded import MOST_DIMENSIONS, NearestCoded
from lake.nearest.kernel import Nearest


def torch_that_sees(gpus: int) -> ModuleType:
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(is_available=lambda: gpus > 0)  # type: ignore[attr-defined]
    return torch


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_gpu_is_taken_where_torch_sees_one(gpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKE_GPU", raising=False)
    monkeypatch.setitem(sys.modules, "torch", torch_that_sees(gpus))
    assert device.has_gpu() == (gpus > 0)


def test_the_environment_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_GPU", "0")
    monkeypatch.setitem(sys.modules, "torch", torch_that_sees(1))
    assert not device.has_gpu()


def test_torch_is_not_looked_for_without_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LAKE_GPU", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    (tmp_path / "torch.py").write_text("raise AssertionError('loaded')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(device, "_DRIVER", tmp_path / "nvidiactl")
    assert not device.has_gpu()
    (tmp_path / "nvidiactl").touch()
    with pytest.raises(AssertionError, match="loaded"):
        device.has_gpu()


def test_a_driver_without_torch_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKE_GPU", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # which is how an import of what is not there fails
    assert not device.has_gpu()


@pytest.mark.parametrize("bytes_multiply", [False, True])
def test_without_a_gpu_the_processor_compares(bytes_multiply: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_GPU", "0")
    monkeypatch.setattr(device, "available", lambda: bytes_multiply)
    found = device.kernel(np.ones((1, 2), np.float32), 1, "l2")
    assert (type(found), found.device) == (NearestCoded if bytes_multiply else Nearest, "cpu")
    wide = np.ones((1, MOST_DIMENSIONS + 1), np.float32)
    assert type(device.kernel(wide, 1, "l2")) is Nearest
