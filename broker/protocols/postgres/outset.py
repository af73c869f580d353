"""What a client asks for as it connects, where the upstream or a ruling has the last word.

A search path, and settings of an application's own, are ruled on, and recorded, as the SETs that they stand for. The
upstream is then logged in with them, so they are what RESET goes back to, as with a server that is asked directly.
"""

from __future__ import annotations

from dataclasses import replace

from broker.errors import UpstreamUnavailable
from broker.protocols.postgres import records
from broker.protocols.postgres.house import House, SessionRefused
from broker.protocols.postgres.replies import Problem, denial
from broker.protocols.postgres.ruler import Ruler
from broker.protocols.postgres.ruling import Denied, Permitted, must_be_asked, shown_text
from broker.protocols.postgres.spares import Kind
from broker.protocols.postgres.startup import LEFT_OUT, Startup, sanitised
from broker.sessions.model import Entry, SessionFacts
from broker.sql.masks import quote_text
from broker.sql.paths import setting, written

_LATER = "connect without a search path, then SET search_path"
_TIMED_OUT = "57014"
_UNTAKEN = ("22023", "42704")
"""How a server says that it takes no such value, or knows no such setting."""
_AT_LOGINS = """
    select from pg_catalog.pg_event_trigger t join pg_catalog.pg_proc p on p.oid = t.evtfoid
    where t.evtevent = 'login' and t.evtenabled <> 'D' and p.prolang not in (12, 13)
      and not exists (select from pg_catalog.unnest(p.proconfig) s where s like 'search\\_path=%')"""
"""Code that runs at each login, and looks names up in the path that the login has; what is written in C is not."""


async def begin(
    house: House, facts: SessionFacts, kind: Kind, ruler: Ruler, names: tuple[str, ...], id_: str
) -> tuple[Entry, ...]:
    """Rule on a path, and return what records that the session begins with it.

    Raises SessionRefused once a denial is recorded; UpstreamUnavailable.
    """
    sql = setting(names)
    ruling = await ruler.ruled(sql)
    if isinstance(ruling, Permitted):
        ruling = await _unfit(house, kind, ruling) or ruling
    if isinstance(ruling, Denied):
        raise await _refused(house, facts, ruling, sql, id_, _LATER, "its search path")
    ruler.move(kind.path)
    return _recorded(facts, ruling, id_)


async def set_own(
    house: House, facts: SessionFacts, ruler: Ruler, name: str, value: str, id_: str
) -> tuple[Entry, ...]:
    """Rule on a setting of an application's own, as the SET that it stands for; raises SessionRefused like `begin`."""
    sql = f"SET {name} = {quote_text(value)}"
    ruling = await ruler.ruled(sql)
    if isinstance(ruling, Permitted) and ruling.asking is not None:
        ruling = must_be_asked(ruling, ruling.asking, "nobody is asked before there is a session: SET it then")
    if isinstance(ruling, Denied):
        raise await _refused(house, facts, ruling, sql, id_, LEFT_OUT, "a setting")
    return _recorded(facts, ruling, id_)


async def _refused(
    house: House, facts: SessionFacts, ruling: Denied, sql: str, id_: str, hint: str, what: str
) -> SessionRefused:
    """Record a denial, and return what ends the session before it begins."""
    await house.broker.recorder.write(records.denied(facts, id_, ruling, sql))
    problem = denial(ruling.sqlstate, ruling.message, ruling.rules, ruling.hint or hint)
    return SessionRefused(replace(problem, fatal=True), what)


def _recorded(facts: SessionFacts, ruling: Permitted, id_: str) -> tuple[Entry, ...]:
    return (*records.allowed(facts, (id_,), ruling), records.finished(facts, id_, "ok", None, 0.0))


async def _unfit(house: House, kind: Kind, ruling: Permitted) -> Denied | None:
    """Say why a path that may be set is none to begin with (fail closed)."""
    if ruling.asking is not None:
        return must_be_asked(ruling, ruling.asking, f"nobody is asked before there is a session: {_LATER}")
    why = "what was ruled on is not what the session would begin with"
    if ruling.inspection.rewritten == f"SET search_path TO {written(kind.home)}":
        admin = house.admins.of(kind.endpoint)
        if kind.path is None or await admin.version() < 170000 or not await admin.fetch(_AT_LOGINS):
            return None
        why = "no search path is begun with here: code that runs at each login would look its names up in it"
    return Denied("0A000", why, ("search-path",), _LATER, verb="SET", text=shown_text(ruling.inspection))


def untaken(error: UpstreamUnavailable, startup: Startup) -> Problem | None:
    """Word why a login failed where the upstream does not take a setting of the client's; None where it is not that."""
    state, _, message = str(error).removeprefix("LoginFailed: ").partition(" ")
    if state == _TIMED_OUT and "statement_timeout" in dict(startup.settings):
        message = "this statement_timeout is too short for the login itself"
        return Problem(state, message, "rules: settings", "connect with a longer one", fatal=True)
    if state not in _UNTAKEN or not any(f'"{name}"' in message.lower() for name, _ in startup.settings):
        return None
    return Problem(state, sanitised(message, 200), "rules: settings", LEFT_OUT, fatal=True)
