"""What `airlock provision` prints says for which servers it is, and what it leaves to others."""

import pytest

from broker.protocols.postgres.provision import Wanted, provision, provisioner


@pytest.mark.parametrize(("version", "said"), [(18, True), (16, True), (15, False)])
def test_what_older_servers_do_not_understand_says_so(version: int, said: bool) -> None:
    text = "\n".join(provisioner("maker", ["reader"], "crm", version))
    assert ("with admin true" in text) is said
    assert ("`--server 15` writes it for older ones" in text) is said


def test_tables_of_tomorrow_are_granted_where_the_policy_covers_them() -> None:
    named = provision(Wanted("reader", "crm", ("public.accounts",), writes=False))
    assert not any("tables of tomorrow" in line for line in named)
    whole = provision(Wanted("reader", "crm", ("public.*",), writes=False))
    (line,) = (line for line in whole if "tables of tomorrow" in line)
    assert line.startswith("-- ")
    assert line.endswith("alter default privileges in schema public grant select on tables to reader;")
