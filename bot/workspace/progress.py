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
class Sign:
    """One fact that a step may be known by, and the step that has to be done before it counts."""

    fact: str
    who: str | None
    where: str | None
    text: re.Pattern[str] | None
    after: str | None

    def is_(self, fact: str, who: str, where: str, text: str) -> bool:
        """Says whether this is the fact."""
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
        self._steps = dict(_step(entry, index) for index, entry in enumerate(guide.get("steps") or []))
        kept = dict(store.all("guide")).get("done") or []
        self._done = [each for each in kept if each in self._steps]
        self._tails: dict[str, str] = {}

    @property
    def waiting(self) -> bool:
        """Says whether any step is still open, so that facts are worth collecting."""
        return len(self._done) < len(self._steps)

    @property
    def done(self) -> list[str]:
        """Gives the ids of the steps that are done."""
        return list(self._done)

    def note(self, fact: str, *, who: str = "", where: str = "", text: str = "") -> None:
        """Takes note of something that happened."""
        if fact == "said":
            # Output comes in pieces; what a step looks for may lie across two of them.
            text = self._tails.get(who, "") + text
            self._tails[who] = text[-_TAIL:]
        elif fact in ("opened", "typed"):
            self._tails.pop(who, None)
        for step, signs in self._steps.items():
            if step not in self._done and any(
                self._counts(sign) and sign.is_(fact, who, where, text) for sign in signs
            ):
                self.finish(step)

    def finish(self, step: str) -> None:
        """Counts a step as done."""
        if step in self._steps and step not in self._done:
            self._keep([*self._done, step])

    def start_over(self) -> None:
        """Counts nothing as done."""
        self._keep([])

    def _counts(self, sign: Sign) -> bool:
        return sign.after is None or sign.after in self._done

    def _keep(self, done: list[str]) -> None:
        self._done = done
        self._store.put("guide", "done", done, lasting=False)
        self._changed(self.done)


def _step(entry: Any, index: int) -> tuple[str, list[Sign]]:
    where = f"step {index + 1} of the guide"
    if not isinstance(entry, dict):
        raise GuideBroken(f"{where} is not an object")
    done = entry.get("done") or []
    signs = [_sign(each, where) for each in (done if isinstance(done, list) else [done])]
    return str(entry.get("id", index)), signs


def _sign(entry: Any, where: str) -> Sign:
    fact = entry.get("fact") if isinstance(entry, dict) else None
    if fact not in FACTS:
        raise GuideBroken(f"{where}: `{fact}` is none of {', '.join(FACTS)}")
    try:
        text = re.compile(entry["text"], re.MULTILINE) if "text" in entry else None
    except re.error as error:
        raise GuideBroken(f"{where}: `{entry['text']}` is no pattern: {error}") from error
    return Sign(fact, entry.get("who"), entry.get("where"), text, entry.get("after"))


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
