"""blocks.validate"""

from typing import Any

from ..checks import Problem, check_blocks, check_view
from ..content import read_json
from ..errors import SlackError
from ..workspace import Workspace
from .table import Args, method


@method("blocks.validate", bearer="none")
def validate(space: Workspace, args: Args) -> dict[str, Any]:
    """Checks blocks, a message or a view without posting anything."""
    given = [name for name in ("blocks", "message", "view") if args.get(name) is not None]
    if len(given) != 1:
        raise SlackError("invalid_arguments", ["must provide exactly one of `blocks`, `view`, or `message`"])
    kind = given[0]
    value = read_json(args[kind], "invalid_arguments")
    problems: list[Problem]
    if kind == "view":
        problems = check_view(value)
    elif kind == "blocks":
        problems = check_blocks(value)
    elif isinstance(value, dict):
        problems = [
            Problem(f"/blocks{p.pointer}", p.message, p.constraint, p.expected)
            for p in check_blocks(value.get("blocks") or [])
        ]
    else:
        problems = [Problem("", "must provide an object", "type", "object")]
    if problems:
        raise SlackError(f"invalid_{kind}", errors=[problem.entry() for problem in problems])
    return {}
