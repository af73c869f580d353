"""What was derived of a credential is kept for its next login, and no longer than the credential."""

from dataclasses import replace

from broker.protocols.postgres.identity import identity_of
from broker.protocols.postgres.scram import salted_password
from broker.protocols.postgres.upstream import SaltedKeys
from broker.sessions.model import Source
from broker.sessions.ports import Endpoint

SOURCE = Source("db", 5432, "shop", "disable", "file:shop")
END = Endpoint("db", 5432, "shop", "app", "invented-one", "disable", None, SOURCE)


async def test_key_of_a_credential_is_derived_once_and_dropped_with_it() -> None:
    keys = SaltedKeys(most=2)
    first = await keys.derived(END, b"salt", 4096)
    assert first == salted_password("invented-one", b"salt", 4096)
    assert await keys.derived(END, b"salt", 4096) is first
    changed = replace(END, password="invented-two")
    assert await keys.derived(changed, b"salt", 4096) == salted_password("invented-two", b"salt", 4096)
    assert first not in [held[3] for held in keys._held.values()]
    assert await keys.derived(changed, b"other", 4096) == salted_password("invented-two", b"other", 4096)


async def test_few_keys_are_kept_and_none_of_a_role_that_logs_in_once() -> None:
    keys = SaltedKeys(most=2)
    for user in ("a", "b", "c"):
        await keys.derived(replace(END, user=user), b"salt", 4096)
    await keys.derived(identity_of("0" * 8, f"s{'0' * 16}").endpoint(END), b"salt", 4096)
    assert [who[2] for who in keys._held] == ["b", "c"]
