"""Inspects and rules: cheap texts on the spot, all others in a worker process, each text once per policy."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from broker.core import Moves
from broker.errors import AirlockError, UpstreamUnavailable
from broker.protocols.postgres.catalogues import Catalogues, Key
from broker.protocols.postgres.fares import boards
from broker.protocols.postgres.ruling import Denied, Permitted, Ruling, Subject, refused, rule
from broker.protocols.postgres.workers import WorkerFailed, Workers
from broker.sessions.ports import Clock, Policies
from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.library import ON_THE_SPOT, Costly, refusal_of_length
from broker.sql.model import Altered, Inspection, Refusal, SearchPath, Terms
from broker.sql.redact import UNREADABLE, redact
from broker.sql.rewrite import whole_run
from broker.sql.shapes import Template, only_compares, shape
from policies.engine.decide import field_view, freely_read, settings_named, timed
from policies.engine.decisions import FieldView
from policies.engine.model import Policy

_log = structlog.get_logger("inspector")
SMALL = 4096
_CACHED = 2048
_CACHED_TEXT = 16 * 1024
_RELOAD_EVERY = 1.0
"""Seconds between two readings of the catalogue for unknown names, so that typing errors cannot flood an upstream."""


_CacheKey = tuple[str, str, str, Subject, frozenset[str], Altered, SearchPath | None, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Matter:
    """Whose statements they are, and under which catalogue; what their transaction did to the schema before them."""

    subject: Subject
    key: Key
    altered: Altered = Altered.NOT
    path: SearchPath | None = None
    """The search path that their session has set, if it has."""
    types: tuple[int, ...] = ()
    """Users' types that parameters of the text were declared to have."""


@dataclass(slots=True)
class Likeness:
    """What was ruled on one text of a shape, and how others of it are rewritten."""

    ruling: Permitted
    template: Template | None
    """None where they are sent as they come."""
    _holds: bool | None = None

    def holds(self) -> bool:
        """Say whether it is so for every text of the shape; found out when there is a second one."""
        if self._holds is None:
            self._holds = only_compares(self.ruling.sql)
        return self._holds


class Inspector:
    """Rules on texts; `rule` answers at once where it can."""

    def __init__(self, policies: Policies, catalogues: Catalogues, workers: Workers, clock: Clock) -> None:
        self._policies = policies
        self._clock = clock
        self._timeless = ""
        """Hash of a policy that has no rules with hours."""
        self._catalogues = catalogues
        self._workers = workers
        self._rulings: OrderedDict[_CacheKey, Ruling] = OrderedDict()
        self._shapes: OrderedDict[_CacheKey, Likeness] = OrderedDict()
        """By text with its numbers marked."""
        self._views: dict[tuple[str, str, str], FieldView] = {}
        self._terms: dict[tuple[str, Subject], Terms] = {}
        self._reloaded: dict[Key, float] = {}
        self._bases: dict[tuple[Key, SearchPath | None], tuple[Catalogue, str]] = {}

    def rule(self, matter: Matter, sql: str) -> Ruling | Awaitable[Ruling]:
        """Rule on a text under the policy and the catalogue of this moment; what cannot be ruled on is denied."""
        if (refusal := refusal_of_length(len(sql))) is not None:
            # Megabytes are not copied to a worker for that: others wait meanwhile.
            return refused(refusal, UNREADABLE)
        if (known := self.known(matter, sql)) is not None:
            return known
        catalogue = self._catalogues.held(matter.key)
        if catalogue is None:
            return self._slowly(matter, sql, None)
        ruling = self._on_the_spot(matter, sql, catalogue)
        if ruling is None:
            return self._slowly(matter, sql, catalogue)
        return self._slowly(matter, sql, None, again=True) if self._worth_reloading(matter, ruling) else ruling

    def known(self, matter: Matter, sql: str) -> Ruling | None:
        """Return what `rule` would, where it has ruled on this under the policy and the catalogue of this moment.

        What was ruled on one text of a shape holds for all of them: neither inspection nor rules look at its numbers.
        """
        catalogue = self._catalogues.held(matter.key)
        if catalogue is None:
            return None
        found = self._rulings.get(self._cache_key(matter, sql, catalogue))
        if found is not None or (marked := shape(sql)) is None:
            return found
        kept = self._shapes.get(self._cache_key(matter, marked, catalogue))
        if kept is None or not kept.holds():
            return None
        like = kept.ruling
        rewritten, edits = kept.template.fit(sql) if kept.template is not None else (sql, whole_run(sql))
        return replace(like, sql=sql, inspection=replace(like.inspection, rewritten=rewritten, edits=edits))

    def alike(self, matter: Matter, sql: str, marked: str) -> Permitted | None:
        """Return what `known` rests on for every text of a shape, where all of them are sent as they come."""
        catalogue = self._catalogues.held(matter.key)
        if catalogue is None or shape(sql) != marked:
            return None
        kept = self._shapes.get(self._cache_key(matter, marked, catalogue))
        return kept.ruling if kept is not None and kept.template is None and kept.holds() else None

    @property
    def moves(self) -> Moves:
        """Counts the catalogues that come and go."""
        return self._catalogues.moves

    def basis(self, matter: Matter) -> tuple[object | None, float]:
        """Return what rulings rest on at this moment, and until when (monotonic seconds) that need not be asked again.

        As long as it is the same object, rulings hold. None where they depend on more, as on the hour.
        """
        catalogue, policy = self._catalogues.held(matter.key), self._policies.hash
        if catalogue is None or (self._timeless != policy and (self._hours(None) or self._timeless != policy)):
            return None, 0.0
        kept = self._bases.get((matter.key, matter.path))
        if kept is None or kept[0] is not catalogue or kept[1] != policy:
            if len(self._bases) > _CACHED:
                self._bases.clear()
            kept = self._bases[matter.key, matter.path] = (catalogue, policy)
        return kept, self._catalogues.until(matter.key)

    def weigh(self, matter: Matter, ruling: Permitted, rows: int | None) -> Ruling:
        """Rule again on what was ruled on, with how many rows the planner expects."""
        return rule(self._policies.current, matter.subject, ruling.sql, ruling.inspection, self._clock.now(), rows)

    async def ready(self, matter: Matter) -> None:
        """Have a catalogue at hand; raises UpstreamUnavailable."""
        await self._catalogues.fresh(matter.key)

    def forget(self, key: Key, *, own: bool) -> None:
        """The schema has changed, or may have: read the catalogue again before the next ruling relies on it."""
        self._catalogues.drop(key, own=own)

    async def _slowly(self, matter: Matter, sql: str, catalogue: Catalogue | None, *, again: bool = False) -> Ruling:
        """Rule, once more under a catalogue read after the statement came where that is worth it, or `again`."""
        try:
            if not again:
                ruling = await self._anywhere(matter, sql, catalogue or await self._catalogues.fresh(matter.key))
                if not self._worth_reloading(matter, ruling):
                    return ruling
            self._reloaded[matter.key] = now = time.monotonic()
            return await self._anywhere(matter, sql, await self._catalogues.fresh(matter.key, since=now))
        except WorkerFailed as failure:
            refusal = Refusal("limit-time", str(failure), "write it shorter or simpler", sqlstate="54001")
            return refused(refusal, "(a statement that could not be read in time)")
        except AirlockError as error:
            return _unread(matter, error)

    async def _anywhere(self, matter: Matter, sql: str, catalogue: Catalogue) -> Ruling:
        known = self._rulings.get(self._cache_key(matter, sql, catalogue))
        if known is not None:
            return known
        if (ruling := self._on_the_spot(matter, sql, catalogue)) is not None:
            return ruling
        policy_hash, view = self._policies.hash, self._view(matter)
        person, terms = matter.subject.person, self._terms_of(matter)
        found, redacted = await self._workers.inspect(sql, catalogue, view, person, terms)
        if self._policies.hash != policy_hash:
            # The policy changed meanwhile, and with it perhaps the masks.
            return await self._anywhere(matter, sql, catalogue)
        return self._ruled(matter, sql, catalogue, found, redacted)

    def _on_the_spot(self, matter: Matter, sql: str, catalogue: Catalogue) -> Ruling | None:
        """Rule here and now, where that keeps nobody else waiting; None where it would."""
        if len(sql) > SMALL:
            return None
        try:
            found = inspect(sql, catalogue, self._view(matter), ON_THE_SPOT, self._terms_of(matter))
            return self._ruled(matter, sql, catalogue, found, "")
        except Costly:
            return None
        except Refusal as refusal:
            return self._ruled(matter, sql, catalogue, refusal, redact(sql))

    def _ruled(
        self, matter: Matter, sql: str, catalogue: Catalogue, found: Inspection | Refusal, redacted: str
    ) -> Ruling:
        now = self._clock.now()
        if isinstance(found, Refusal):
            ruling: Ruling = refused(found, redacted)
        else:
            ruling = rule(self._policies.current, matter.subject, sql, found, now)
        # A name that was unknown may be known the next time, so that answer is not kept.
        if len(sql) <= _CACHED_TEXT and not (isinstance(ruling, Denied) and ruling.retry):
            self._rulings[self._cache_key(matter, sql, catalogue, now)] = ruling
            if len(self._rulings) > _CACHED:
                self._rulings.popitem(last=False)
            self._keep_shape(matter, sql, catalogue, now, ruling)
        return ruling

    def _keep_shape(self, matter: Matter, sql: str, catalogue: Catalogue, now: datetime, ruling: Ruling) -> None:
        """Keep a ruling for every text of its shape, where it is on one plain read."""
        if not isinstance(ruling, Permitted) or not boards(ruling) or (marked := shape(sql)) is None:
            return
        key, rewritten = self._cache_key(matter, marked, catalogue, now), ruling.inspection.rewritten
        template = Template.of(sql, rewritten, ruling.inspection.edits) if rewritten != sql else None
        if (template is not None or rewritten == sql) and key not in self._shapes:
            self._shapes[key] = Likeness(ruling, template)
            if len(self._shapes) > _CACHED:
                self._shapes.popitem(last=False)

    def _worth_reloading(self, matter: Matter, ruling: Ruling) -> bool:
        if not isinstance(ruling, Denied) or not ruling.retry:
            return False
        return time.monotonic() - self._reloaded.get(matter.key, 0.0) > _RELOAD_EVERY

    def _terms_of(self, matter: Matter) -> Terms:
        key = (self._policies.hash, matter.subject)
        terms = self._terms.get(key)
        if terms is None:
            if len(self._terms) > _CACHED:
                self._terms.clear()
            terms = self._terms[key] = terms_of(self._policies.current, matter.subject)
        return replace(terms, altered=matter.altered, path=matter.path, types=matter.types)

    def _view(self, matter: Matter) -> FieldView:
        subject = matter.subject
        key = (self._policies.hash, subject.person, subject.resource)
        view = self._views.get(key)
        if view is None:
            if len(self._views) > _CACHED:
                self._views.clear()
            view = self._views[key] = field_view(self._policies.current, subject.person, subject.resource)
        return view

    def _cache_key(self, matter: Matter, sql: str, catalogue: Catalogue, now: datetime | None = None) -> _CacheKey:
        return (
            sql,
            self._policies.hash,
            catalogue.version,
            matter.subject,
            self._hours(now),
            matter.altered,
            matter.path,
            matter.types,
        )

    def _hours(self, now: datetime | None) -> frozenset[str]:
        """Return which of the rules with hours hold, now by default: what was ruled under others is not taken."""
        if self._timeless == self._policies.hash:
            return frozenset()
        policy = self._policies.current
        if not any(one.when for one in policy.statements):
            self._timeless = self._policies.hash
        return timed(policy, now or self._clock.now())


def _unread(matter: Matter, error: AirlockError) -> Denied:
    """Refuse what cannot be looked up (fail closed): operators are told what happened, its sender what it means."""
    _log.warning("the catalogue cannot be read", resource=matter.subject.resource, error=str(error))
    why = error.plainly if isinstance(error, UpstreamUnavailable) else "the broker cannot work with it"
    message = f"what this names cannot be looked up in {matter.subject.resource} now: {why}"
    hint = "run it again in a moment; if it stays so, tell an operator of the broker"
    return refused(
        Refusal("catalogue-unread", message, hint, sqlstate="58000"), "(a statement that was not looked into)"
    )


def terms_of(policy: Policy, subject: Subject) -> Terms:
    """Return on what terms a role's statements are inspected."""
    held = policy.resources.get(subject.resource)
    level = held.roles.get(subject.role) if held is not None else None
    covers, but = freely_read(policy, *subject)
    strict = level is not None and level.strict
    return Terms(strict, covers, but, settings_named(policy, *subject), called=subject.resource)
