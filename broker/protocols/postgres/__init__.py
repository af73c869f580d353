"""PostgreSQL's frontend/backend protocol, 3.0 and 3.2, as a broker between any libpq client and a server (13 to 18).

Reference: https://www.postgresql.org/docs/current/protocol.html (message flow, message formats, SASL).

    client                        broker                                     upstream
      |-- SSLRequest / TLS+ALPN --->|                                            |
      |-- StartupMessage ---------->| startup: allow-listed, rebuilt             |
      |<-- SASL, SCRAM-SHA-256 ---->| ticket                                     |
      |                             | lease written and synced                   |
      |                             | (a role made for this session)             |
      |                             |-- TLS, StartupMessage with pins ---------->|
      |                             |<-- SCRAM with the role's credential ------>|
      |                             |-- who am I, are the pins kept? ----------->|
      |                             | lease: pid, start; session.opened          |
      |<-- ParameterStatus, key, Z -|                                            |
      |-- Query / Parse Bind Exec ->| inspect, decide, record                    |
      |                             |-- the rewritten text --------------------->|
      |<-- rows, errors ------------|<-- rows (tripwire, scrubbed errors) -------|
      |                             | statement.finished                         |
      |-- Terminate, or the end --->|                                            |
      |<-- FATAL 57P01 -------------|-- pg_terminate_backend, until it is gone ->|
      |                             | (its role dropped)                         |
      |                             | lease closed; session.closed               |

Pure: codec (frames and messages), startup (how a connection begins), scram, login (ours to the upstream), ruling,
plan, registry, responses, frontpath and backpath (the two directions), clearance (what a plan goes through before it is
sent), machine (joins them), express and fares (what goes in one step), replies, records, copying, pins, identity (a
session's own role).
Doing: frontdoor, house, outset (what a client asks for as it connects), proxy (one session), flow (what goes through
it), ruler, backend (its upstream side), scribe, upstream (dialling), admin, kill, identities, catalogues, inspector,
workers, offer.
"""

from broker.protocols.postgres.offer import PostgresOffer

OFFER = PostgresOffer()
