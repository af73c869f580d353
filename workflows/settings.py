"""What is wrong with the settings of a process, in the words of whoever sets them."""

from __future__ import annotations

import logging
import re

from pydantic import ValidationError


def unusable(error: ValidationError) -> list[str]:
    """Say which variables cannot be used, and why; never what they are set to."""
    return [_said(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]


def known_level(value: str) -> str:
    """Refuse a level of the log that there is not."""
    if value.upper() not in logging.getLevelNamesMapping():
        raise ValueError("should be debug, info, warning or error")
    return value


def slash_command(value: str) -> str:
    """Refuse what Slack would not take for a command."""
    if not re.fullmatch(r"/[a-z0-9_-]{1,31}", value):
        raise ValueError("should be like /access: a slash, then small letters, digits, - and _, 31 at most")
    return value


def _said(field: str, message: str) -> str:
    message = message.partition(", unable to parse")[0]
    message = message.replace("a valid integer", "a whole number").replace("a valid number", "a number")
    said = message.removeprefix("Value error, ").replace("Input should be", "should be")
    # A field with an alias is known by that, which is the variable; one that speaks of several names them itself.
    name = field if field.isupper() else f"AIRLOCK_{field.upper()}"
    return said if not field or name in said else f"{name}: {said}"
