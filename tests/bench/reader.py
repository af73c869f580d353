"""`python -m tests.bench.reader SQL`: streams a query's rows, keeps none, and prints how many, and in how many seconds.

libpq finds the server by its environment. pgbench would keep a whole result in memory first, and be measured with that.
"""

from __future__ import annotations

import sys
import time

import psycopg
from psycopg import capabilities, pq

CHUNK = 64
"""Rows that are handed over at a time."""


def main(sql: str) -> int:
    """Read every row; returns the exit status."""
    connection = psycopg.connect(autocommit=True).pgconn
    rows, begun = 0, time.perf_counter()
    connection.send_query(sql.encode())
    if capabilities.has_stream_chunked():
        connection.set_chunked_rows_mode(CHUNK)
    else:
        connection.set_single_row_mode()
    while (result := connection.get_result()) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            print(result.get_error_message(), file=sys.stderr)
            return 1
        rows += result.ntuples
        result.clear()
    print(rows, time.perf_counter() - begun)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
