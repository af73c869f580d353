"""The time, such that a step of the wall clock never gives anybody more of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.core import compiled

STEP = timedelta(seconds=2)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


# CLOCK_MONOTONIC stands still while the machine sleeps.
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boottime() -> float:
    return time.clock_gettime(_BOOT)


def boot_id() -> str:
    """Return what names this run of the kernel, so that its boot clock can be compared across restarts."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(slots=True)
class Anchor:
    """A moment of the wall clock, and the same of the boot clock."""

    wall: float
    boot: float


class SystemClock:
    """The wall clock, never behind what the boot clock says has passed since the anchor.

    A step forward counts at once: things may end early. A step back does not: `stepped_back` tells how far, and after
    the ends of grants have been moved to the new wall time, `anchor` accepts it.
    """

    def __init__(self, wall: Callable[[], float] = time.time, boot: Callable[[], float] = _boottime) -> None:
        self._wall = wall
        self._boot = boot
        own = wall is time.time and boot is _boottime
        make = Anchor if compiled is None or not own else compiled.Anchor
        self.anchored = make(wall(), boot())
        """What `now` reckons from; the compiled core reads the same clocks by its own."""

    def now(self) -> datetime:
        """Return the later of the wall clock and what the boot clock makes of the anchor."""
        return datetime.fromtimestamp(self.seconds(), UTC)

    def seconds(self) -> float:
        """Return the same moment in seconds of the epoch."""
        # Each statement asks some times, so this is written out.
        wall, anchor = self._wall(), self.anchored
        derived = anchor.wall + (self._boot() - anchor.boot)
        return derived if derived > wall else wall

    def wall(self) -> datetime:
        """Return what the wall clock shows."""
        return datetime.fromtimestamp(self._wall(), UTC)

    def boot(self) -> float:
        """Return seconds of the boot clock, which counts sleep and cannot be set."""
        return self._boot()

    def stepped_back(self) -> timedelta | None:
        """Return how far the wall clock has been set back, or None where it has not."""
        behind = timedelta(seconds=self._derived() - self._wall())
        return behind if behind > STEP else None

    def anchor(self) -> None:
        """Trust the wall clock as it is now."""
        self.reckon(self._wall(), self._boot())

    def reckon(self, wall: float, boot: float) -> None:
        """Reckon from a moment of both clocks: its own, or that of another process which keeps the time for both."""
        # In this order: a thread that looks in between reads no time ahead of either.
        self.anchored.boot = boot
        self.anchored.wall = wall

    def follow(self) -> None:
        """Move the anchor along with a wall clock that is ahead, so that a later step back is measured from there."""
        if self._wall() > self._derived():
            self.anchor()

    def _derived(self) -> float:
        return self.anchored.wall + (self._boot() - self.anchored.boot)
