"""Memory is asked for before it is taken."""

from __future__ import annotations

from pathlib import Path

from bayeslmm.errors import InputError

# Where Linux tells the limits of a group of processes, such as a container or a batch job.
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def gigabytes(size: float) -> str:
    """A number of bytes as GB or MB.

    Examples
    --------
    >>> gigabytes(3.2e9), gigabytes(45e6)
    ('3.2 GB', '45 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def available_memory() -> int:
    """Bytes of memory that can be taken without swapping.

    What the machine has free, or what is left of a limit on this process and its like (a
    container's, a batch job's: Linux control groups, version 1 or 2), if that is less.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    return min([free, *_left_of_limits(_CGROUPS, _OWN_CGROUP)])


def _left_of_limits(root: Path, own: Path) -> list[int]:
    """Bytes left of the limit of each control group that this process is in."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.strip("/")
        # Inside a container the path may be the host's: the group's own folder is the top then.
        folders = [folder, *folder.parents] if folder.is_dir() else [top]
        for each in folders:
            if each == top.parent:
                break
            try:
                limit = int((each / names[0]).read_text())
                used = int((each / names[1]).read_text())
                statistics = (each / "memory.stat").read_text().split()
            except (OSError, ValueError):  # no limit is "max"
                continue
            # Pages of files read before, which the kernel gives back when asked.
            cached = int(statistics[statistics.index(names[2]) + 1])
            left.append(max(0, limit - used + cached))
    return left


def fits(size: float) -> bool:
    """Whether so many bytes are available."""
    return size <= available_memory()


def require_memory(size: float, what: str) -> None:
    """Raise an `InputError` with both numbers if `size` bytes are not available."""
    available = available_memory()
    if size > available:
        raise InputError(
            f"{what} needs {gigabytes(size)} of memory, but {gigabytes(available)} are "
            "available. Use fewer samples, or a machine with more memory."
        )
