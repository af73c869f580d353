"""What may be typed into psql: SQL, and the commands that only look.

psql takes a backslash as a command almost anywhere, and where exactly depends on quotes, comments, settings and what
came before. So the rule here does not ask where psql believes itself to be: it holds for every backslash of a line,
also for one in a string. Likewise for `:NAME`, which psql replaces by a variable's text and then reads again, commands
and all; the text of `:LAST_ERROR_MESSAGE` is whatever a server says.
"""

import re
from dataclasses import dataclass

LONGEST = 65_536
_SHOWN = 20
"""How much a refusal repeats of each word."""
_WORD = r"[A-Za-z0-9_.*?\"$~+-]+"
_SWITCH = r"(on|off)?"

_COMMANDS: tuple[tuple[str, str], ...] = (
    (r"d[A-Za-z]{0,4}[+]?[A-Za-z]?", rf"({_WORD}( {_WORD})?)?"),
    (r"(l|list)[+]?", rf"({_WORD})?"),
    (r"z|sf[+]?|sv[+]?", rf"({_WORD})?"),
    (r"c|connect", r"([A-Za-z0-9_][A-Za-z0-9_.-]*)?"),
    (r"x", r"(on|off|auto)?"),
    (r"timing|a|t", _SWITCH),
    (r"q|quit|r|reset|p|print|g|gx|gdesc|errverbose|conninfo[+]?|copyright|[.]", r""),
    (r"[?]", r"(commands|options|variables)?"),
    (r"h|help", r"[A-Za-z *]*"),
    (r"echo", r"[A-Za-z0-9_.,!?+=() -]*"),
    (r"pset", r"(border [0-3]|columns [0-9]{1,4}|expanded (on|off|auto)|footer (on|off)|tuples_only (on|off)"
              r"|format (aligned|wrapped|unaligned|csv|html|markdown|asciidoc)|numericlocale (on|off)|pager off"
              r"|linestyle (ascii|unicode)|null [A-Za-z0-9_()<>-]{1,20})?"),
)  # fmt: skip
_KNOWN = [(re.compile(name), re.compile(rest)) for name, rest in _COMMANDS]
_BACKSLASH = re.compile(r"\\([^ \t\\]*)([^\\]*)")
_COLONS = re.compile(r"(:+)([A-Za-z0-9_\u0080-\U0010ffff]*)")
# psql ends a line at \n alone, but takes \r, \f and \v for blanks; an escape could mean something to a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing of what was typed is sent."""

    why: str


def read_typed(text: str) -> list[str] | Refused:
    """Gives the lines to send; one that may not be sent keeps all of them back."""
    if len(text.encode("utf-8", "replace")) > LONGEST:
        return Refused(f"this is longer than the {LONGEST // 1024} KB that this pane sends at once")
    lines = text.replace("\r\n", "\n").split("\n")
    for line in lines:
        why = _fault(line)
        if why is not None:
            return Refused(why)
    return lines


def _short(text: str) -> str:
    """Cut a text so that it is seen to be cut."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _fault(line: str) -> str | None:
    if _CONTROL.search(line):
        return "there is a control character in this"
    for matched in _BACKSLASH.finditer(line):
        name, rest = matched[1], matched[2].strip(" \t")
        if not _allowed(name, rest):
            what = f"\\{_short(name)} {_short(rest)}".rstrip() if name else "a backslash"
            return f"`{what}` is not available in this pane, which runs psql and nothing else: use a terminal for it"
    for colons, name in _COLONS.findall(line):
        # `::` is a cast. Only psql's own variables are set here, and their names are all capitals.
        if len(colons) % 2 and re.search(r"[A-Z]", name):
            return f"`:{_short(name)}` is a variable of psql, and these are not available in this pane"
    return None


def _allowed(name: str, rest: str) -> bool:
    return any(known.fullmatch(name) and args.fullmatch(rest) for known, args in _KNOWN)
