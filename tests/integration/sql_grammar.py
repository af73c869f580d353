"""Random SELECTs over the corpus's tables: of every clause a little, with answers that depend on no plan."""

from __future__ import annotations

import random
from collections.abc import Callable

Columns = dict[str, str]
TABLES: dict[str, Columns] = {
    "customers": {"id": "int", "name": "text", "ssn": "text", "email": "text", "dob": "date", "salary": "int"},
    "part": {"id": "int", "ssn": "text"},
    "gone": {"id": "int", "ssn": "text"},
    "people": {"id": "int", "ssn": "text"},
    "v_cust": {"id": "int", "tax_id": "text", "e": "text"},
    "v_sub": {"id": "int", "s": "text"},
    "v_cte": {"id": "int", "u": "text", "name": "text", "note": "text"},
    "mv_cust": {"id": "int", "ssn": "text"},
    "parted_1": {"id": "int", "region": "text", "ssn": "text"},
    "orders": {"id": "int", "customer_id": "int", "note": "text"},
}
LITERALS = {
    "int": ["1", "3", "71001", "84000", "NULL::int"],
    "text": ["'731-55-0001'", "'842-66-9998'", "'***'", "'name1'", "'7%'", "''", "NULL::text"],
    "date": ["date '1971-03-02'", "date '1984-06-01'", "NULL::date"],
    "bool": ["true", "false"],
}
OF_TYPE = {
    "int": ["abs({int})", "length({text})", "({int} + {int})", "coalesce({int}, {int})", "ascii({text})", "(- {int})",
            "extract(year from {date})::int", "({date} - {date})", "greatest({int}, {int})", "hashtext({text})",
            "case when {bool} then {int} else {int} end", "nullif({int}, {int})", "position({text} in {text})"],
    "text": ["upper({text})", "left({text}, 4)", "md5({text})", "({text} || {text})", "coalesce({text}, {text})",
             "{int}::text", "{date}::text", "case {text} when {text} then {text} else {text} end", "reverse({text})",
             "concat({text}, {int})", "to_jsonb({text})::text", "least({text}, {text})", "({text} collate \"C\")",
             "row({text}, {int})::text", "(array[{text}, {text}])[1]", "regexp_replace({text}, '[0-9]', 'x')",
             "json_build_object('k', {text})::text", "format('%s %L', {text}, {int})", "{bool}::text"],
    "date": ["({date} + 1)", "coalesce({date}, {date})", "greatest({date}, {date})", "{date}::timestamp::date"],
    "bool": ["({int} = {int})", "({text} like {text})", "({text} < {text})", "({int} between {int} and {int})",
             "({date} > {date})", "({text} is null)", "({int} is distinct from {int})", "({bool} and {bool})",
             "(not {bool})", "({bool} or {bool})", "({int} in ({int}, {int}))", "({text} ~ '^[78]')",
             "(({text}, {int}) > ({text}, {int}))", "({text} = any (array[{text}, {text}]))"],
}  # fmt: skip
AGGREGATES = {
    "int": ["count(*)", "count({text})", "count(distinct {text})", "sum({int})::int", "min({int})", "max({int})",
            "count(*) filter (where {bool})"],
    "text": ["min({text})", "max({text})", "string_agg({text}, ',' order by {text})"],
    "date": ["min({date})", "max({date})"],
    "bool": ["bool_or({bool})", "bool_and({bool})"],
}  # fmt: skip
WINDOWS = ["count(*) over (partition by {text})", "rank() over (order by {text}, {int})", "max({int}) over ()"]


class Grammar:
    """Statements from a seed; `rows` are the rows in sight, inner ones last."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rows: list[tuple[str, Columns]] = []
        self.names = 0

    def statement(self) -> str:
        """Write one statement that only reads."""
        self.rows, self.names = [], 0
        query, _ = self.query(3)
        form = self.random.random()
        if form < 0.08:
            return f"copy ({query}) to stdout"
        if form < 0.12:
            return f"begin; declare k cursor for {query}; fetch all from k; commit"
        if form < 0.15:
            return f"prepare k as {query}; execute k"
        return query

    def pick(self, choices: list[str]) -> str:
        return self.random.choice(choices)

    def often(self, chance: float) -> bool:
        return self.random.random() < chance

    def name(self) -> str:
        self.names += 1
        return f"x{self.names}"

    def query(self, depth: int, types: list[str] | None = None) -> tuple[str, Columns]:
        """Write a query, of columns of these types or any; returns it with its columns."""
        if depth and self.often(0.1):
            return self.union(depth - 1, types)
        if depth and types is None and self.often(0.12):
            return self.with_query(depth - 1)
        outer = len(self.rows)
        source = self.source(depth)
        where = f" where {self.expression('bool', depth)}" if self.often(0.5) else ""
        wanted = types or [self.pick(["int", "text", "text", "date", "bool"]) for _ in range(self.random.randint(1, 3))]
        grouped = self.often(0.25)
        keys = [self.expression("text", 1)] if grouped and self.often(0.6) else []
        parts: list[str] = []
        columns: Columns = {}
        for kind in wanted:
            name = self.name()
            parts.append(f"{self.output(kind, depth, keys if grouped else None)} as {name}")
            columns[name] = kind
        tail = f" group by {', '.join(keys)}" if keys else ""
        if grouped and self.often(0.3):
            tail += f" having {self.filled(self.pick(AGGREGATES['bool']), 1)}"
        distinct = "distinct " if self.often(0.1) else ""
        del self.rows[outer:]
        if depth == 3 or self.often(0.2):
            order = ", ".join(str(at + 1) for at in range(len(parts)))
            tail += f" order by {order} limit {self.random.choice([1, 5, 40])}"
        return f"select {distinct}{', '.join(parts)} from {source}{where}{tail}", columns

    def output(self, kind: str, depth: int, keys: list[str] | None) -> str:
        if keys is None:
            if kind == "int" and self.often(0.1):
                return f"({self.filled(self.pick(WINDOWS), 1)})::int"
            return self.expression(kind, depth)
        if keys and kind == "text" and self.often(0.5):
            return keys[0]
        return self.filled(self.pick(AGGREGATES[kind]), 1)

    def union(self, depth: int, types: list[str] | None) -> tuple[str, Columns]:
        left, columns = self.query(0, types)
        right, _ = self.query(depth, list(columns.values()))
        operator = self.pick(["union", "union all", "except", "intersect"])
        return f"({left}) {operator} ({right})", columns

    def with_query(self, depth: int) -> tuple[str, Columns]:
        outer, self.rows = self.rows, []
        inner, columns = self.query(depth)
        self.rows = outer
        # It may have the name of a table, which it then stands before.
        name, alias = self.pick([self.name(), self.name(), "customers", "orders"]), self.name()
        self.rows.append((alias, columns))
        parts = {self.name(): self.pick(["int", "text"]) for _ in range(2)}
        written = ", ".join(f"{self.expression(kind, 1)} as {part}" for part, kind in parts.items())
        where = f" where {self.expression('bool', 1)}" if self.often(0.5) else ""
        self.rows.pop()
        materialized = self.pick(["", "materialized ", "not materialized "])
        return f"with {name} as {materialized}({inner}) select {written} from {name} {alias}{where}", parts

    def source(self, depth: int) -> str:
        """Write a FROM list and bring its rows in sight."""
        left = self.row(depth)
        if not depth or self.often(0.5):
            return left
        kind = self.random.random()
        first = self.rows[-1]
        if kind < 0.15:
            return f"{left}, {self.row(depth - 1)}"
        if kind < 0.3:
            inner, columns = self.query(depth - 1)
            alias = self.name()
            self.rows.append((alias, columns))
            return f"{left} cross join lateral ({inner}) {alias}"
        right = self.row(depth - 1)
        second = self.rows[-1]
        shared = [name for name in first[1] if name in second[1]]
        join = self.pick(["join", "left join", "right join"])
        if shared and kind < 0.5:
            name = self.pick(shared)
            for _, columns in self.rows[-2:]:
                columns.pop(name)  # It is named without its table from here on.
            return f"{left} {join} {right} using ({name})"
        return f"{left} {join} {right} on {first[0]}.{self.pick(list(first[1]))}::text = {self.expression('text', 1)}"

    def row(self, depth: int) -> str:
        if depth and self.often(0.15):
            outer, self.rows = self.rows, []
            inner, columns = self.query(depth - 1)
            self.rows = outer
            alias = self.name()
            self.rows.append((alias, columns))
            return f"({inner}) {alias}"
        table = self.pick(["customers", "customers", "customers", *TABLES])
        columns, alias = dict(TABLES[table]), self.name()
        written = f"{self.pick(['', '', 'public.', ' only '])}{table}".strip() if table != "people" else table
        if self.often(0.1):
            names = [self.name() for _ in columns]
            self.rows.append((alias, dict(zip(names, columns.values(), strict=True))))
            return f"{written} as {alias}({', '.join(names)})"
        self.rows.append((alias, columns))
        sample = f" tablesample {self.pick(['system', 'bernoulli'])} (100)" if self.often(0.08) else ""
        return f"{written} {self.pick(['', 'as '])}{alias}{sample}"

    def expression(self, kind: str, depth: int) -> str:
        """Write an expression of a type."""
        chance = self.random.random()
        if depth and chance < 0.06:
            inner, _ = self.query(0, [kind])
            return f"(select {self.pick(['max', 'min'])}(q.v::text) from ({inner}) q(v))::{kind}"
        if depth and kind == "bool" and chance < 0.14:
            inner, _ = self.query(0, ["text"])
            return self.pick([f"exists ({inner})", f"({self.expression('text', 0)} in ({inner}))"])
        if kind == "text" and self.rows and chance < 0.14:
            alias, columns = self.rows[-1]
            if {"id"} & set(columns):
                return self.pick([f"{alias}::text", f"to_jsonb({alias})::text", f"(row_to_json({alias}) ->> 'ssn')"])
        if depth and chance < 0.55:
            return self.filled(self.pick(OF_TYPE[kind]), depth - 1)
        seen = [f"{alias}.{name}" for alias, columns in self.rows for name, of in columns.items() if of == kind]
        return self.pick(seen) if seen and self.often(0.85) else self.pick(LITERALS[kind])

    def filled(self, pattern: str, depth: int) -> str:
        """Fill a pattern's `{type}` places."""
        write: Callable[[str], str] = lambda kind: self.expression(kind, depth)  # noqa: E731
        parts = pattern.split("{")
        return parts[0] + "".join(write(part.split("}")[0]) + part.split("}", 1)[1] for part in parts[1:])


def mutant(texts: list[str], chance: random.Random) -> str:
    """Delete, double, swap or borrow a few words of a statement."""
    words = chance.choice(texts).replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()
    for _ in range(chance.randint(1, 3)):
        if len(words) < 3:
            break
        at, other = chance.randrange(len(words)), chance.randrange(len(words))
        match chance.randrange(4):
            case 0:
                del words[at]
            case 1:
                words.insert(at, words[other])
            case 2:
                words[at], words[other] = words[other], words[at]
            case _:
                words[at] = chance.choice(chance.choice(texts).split() or [";"])
    return " ".join(words)
