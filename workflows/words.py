"""Words that every process says alike."""

from collections.abc import Sequence

CLOSED = {
    "client": "its client left",
    "ended": "the access was ended",
    "error": "it, or the broker, failed",
    "expired": "the access ran out",
    "protocol": "its client broke the protocol",
    "recording": "it could not be recorded",
    "revoked": "the access was revoked",
    "shutdown": "the broker stopped",
    "tripwire": "it was about to be sent what is masked",
    "upstream": "the resource went away",
}
"""Why a session was closed, by what its event says."""
REFUSED = {
    "a setting": "it asked for a setting that the resource does not take",
    "another database": "it asked for another database than its line is for",
    "ended while it was opening": "the access ended while it was opening",
    "it cannot be recorded": "it cannot be recorded, and what is not recorded does not open",
    "its search path": "it asked for a search path that it may not have",
    "no reaper watches the sessions": "no reaper watches the sessions, so the broker opens none",
    "over or full": "the access is over, or the broker has as many sessions as it may",
    "upstream down": "the resource does not answer",
}
"""Why a connection was refused, likewise; reasons that are sentences of their own are not here."""


def series(words: Sequence[str], joint: str = "and") -> str:
    """Return `Ann, Bob and Dana`."""
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def counted(number: int, noun: str) -> str:
    """Return `1 session`, `2 sessions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
