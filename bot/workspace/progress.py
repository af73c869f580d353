"""Which steps of the guide a person has really done: facts of the workspace, held against what the guide calls done."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .store import Store

FACTS = (
    *("commanded", "clicked", "submitted", "posted", "offered", "looked", "read"),
    *("opened", "typed", "said", "closed"),
)
_TAIL = 400


class GuideBroken(ValueError):
    """guide cannot be used"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what does it, and which step has to be done before that counts."""

    id: str
    fact: str
    who: str | None
    where: str | None
    text: re.Pattern[str] | None
    after: str | None

    def met_by(self, fact: str, who: str, where: str, text: str) -> bool:
        """Says whether this fact is what the step asks for."""
        return (
            fact == self.fact
            and self.who in (None, who)
            and self.where in (None, where)
            and (self.text is None or self.text.search(text) is not None)
        )


class Progress:
    """Keeps what is done, also over a restart; `changed` hears of every change."""

    def __init__(self, store: Store, guide: Mapping[str, Any], changed: Callable[[list[str]], None]) -> None:
        self._store = store
        self._changed = changed
        self._steps = [step for index, entry in enumerate(guide.get("steps") or []) if (step := _step(entry, index))]
        known = {step.id for step in self._steps}
        kept = dict(store.all("guide")).get("done") or []
        self._done = [each for each in kept if each in known]
        self._tails: dict[str, str] = {}

    @property
    def done(self) -> list[str]:
        """Gives the ids of the steps that are done."""
        return list(self._done)

    def note(self, fact: str, *, who: str = "", where: str = "", text: str = "") -> None:
        """Takes note of something that happened."""
        waiting = [step for step in self._steps if step.id not in self._done]
        if fact == "said":
            # Output comes in pieces; what a step looks for may lie across two of them.
            text = self._tails.get(who, "") + text
            self._tails[who] = text[-_TAIL:]
        elif fact in ("opened", "typed"):
            self._tails.pop(who, None)
        for step in waiting:
            if step.met_by(fact, who, where, text) and (step.after is None or step.after in self._done):
                self.finish(step.id)

    def finish(self, step: str) -> None:
        """Counts a step as done."""
        if step not in self._done and any(step == known.id for known in self._steps):
            self._keep([*self._done, step])

    def start_over(self) -> None:
        """Counts nothing as done."""
        self._keep([])

    def _keep(self, done: list[str]) -> None:
        self._done = done
        self._store.put("guide", "done", done, lasting=False)
        self._changed(self.done)


def _step(entry: Any, index: int) -> Step | None:
    if not isinstance(entry, dict):
        raise GuideBroken(f"step {index + 1} of the guide is not an object")
    done = entry.get("done") or {}
    fact = done.get("fact") if isinstance(done, dict) else None
    if fact is None:
        return None
    if fact not in FACTS:
        raise GuideBroken(f"step {index + 1} of the guide: `{fact}` is none of {', '.join(FACTS)}")
    try:
        text = re.compile(done["text"], re.MULTILINE) if "text" in done else None
    except re.error as error:
        raise GuideBroken(f"step {index + 1} of the guide: `{done['text']}` is no pattern: {error}") from error
    return Step(str(entry.get("id", index)), fact, done.get("who"), done.get("where"), text, done.get("after"))


def all_text(value: Any) -> str:
    """Gives every text in a message, one after the other."""
    found: list[str] = []
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            for key, inner in item.items():
                if isinstance(inner, str):
                    found.extend([inner] if key == "text" else [])
                else:
                    todo.append(inner)
        elif isinstance(item, list):
            todo.extend(item)
    return "\n".join(found)
