"""The peak resident memory of a process, without what it was before it ran its program."""

from pathlib import Path


def peak_mb(process: int | str = "self") -> float:
    """Largest resident memory that a process has had, MB.

    From /proc, because `ru_maxrss` outlives exec: a child of a large pytest would start with the size of its parent.
    """
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0) / 1024
