"""`python -m broker.protocols.postgres.worker`: inspects texts for the broker, until its input ends.

Requests are pickled by the broker, for it is trusted here: a catalogue, or a text with the fields that its sender sees.
Answers are JSON, for nothing of here is trusted there.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
from typing import Any, BinaryIO

from broker.protocols.postgres.workers import Assignment, encoded
from broker.sql.catalogue import Catalogue
from broker.sql.inspect import inspect
from broker.sql.model import Inspection, Refusal
from broker.sql.redact import redact

MEMORY = 512 * 1024 * 1024


def main() -> None:
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # A parser that prints must not be able to answer.
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sink.write(b"!")
    sink.flush()
    try:
        _serve(source, sink)
    except MemoryError:
        os._exit(1)


def _serve(source: BinaryIO, sink: BinaryIO) -> None:
    catalogue: Catalogue | None = None
    while (request := _request(source)) is not None:
        if isinstance(request, Catalogue):
            catalogue = request
            sink.write(b"!")
        else:
            assert catalogue is not None
            answer = _answer(catalogue, request)
            sink.write(len(answer).to_bytes(4, "big") + answer)
        sink.flush()


def _answer(catalogue: Catalogue, assignment: Assignment) -> bytes:
    sql, view, terms = assignment
    found: Inspection | Refusal
    try:
        found = inspect(sql, catalogue, view, terms=terms)
    except Refusal as refusal:
        found = refusal
    redacted = redact(sql) if isinstance(found, Refusal) else ""
    return json.dumps(encoded(found, redacted)).encode()


def _request(source: BinaryIO) -> Any:
    head = source.read(4)
    if len(head) < 4:
        return None
    return pickle.loads(source.read(int.from_bytes(head, "big")))  # noqa: S301 - from the broker only


if __name__ == "__main__":
    main()
