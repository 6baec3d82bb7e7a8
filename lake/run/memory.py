"""How much memory there is, and how much this process holds, in bytes."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path


def available_bytes() -> int:
    """Return what the machine, and the control groups that hold this process, can still give."""
    return min([_machine(), *cgroup_free(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def resident_bytes() -> int:
    """Return what this process holds in memory; where the system does not say, the most that it held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import resource  # absent on Windows

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def cgroup_free(own: Path, root: Path) -> Iterator[int]:
    """Yield what each limited control group above this process has left, for versions 1 and 2.

    Pages of cached files count as free: the kernel drops them before it refuses memory.

    Parameters
    ----------
    own, root : Path
        ``/proc/self/cgroup`` and ``/sys/fs/cgroup``.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used, cached = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used, cached = (
                root / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        folder = top / path.lstrip("/")
        # Inside a container the path may be the host's, of which only the top is mounted.
        for each in (folder, *(parent for parent in folder.parents if parent.is_relative_to(top))):
            try:
                most = (each / limit).read_text().strip()
                stat = dict(row.split() for row in (each / "memory.stat").read_text().splitlines())
                taken = int((each / used).read_text()) - int(stat.get(cached, 0))
            except OSError:
                continue
            if most != "max":
                yield max(int(most) - taken, 0)
