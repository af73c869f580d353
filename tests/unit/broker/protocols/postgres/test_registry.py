"""What names stand for while answers are on their way: as a list that is read from end to end would have it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.protocols.postgres.registry import MAX_ENTRIES, Change, Registry, Uncertain

NAMES = ("", "a", "b")
STEPS = st.one_of(
    st.tuples(st.just("expect"), st.sampled_from([*NAMES, None]), st.sampled_from([1, 2, None])),
    st.tuples(st.sampled_from(["confirm", "drop"]), st.integers(0, 9), st.none()),
    st.tuples(st.just("sync"), st.none(), st.none()),
)


class Plain:
    """The same, slowly."""

    def __init__(self, keeps_unnamed: bool) -> None:
        self.keeps_unnamed = keeps_unnamed
        self.known: dict[str, int] = {}
        self.pending: list[Change[int]] = []

    def find(self, name: str, segment: int) -> int | type[Uncertain] | None:
        every = bool(name) or not self.keeps_unnamed
        touching = [one for one in self.pending if one.name == name or (every and one.name is None)]
        own = [one for one in touching if one.segment == segment]
        return own[-1].value if own else Uncertain if touching else self.known.get(name)

    def confirm(self, change: Change[int]) -> None:
        if change.name is None:
            self.known = {} if not self.keeps_unnamed else {key: each for key, each in self.known.items() if not key}
        elif change.value is None:
            self.known.pop(change.name, None)
        else:
            self.known[change.name] = change.value


def found(registry: Registry[int], name: str, segment: int) -> int | type[Uncertain] | None:
    try:
        return registry.find(name, segment)
    except Uncertain:
        return Uncertain


@given(st.booleans(), st.lists(STEPS, max_size=40))
def test_a_name_stands_for_what_the_last_message_about_it_makes(
    keeps: bool, steps: list[tuple[str, object, object]]
) -> None:
    registry: Registry[int] = Registry(keeps_unnamed=keeps)
    plain, segment = Plain(keeps), 0
    for step, what, value in steps:
        if step == "sync":
            segment += 1
        elif step == "expect":
            assert what is None or isinstance(what, str)
            assert value is None or isinstance(value, int)
            plain.pending.append(registry.expect(Change(segment, what, None if what is None else value)))
        elif plain.pending:
            assert isinstance(what, int)
            # Most often the first, as answers come; what an error skips goes in any order.
            change = plain.pending.pop(what % len(plain.pending) if what > 5 else 0)
            if step == "confirm":
                registry.confirm(change)
                plain.confirm(change)
            else:
                registry.drop(change)
                registry.drop(change)
        assert list(registry.pending) == plain.pending
        assert registry.known == plain.known
        for name in NAMES:
            assert found(registry, name, segment) == plain.find(name, segment)


def test_one_has_room_for_as_many_as_are_known_and_pending_together() -> None:
    registry: Registry[int] = Registry()
    changes = [registry.expect(Change(0, f"p{number}", number)) for number in range(MAX_ENTRIES)]
    assert registry.full
    for change in changes:
        registry.confirm(change)
    assert registry.full
    registry.confirm(registry.expect(Change(1, None, None)))
    assert registry.has_room(MAX_ENTRIES - 1)
    assert not registry.pending
