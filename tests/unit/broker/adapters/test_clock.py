"""The clock: steps of the wall clock may end things early, and never give anybody more time."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.clock import SystemClock


class Times:
    wall = 1_000_000.0
    boot = 500.0


def make(times: Times) -> SystemClock:
    return SystemClock(lambda: times.wall, lambda: times.boot)


def test_step_back_does_not_turn_the_time_back() -> None:
    times = Times()
    clock = make(times)
    before = clock.now()
    times.boot += 60
    times.wall -= 3600
    assert clock.now() - before == timedelta(seconds=60)
    assert clock.stepped_back() == timedelta(seconds=3660)
    clock.anchor()
    assert clock.stepped_back() is None
    assert clock.now() == clock.wall()


def test_step_forward_counts_at_once() -> None:
    times = Times()
    clock = make(times)
    before = clock.now()
    times.wall += 3600
    assert clock.now() - before == timedelta(hours=1)
    assert clock.stepped_back() is None
    clock.follow()
    times.wall -= 3600
    assert clock.stepped_back() == timedelta(hours=1)


def test_sleep_of_the_machine_counts() -> None:
    times = Times()
    clock = make(times)
    before = clock.now()
    times.boot += 600
    assert clock.now() - before == timedelta(minutes=10)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-10_000, 10_000)), max_size=30))
def test_time_never_goes_slower_than_the_boot_clock_between_anchors(moves: list[tuple[float, float]]) -> None:
    times = Times()
    clock = make(times)
    start = clock.now()
    passed = 0.0
    for seconds, step in moves:
        times.boot += seconds
        times.wall += seconds + step
        passed += seconds
        clock.follow()
        assert (clock.now() - start).total_seconds() >= passed - 0.001


def test_real_clock_is_the_real_time() -> None:
    clock = SystemClock()
    assert abs((clock.now() - clock.wall()).total_seconds()) < 1


class Watched:
    """An anchor that a thread looks at after each change of it."""

    def __init__(self, wall: float, boot: float) -> None:
        self.seen: list[float] = []
        self.clock: SystemClock | None = None
        self.wall, self.boot = wall, boot

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if getattr(self, "clock", None) is not None:
            assert self.clock is not None
            self.seen.append(self.clock.seconds())


def test_a_thread_that_looks_while_the_clock_is_anchored_anew_reads_no_time_ahead() -> None:
    times = Times()
    clock = make(times)
    watched = Watched(times.wall, times.boot)
    clock.anchored, watched.clock = watched, clock  # type: ignore[assignment]  # an anchor that looks on
    watched.seen.clear()
    times.boot += 86400
    times.wall += 60
    clock.anchor()
    assert len(watched.seen) == 2
    assert max(watched.seen) <= Times.wall + 86400
