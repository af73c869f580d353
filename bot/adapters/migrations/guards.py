"""Makes the database repeat a state table: a row that would be born or moved against it is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alembic import op

Legal = Mapping[str, Sequence[str]]


def guard(table: str, legal: Legal, births: Sequence[str]) -> None:
    """Guard a table's `state`: `legal` maps a state to those it may become, `births` are those it may begin in."""
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql(table, legal, births)
    else:
        _guard_sqlite(table, legal, births)


def unguard(table: str) -> None:
    """Drop what is left of a guard when its table is gone."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"drop function if exists airlock_{table}_guard()")


def _moves(legal: Legal) -> str:
    moves = [
        f"(old.state = '{old}' and new.state in ({', '.join(repr(state) for state in new)}))"
        for old, new in legal.items()
    ]
    return " or ".join(["old.state = new.state", *moves])


def _births(births: Sequence[str]) -> str:
    return f"new.state in ({', '.join(repr(state) for state in births)})"


def _guard_sqlite(table: str, legal: Legal, births: Sequence[str]) -> None:
    op.execute(
        f"create trigger {table}_move before update on {table} when not ({_moves(legal)}) "
        f"begin select raise(abort, 'a row of {table} cannot move so'); end"
    )
    op.execute(
        f"create trigger {table}_birth before insert on {table} when not ({_births(births)}) "
        f"begin select raise(abort, 'a row of {table} cannot begin so'); end"
    )


def _guard_postgresql(table: str, legal: Legal, births: Sequence[str]) -> None:
    op.execute(
        f"create function airlock_{table}_guard() returns trigger language plpgsql as $$ begin "
        f"if tg_op = 'INSERT' then "
        f"if not ({_births(births)}) then raise exception 'a row of {table} cannot begin so'; end if; "
        f"elsif not ({_moves(legal)}) then raise exception 'a row of {table} cannot move so'; end if; "
        "return new; end $$"
    )
    op.execute(
        f"create trigger {table}_guard before insert or update on {table} "
        f"for each row execute function airlock_{table}_guard()"
    )
