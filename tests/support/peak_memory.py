"""The peak resident memory of a process, without what it was before it ran its program, and who belongs to it."""

from pathlib import Path


def peak_mb(process: int | str = "self") -> float:
    """Largest resident memory that a process has had, MB.

    From /proc, because `ru_maxrss` outlives exec: a child of a large pytest would start with the size of its parent.
    """
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0) / 1024


def family(root: int) -> list[int]:
    """`root` and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    members = [root]
    for member in members:
        members += [pid for pid, parent in parents.items() if parent == member]
    return members


def resident_mb(process: int) -> float:
    """Memory that a process holds now, MB; what it shares with others it holds its share of."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1024
