"""How far each person has read each channel."""

from .ids import micros
from .messages import Messages
from .store import Store


class Reads:
    """Keeps read marks and counts what came after them."""

    def __init__(self, store: Store, messages: Messages) -> None:
        self._store = store
        self._messages = messages
        self._marks: dict[str, str] = dict(store.all("read"))

    def mark(self, user: str, channel: str, ts: str) -> None:
        """Moves a person's mark forward."""
        key = f"{user}/{channel}"
        if micros(ts) > micros(self._marks.get(key, "")):
            self._marks[key] = ts
            self._store.put("read", key, ts, lasting=False)

    def unread(self, user: str, channel: str) -> int:
        """Counts what a person has not read in a channel."""
        mark = self._marks.get(f"{user}/{channel}", "")
        return sum(message.author != user for message in self._messages.visible(user, channel, since=mark))
