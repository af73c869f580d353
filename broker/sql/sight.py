"""What a person sees of each relation: which columns are masked and why, whether masked fields decide its rows.

Rules speak of a relation by name. A partition or child is under its ancestors' rules too, whatever shows its rows is
under its rules; a view is masked by its lineage, whoever owns it; what is generated from a masked field is masked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from broker.sql.catalogue import Catalogue, Column, Relation
from broker.sql.lineage import Derived, Origin
from broker.sql.masks import closed, masked, quote_name
from broker.sql.system import (
    CLOSED_COLUMNS,
    CLOSED_IN_CLEAR,
    EMPTY,
    INFORMATION_SCHEMA_CLOSED,
    INFORMATION_SCHEMA_SECRET,
    NAMED_ONLY,
    READABLE,
)
from policies.engine.decisions import HIDE, FieldView, Mask, RelationFields, all_clear, covered

TABLEOID = -6
_KEPT = 128
_VERSIONS = 16


@dataclass(frozen=True, slots=True)
class Sight:
    """A relation as a person sees it; `problem` is why it is not open to anybody."""

    masks: Mapping[str, Mask] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)
    """Column -> where its mask comes from, where that is no rule of its own."""
    expressions: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    """Masked fields that decide which rows it shows, or in which order."""
    placed: tuple[str, ...] = ()
    """Masked fields that decide in which partition a row is."""
    tainted: bool = False
    """Masked fields are behind it, shown or not."""
    through: frozenset[str] = frozenset()
    """The relations that a view reads, and those whose partition or child a table is."""
    below: frozenset[str] = frozenset()
    """The partitions and children that are read and changed with a table, but not with ONLY it."""
    problem: str = ""
    coded: bool = False
    """That is code of users' and nothing else: a rule may let it run where nothing is masked."""
    stored: tuple[str, ...] = ()
    """Of a view: what decides the same as `rows` where all of it is computed, and not only what is read of it."""


NOTHING = Sight()
_sights: OrderedDict[tuple[str, int, tuple[str, ...], tuple[str, ...]], Sights] = OrderedDict()


def sights(catalogue: Catalogue, fields: FieldView, covers: tuple[str, ...] = (), but: tuple[str, ...] = ()) -> Sights:
    """Return what a person sees under a catalogue; the last answers are kept.

    `covers` is what a role lets them read, `but` what of that a rule stands before.

    They follow from the catalogue's content and from which rules are asked about (by identity: a view of fields is
    never changed, and is kept here so that no other takes its place).
    """
    key = (catalogue.version, id(fields), covers, but)
    known = _sights.get(key)
    if known is None:
        known = _sights[key] = Sights(catalogue, fields, covers, but)
        versions = list(dict.fromkeys(each[0] for each in _sights))
        for old in [each for each in _sights if each[0] in versions[:-_VERSIONS]]:
            del _sights[old]  # Catalogues can be large.
        if len(_sights) > _KEPT:
            _sights.popitem(last=False)
    else:
        _sights.move_to_end(key)
    return known


class Sights:
    """What a person sees of every relation, found when it is asked for."""

    def __init__(
        self, catalogue: Catalogue, fields: FieldView, covers: tuple[str, ...] = (), but: tuple[str, ...] = ()
    ) -> None:
        self._catalogue = catalogue
        self.fields = fields
        self._covers, self._but = covers, but
        self.in_clear = (
            all_clear(fields)
            and not but
            and all(covered(covers, each.qualified) for each in catalogue.by_oid.values() if not each.system)
        )
        """No rule masks anything, and the role lets every relation be read that there is: no literal of the catalogue
        can be of what this person may not see. One that it does not hides them all (fail closed), for nothing says of
        which relation's rows a comment, a label or a function's source speaks, and statistics are of every one."""
        self._known: dict[int, Sight] = {}
        self._tables: dict[int, tuple[dict[str, Mask], dict[str, str]]] = {}
        self._wires: frozenset[tuple[int, int]] | None = None

    def freely_read(self, relation: Relation) -> bool:
        """Say whether a relation may be read like every other, whatever it is or was called, or stands behind it."""
        names = (relation.qualified, *relation.former, *self.of(relation).through)
        return covered(self._covers, relation.qualified) and not any(covered(self._but, name) for name in names)

    def shows(self, relation: Relation) -> bool:
        """Say whether a relation that is changed may be read too: what fails says of which row, and shows it."""
        return not relation.oid or self.freely_read(relation)

    def of(self, relation: Relation) -> Sight:
        """Return what is seen of a relation."""
        known = self._known.get(relation.oid)
        if known is None:
            # While a view is looked into, it is nobody's source; the server knows no view that reads itself.
            self._known[relation.oid] = Sight(problem="reads itself")
            known = self._look(relation)
            if known == NOTHING:
                known = NOTHING  # Most relations: one value serves them all.
            self._known[relation.oid] = known
        return known

    def why(self, name: str) -> str:
        """Say where the mask of `schema.relation.column` comes from, where that is no rule of its own."""
        for (schema, relation), found in self._catalogue.relations.items():
            if name.startswith(f"{schema}.{relation}."):
                column = name.removeprefix(f"{found.qualified}.")
                if column in (sight := self.of(found)).why:
                    return sight.why[column]
        return ""

    def wires(self) -> frozenset[tuple[int, int]]:
        """Return the (relation oid, attnum) pairs that no result may attest: masked fields, and their whole rows."""
        if self._wires is None:
            found: set[tuple[int, int]] = set()
            for relation in self.concerned():
                masks = self.of(relation).masks
                found |= {(relation.oid, column.attnum) for column in relation.columns if column.name in masks}
                found |= {(relation.oid, 0)} if masks else set()
            self._wires = frozenset(found)
        return self._wires

    def concerned(self) -> Iterator[Relation]:
        """Yield every relation that rules could mask something of, and perhaps some more than once."""
        named = [each for each in self._catalogue.by_oid.values() if self._rules(each)]
        for relation in named:
            for each in (relation, *self._catalogue.heirs.get(relation.oid, ())):
                yield each
                # A child may have other parents, which show its rows too.
                yield from self._ancestors(each)
        yield from (self._catalogue.by_oid[oid] for oid in self._catalogue.views if oid in self._catalogue.by_oid)

    def _look(self, relation: Relation) -> Sight:
        if relation.system:
            return _system(relation, in_clear=self.in_clear)
        if relation.kind in ("v", "m"):
            return self._view(relation)
        if relation.kind == "S":
            return self._sequence(relation)
        return self._table(relation)

    def _sequence(self, relation: Relation) -> Sight:
        """A sequence's numbers follow what is written, in whatever table: tools that read it see its row alone."""
        masks = {} if self.in_clear else {column.name: HIDE for column in relation.columns}
        why = dict.fromkeys(masks, "as numbers of a sequence are where anything is masked or not covered")
        return Sight(masks, why, _expressions(relation, masks))

    def _table(self, relation: Relation) -> Sight:
        masks, why = self._of_table(relation)
        family = (relation, *self._catalogue.heirs.get(relation.oid, ()))
        placed = tuple(name for each in family for name in self._keys(each))
        # Partitions are read one after the other, so that the order of rows tells too.
        rows = (*placed, *(name for each in self._ancestors(relation) for name in self._keys(each)))
        tainted = bool(masks or rows)
        if any(self._shows_rows(each) for each in (relation, *self._ancestors(relation))):
            rows = ()
        above = frozenset(each.qualified for each in self._ancestors(relation))
        below = frozenset(each.qualified for each in family[1:])
        problem = self._not_open(relation)
        coded = bool(problem) and relation.kind not in _KINDS
        if any(each.kind == "f" for each in family[1:]):
            problem, coded = "has foreign tables among its partitions, and those are not open yet", False
        return Sight(masks, why, _expressions(relation, masks), rows, placed, tainted, above, below, problem, coded)

    def _of_table(self, relation: Relation) -> tuple[dict[str, Mask], dict[str, str]]:
        known = self._tables.get(relation.oid)
        if known is None:
            known = self._tables[relation.oid] = self._ruled(relation)
            self._generated(relation, *known)
        return known

    def _ruled(self, relation: Relation) -> tuple[dict[str, Mask], dict[str, str]]:
        """Return the masks by rules: its own, those of what it shows, and those of what shows it.

        What it shows may be masked for more than its rules: by those of another parent, or as it is generated.
        """
        own = self._rules(relation)
        heirs = self._catalogue.heirs.get(relation.oid, ())
        above = [(each, rules) for each in self._ancestors(relation) for rules in self._rules(each)]
        below = [(each, rules) for each in heirs for rules in self._rules(each)]
        shown = [(each, theirs) for each in heirs if (theirs := self._of_table(each)[0])]
        masks: dict[str, Mask] = {}
        why: dict[str, str] = {}
        for column in relation.columns if own or above or shown else ():
            known = [each for each in above if any(column.name == one.name for one in each[0].columns)]
            # A column that only a child has is its own rules' matter; without any, its ancestors' `others` hold.
            deciding = [*((relation, rules) for rules in own), *below, *known] or above
            for each, rules in deciding:
                mask, name = _verdict(rules, column)
                if mask is not None:
                    masks[column.name] = mask
                    if each is not relation:
                        why[column.name] = f"by the rules of {each.qualified}"
                    elif name != column.name:
                        why[column.name] = f"it was called {name}"
                    break
            else:
                for each, theirs in shown:
                    if column.name in theirs:
                        masks[column.name], why[column.name] = theirs[column.name], f"as it is in {each.qualified}"
                        break
        return masks, why

    def _generated(self, relation: Relation, masks: dict[str, Mask], why: dict[str, str]) -> None:
        """Mask what is generated from masked columns, unless a rule names it as clear."""
        names = {column.attnum: column.name for column in relation.columns}
        sources = self._catalogue.generated.get(relation.oid, {})
        for column in relation.columns:
            if column.attnum not in sources or column.name in masks or self._cleared(relation, column):
                continue
            read = sources[column.attnum]
            found = [names[at] for at in sorted(read or names) if names.get(at) in masks]
            if found:
                masks[column.name] = HIDE
                why[column.name] = f"generated from {relation.qualified}.{found[0]}"

    def _cleared(self, relation: Relation, column: Column) -> bool:
        return any(_names_clear(self._rules(each), column) for each in (relation, *self._ancestors(relation)))

    def _shows_rows(self, relation: Relation) -> bool:
        rules = self._rules(relation)
        return bool(rules) and all(each.rows for each in rules)

    def _keys(self, relation: Relation) -> Iterator[str]:
        """Yield the masked fields in a partitioned table's key; an expression counts as every one of them."""
        masks = self._of_table(relation)[0] if relation.partition_key else {}
        for column in relation.columns if masks else ():
            if column.name in masks and (column.attnum in relation.partition_key or 0 in relation.partition_key):
                yield f"{relation.qualified}.{column.name}"

    def _view(self, relation: Relation) -> Sight:
        view = self._catalogue.views.get(relation.oid)
        if view is None or view.lineage is None:
            masks = {column.name: HIDE for column in relation.columns}
            why = dict.fromkeys(masks, "as its lineage is unknown")
            problem = self._not_open(relation) or "has a definition that is not understood here"
            return Sight(masks, why, _expressions(relation, masks), tainted=True, problem=problem)
        behind = [self._catalogue.by_oid.get(oid) for oid in sorted(view.lineage.relations)]
        seen = [(each, self.of(each)) for each in behind if each is not None]
        masks, why = self._derived(relation, view.lineage.columns)
        keeps, clear = view.lineage.keeps or relation.kind == "m", self._shows_rows(relation)
        rows = [] if clear else self._masked(view.lineage.stored if relation.kind == "m" else view.lineage.rows)
        stored = [] if clear else self._masked(view.lineage.stored)
        behind_it = [name for _, sight in seen for name in (sight.stored if keeps else ()) or sight.rows]
        problem = self._not_open(relation) or view.problem or _problem_behind(behind, seen, in_clear=self.in_clear)
        return Sight(
            masks,
            why,
            _expressions(relation, masks),
            tuple(dict.fromkeys([*rows, *behind_it])),
            tainted=bool(masks) or any(sight.masks or sight.tainted for _, sight in seen),
            through=frozenset(
                name
                for each, sight in seen
                if not each.system
                for name in (each.qualified, *sight.through, *sight.below)
            ),
            problem=problem,
            coded=bool(problem) and None not in behind and all(one.coded or not one.problem for _, one in seen),
            stored=tuple(dict.fromkeys([*stored, *(name for _, one in seen for name in one.stored or one.rows)])),
        )

    def _derived(self, relation: Relation, columns: tuple[Derived, ...]) -> tuple[dict[str, Mask], dict[str, str]]:
        """Return the masks by lineage; a column as it stands keeps its mask, whatever else depends on one is hidden.

        What rules of the view's own name goes before: that is somebody's word on this very column.
        """
        own = self._rules(relation)
        masks: dict[str, Mask] = {}
        why: dict[str, str] = {}
        for column in relation.columns:
            mask = next((found for each in own if (found := _verdict(each, column)[0]) is not None), None)
            if own and all(name in each.clear or name in each.masks for each in own for name in column.names):
                if mask is not None:
                    masks[column.name] = mask
                continue
            derived = columns[column.attnum - 1] if column.attnum <= len(columns) else None
            origins = self._masked(derived.origins) if derived is not None else ["an unknown column"]
            if origins:
                # Of one field, that is: where an outer join has NULLs in its place, others could say.
                masks[column.name] = (self._bare(derived) if len(origins) == 1 else None) or HIDE
                why[column.name] = f"by lineage from {origins[0]}"
            elif mask is not None:
                masks[column.name] = mask
        return masks, why

    def _bare(self, derived: Derived | None) -> Mask | None:
        if derived is None or derived.bare is None:
            return None
        relation = self._catalogue.by_oid.get(derived.bare[0])
        names = [column.name for column in relation.columns if column.attnum == derived.bare[1]] if relation else []
        return self.of(relation).masks.get(names[0]) if relation and names and not relation.system else None

    def _not_open(self, relation: Relation) -> str:
        """Say why a relation is open to nobody, whatever is masked."""
        if relation.kind in _KINDS:
            return _KINDS[relation.kind]
        if relation.rules or relation.row_security:
            return f"has {'rules' if relation.rules else 'row security'}, and such relations are not open yet"
        return ""

    def _masked(self, origins: Iterable[Origin]) -> list[str]:
        """Return the masked fields among some columns, by name."""
        return sorted(name for oid, attnum in origins for name in self._masked_at(oid, attnum))

    def _masked_at(self, oid: int, attnum: int) -> Iterator[str]:
        relation = self._catalogue.by_oid.get(oid)
        if relation is None:
            yield "a relation that is not known"
            return
        sight = self.of(relation)
        if attnum < 0:
            yield from sight.placed if attnum == TABLEOID else ()
            return
        names = [column.name for column in relation.columns if attnum in (0, column.attnum)]
        if not names and not relation.system:
            yield f"{relation.qualified}, of a column that is not known"
        yield from (f"{relation.qualified}.{name}" for name in names if name in sight.masks)

    def _rules(self, relation: Relation) -> list[RelationFields]:
        """Return the rules of a relation, under whatever name it had."""
        return [self.fields[name] for name in (relation.qualified, *relation.former) if name in self.fields]

    def _ancestors(self, relation: Relation) -> tuple[Relation, ...]:
        return self._catalogue.ancestors.get(relation.oid, ())


def _verdict(rules: RelationFields, column: Column) -> tuple[Mask | None, str]:
    """Return the mask of a column and the name that it goes by: what any of its names would mask is masked."""
    found = ((rules.mask_of(name), name) for name in column.names)
    return next((each for each in found if each[0] is not None), (None, column.name))


def _names_clear(rules: list[RelationFields], column: Column) -> bool:
    """Say whether rules name a column as clear, under every name that it had."""
    return bool(rules) and all(name in each.clear for each in rules for name in column.names)


def _system(relation: Relation, *, in_clear: bool) -> Sight:
    among = CLOSED_IN_CLEAR if in_clear else CLOSED_COLUMNS
    names = set(among.get(relation.qualified, ()))
    if not in_clear and relation.qualified in NAMED_ONLY:
        names = {column.name for column in relation.columns} - NAMED_ONLY[relation.qualified]
    columns = [column for column in relation.columns if column.name in names]
    expressions = {column.name: closed(relation, column, in_clear=in_clear) for column in columns}
    problem = "holds data or other people's statements, and is closed" if _closed(relation, in_clear) else ""
    return Sight({column.name: HIDE for column in columns}, {}, expressions, problem=problem)


def _closed(relation: Relation, in_clear: bool) -> bool:
    if relation.schema == "information_schema":
        hidden = INFORMATION_SCHEMA_SECRET if in_clear else INFORMATION_SCHEMA_CLOSED
        return relation.name in hidden or relation.name.startswith("_pg")
    return relation.name not in READABLE


def _expressions(relation: Relation, masks: Mapping[str, Mask]) -> dict[str, str]:
    return {
        column.name: masked(column, masks[column.name], f"t.{quote_name(column.name)}")
        for column in relation.columns
        if column.name in masks
    }


_KINDS = {"f": "is a foreign table, and those are not open yet"}


def _problem_behind(behind: list[Relation | None], seen: list[tuple[Relation, Sight]], *, in_clear: bool) -> str:
    if None in behind:
        return "reads a relation that is not known here"
    for each, sight in seen:
        if sight.problem:
            return f"reads {each.qualified}, which {sight.problem}"
        if not in_clear and each.system and each.qualified in EMPTY:
            return f"reads {each.qualified}, whose rows are not shown"
    return ""
