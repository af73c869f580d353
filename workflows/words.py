"""Words that every process says alike."""


def counted(number: int, noun: str) -> str:
    """Return `1 session`, `2 sessions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
