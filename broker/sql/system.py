"""The system catalogue: which of its relations may be read, and which columns and functions hold literals.

What holds somebody's data, or literals that may be data (defaults, checks, statistics, sources, other sessions'
queries), is masked like a field, or refused. The rest lets psql's `\\d` family and drivers introspect.
"""

from __future__ import annotations

import re

SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema"})

_EMPTY = """
    pg_backend_memory_contexts pg_locks pg_replication_slots pg_seclabel pg_seclabels pg_shseclabel pg_stat_archiver
    pg_stat_bgwriter pg_stat_checkpointer pg_stat_database pg_stat_database_conflicts pg_stat_io
    pg_stat_progress_analyze pg_stat_progress_basebackup pg_stat_progress_cluster pg_stat_progress_copy
    pg_stat_progress_create_index pg_stat_progress_vacuum pg_stat_replication pg_stat_replication_slots pg_stat_slru
    pg_stat_subscription pg_stat_user_functions pg_stat_wal pg_stat_xact_all_tables pg_stat_xact_sys_tables
    pg_stat_xact_user_functions pg_stat_xact_user_tables pg_stats pg_stats_ext pg_stats_ext_exprs
""".split()
EMPTY = frozenset(f"pg_catalog.{name}" for name in _EMPTY)
"""What counts and names what all sessions do, labels that could say anything, and what is known of values: without any
rows where something is masked, so that dashboards and pages of properties go on.
"""

_STATISTICS = {
    f"pg_stat{io}_{whose}_{what}": names
    for whose in ("all", "sys", "user")
    for what, names in {
        "tables": "relid schemaname relname",
        "indexes": "relid indexrelid schemaname relname indexrelname",
        "sequences": "relid schemaname relname",
    }.items()
    for io in ("", "io")
    if io or what != "sequences"
}
NAMED_ONLY = {f"pg_catalog.{name}": frozenset(columns.split()) for name, columns in _STATISTICS.items()}
"""Statistics of relations, and what is shown of them: names, which tools ask for. Counts follow what rows there are."""

READABLE = frozenset(_EMPTY).union(
    _STATISTICS,
    """
    pg_available_extension_versions pg_available_extensions pg_prepared_statements pg_sequences
    pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute pg_auth_members pg_cast pg_class pg_collation
    pg_constraint pg_conversion pg_cursors pg_database pg_db_role_setting pg_default_acl pg_depend pg_description
    pg_enum pg_event_trigger pg_extension pg_foreign_data_wrapper pg_foreign_server pg_foreign_table pg_group pg_index
    pg_indexes pg_inherits pg_init_privs pg_language pg_largeobject_metadata pg_matviews pg_namespace pg_opclass
    pg_operator pg_opfamily pg_parameter_acl pg_partitioned_table pg_policies pg_policy pg_proc pg_publication
    pg_publication_namespace pg_publication_rel pg_publication_tables pg_range pg_rewrite pg_roles pg_rules
    pg_prepared_xacts pg_sequence pg_settings pg_shdepend pg_shdescription pg_stat_activity pg_stat_gssapi pg_stat_ssl
    pg_statistic_ext pg_subscription pg_subscription_rel
    pg_tables pg_tablespace pg_timezone_abbrevs pg_timezone_names pg_transform pg_trigger pg_ts_config
    pg_ts_config_map pg_ts_dict pg_ts_parser pg_ts_template pg_type pg_user pg_user_mappings pg_views
    """.split(),
)
"""Relations of pg_catalog that may be read; every other one is refused."""

INFORMATION_SCHEMA_CLOSED = frozenset(
    {
        "user_mapping_options",
        "foreign_server_options",
        "foreign_table_options",
        "foreign_data_wrapper_options",
        "column_options",
    }
)

INFORMATION_SCHEMA_SECRET = frozenset({"user_mapping_options"})

SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
CLOSED_COLUMNS: dict[str, frozenset[str]] = {
    f"{schema}.{relation}": frozenset(columns.split())
    for schema, relations in {
        "pg_catalog": {
            "pg_aggregate": "agginitval aggminitval",
            "pg_attrdef": "adbin",
            "pg_attribute": "attmissingval attfdwoptions",
            # Sizes of indexes follow the order of the values in them.
            "pg_class": "relpartbound reltuples relpages relallvisible relallfrozen",
            "pg_constraint": "conbin",
            "pg_cursors": "statement",
            "pg_db_role_setting": "setconfig",
            "pg_description": "description",
            "pg_enum": "enumlabel",
            "pg_extension": "extcondition",
            "pg_foreign_data_wrapper": "fdwoptions",
            "pg_foreign_server": "srvoptions",
            "pg_foreign_table": "ftoptions",
            "pg_index": "indexprs indpred",
            "pg_indexes": "indexdef",
            "pg_matviews": "definition",
            "pg_partitioned_table": "partexprs",
            "pg_prepared_xacts": "transaction gid prepared owner",
            "pg_policies": "qual with_check",
            "pg_policy": "polqual polwithcheck",
            "pg_prepared_statements": "statement generic_plans custom_plans",
            "pg_proc": "prosrc probin prosqlbody proargdefaults proconfig",
            "pg_publication_rel": "prqual",
            "pg_publication_tables": "rowfilter",
            "pg_rewrite": "ev_action ev_qual",
            "pg_roles": "rolpassword rolconfig",
            "pg_rules": "definition",
            "pg_sequences": "last_value",
            "pg_settings": "setting boot_val reset_val",
            "pg_shdescription": "description",
            "pg_stat_activity": "usesysid usename application_name client_addr client_hostname client_port xact_start"
            " query_start state_change wait_event_type wait_event state backend_xid backend_xmin query_id query",
            "pg_stat_gssapi": "gss_authenticated principal encrypted credentials_delegated",
            "pg_stat_ssl": "ssl version cipher bits client_dn client_serial issuer_dn",
            "pg_statistic_ext": "stxexprs",
            "pg_subscription": "subconninfo",
            "pg_trigger": "tgargs tgqual",
            "pg_ts_dict": "dictinitoption",
            "pg_type": "typdefaultbin typdefault",
            "pg_user": "passwd useconfig",
            "pg_user_mappings": "umoptions",
            "pg_views": "definition",
        },
        "information_schema": {
            "check_constraints": "check_clause",
            "columns": "column_default generation_expression",
            "attributes": "attribute_default",
            "domains": "domain_default",
            "routines": "routine_definition",
            "parameters": "parameter_default",
            "triggers": "action_condition action_statement",
            "views": "view_definition",
        },
    }.items()
    for relation, columns in relations.items()
    if columns
}
"""Columns whose values are or hold literals; they arrive as NULL, or as a fixed text where a reader needs one."""

HIDDEN = "(hidden)"
SHOWN_AS = {"enumlabel": HIDDEN, "reltuples": "-1"}
"""What stands for columns of which readers take no NULL; for rows, what a server says that has not counted them."""

_PLAIN_DEFAULT = (
    r"'^(nextval\(''[^'']*''::regclass\)|[a-z_][a-z0-9_]*\(\)|(CURRENT_|LOCAL)(DATE|TIME|TIMESTAMP|USER|ROLE))$'"
)
_BOUND = "pg_catalog.pg_get_expr(t.relpartbound, t.oid)"


def _in_part(value: str, *forms: tuple[str, str]) -> str:
    """Write what is said in the place of values of some forms; their patterns and texts are quoted."""
    return " ".join(f"WHEN {value} OPERATOR(pg_catalog.~) {pattern} THEN {said}" for pattern, said in forms)


_DEFAULT, _DEFAULT_TEXT = "pg_catalog.pg_get_expr(t.adbin, t.adrelid)", "t.column_default::pg_catalog.text"
IN_PART = {
    "adbin": _in_part(_DEFAULT, (_PLAIN_DEFAULT, _DEFAULT)),
    "column_default": _in_part(_DEFAULT_TEXT, (_PLAIN_DEFAULT, _DEFAULT_TEXT)),
    "relpartbound": _in_part(
        _BOUND,
        ("'^(DEFAULT$|FOR VALUES WITH)'", _BOUND),
        ("'^FOR VALUES IN'", "'FOR VALUES IN (''(hidden)'')'"),
        ("'^FOR VALUES FROM'", "'FOR VALUES FROM (''(hidden)'') TO (''(hidden)'')'"),
    ),
    "tgargs": "WHEN t.tgnargs OPERATOR(pg_catalog.=) 0 THEN t.tgargs",
}
"""Definitions that are shown in part: defaults that have no literal but the name of a sequence, what a partition is
bounded by but not how; `t` is the relation.
"""
HIDDEN_WHERE_SAID = frozenset(IN_PART).union(
    """
    indexdef definition prosrc view_definition routine_definition agginitval aggminitval conbin ev_action ev_qual
    indexprs indpred partexprs polqual polwithcheck proargdefaults prosqlbody prqual qual rowfilter stxexprs tgqual
    typdefault typdefaultbin with_check action_condition action_statement attribute_default check_clause domain_default
    generation_expression parameter_default
    """.split()
)
"""Definitions: that there is one is shown, in one fixed text."""

SHOWN = (
    "server_(version|version_num|encoding)|client_(encoding|min_messages|connection_check_interval)|application_name"
    "|standard_conforming_strings|search_path|datestyle|intervalstyle|timezone|timezone_abbreviations|bytea_output"
    "|extra_float_digits|xmlbinary|xmloption|is_superuser|session_authorization|role|row_security|in_hot_standby"
    "|hot_standby|integer_datetimes|lc_[a-z_]+|default_[a-z_]+|transaction_[a-z_]+|max_[a-z_]+|enable_[a-z_]+|jit[a-z_]*"
    "|geqo[a-z_]*|autovacuum[a-z_]*|vacuum_[a-z_]+|[a-z_]+_(cost|timeout|buffers|work_mem|limit|fraction|delay)"
    "|(effective|parallel|track|gin|checkpoint|commit|min_parallel)_[a-z_]+|work_mem|fsync|full_page_writes|port|ssl"
    "|synchronous_commit|constraint_exclusion|plan_cache_mode|hash_mem_multiplier|password_encryption|compute_query_id"
    "|(block|segment|wal_block|wal_segment)_size|wal_level|data_checksums|array_nulls|backslash_quote"
    "|escape_string_warning|quote_all_identifiers|synchronize_seqscans|transform_null_equals|check_function_bodies"
    "|stats_fetch_consistency|huge_pages|cluster_name"
)
"""A pattern of the settings that hold nothing private; PostgreSQL's own engine reads it too."""

PRIVATE = (
    "conninfo|passphrase|passw(or)?d$|secret|token|credential|_command$|_key(_file)?$|_keyfile$|hba_file|ident_file"
)
"""What a setting's name has, where it may hold a secret, or say where one is."""
OF_EXTENSIONS = "auto_explain|pg_stat_statements|pg_trgm|plpgsql"
"""What the names of settings begin with that are shown beside PostgreSQL's own: others are an application's."""


def shown(name: str, *, in_clear: bool) -> bool:
    """Say whether a setting may be shown."""
    name = name.lower()
    if re.fullmatch(SHOWN, name):
        return True
    known = re.fullmatch(rf"([a-z0-9_]+|({OF_EXTENSIONS})\.[a-z0-9_]+)", name) is not None
    return in_clear and known and re.search(PRIVATE, name) is None


def _like(pattern: str, value: str) -> str:
    return f"pg_catalog.lower({value}) OPERATOR(pg_catalog.~) '{pattern}'"


def _shown(value: str, *, in_clear: bool) -> str:
    """Write `shown` for PostgreSQL."""
    listed = _like(f"^({SHOWN})$", value)
    if not in_clear:
        return listed
    plain = _like(f"^([a-z0-9_]+|({OF_EXTENSIONS})[.][a-z0-9_]+)$", value)
    return f"({listed} OR ({plain} AND NOT {_like(PRIVATE, value)}))"


def _none_secret(column: str) -> str:
    """Write that an array of `name=value` has no setting that is not shown."""
    name = "pg_catalog.split_part(s.s, '=', 1)"
    return f"NOT EXISTS (SELECT FROM pg_catalog.unnest({column}) AS s (s) WHERE NOT {_shown(name, in_clear=True)})"


_OWN = "t.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
SHOWN_WHERE = {
    "pg_catalog.pg_settings": _shown("t.name", in_clear=False),
    **dict.fromkeys(("pg_catalog.pg_stat_activity", "pg_catalog.pg_stat_gssapi", "pg_catalog.pg_stat_ssl"), _OWN),
}
"""System relations whose closed columns are shown in some rows."""

CLOSED_IN_CLEAR: dict[str, dict[str, str | None]] = {
    "pg_catalog.pg_settings": dict.fromkeys(("setting", "boot_val", "reset_val"), _shown("t.name", in_clear=True)),
    "pg_catalog.pg_stat_activity": {"query": _OWN},
    "pg_catalog.pg_roles": {"rolconfig": _none_secret("t.rolconfig")},
    "pg_catalog.pg_user": {"useconfig": _none_secret("t.useconfig")},
    "pg_catalog.pg_db_role_setting": {"setconfig": _none_secret("t.setconfig")},
    "pg_catalog.pg_proc": {"proconfig": _none_secret("t.proconfig")},
    "pg_catalog.pg_subscription": {"subconninfo": None},
    "pg_catalog.pg_user_mappings": {"umoptions": None},
}
"""What stays closed where nothing is masked: others' queries and secrets, and in which rows each is shown."""

_PLAIN_INDEX = "x.indexprs IS NULL AND x.indpred IS NULL"
_INDEX = """(SELECT CASE WHEN {shown} THEN pg_catalog.pg_get_indexdef({{args}}) ELSE '(hidden)' END
 FROM pg_catalog.pg_index x WHERE x.indexrelid OPERATOR(pg_catalog.=) a1)"""
_INDEX_COLUMN = _INDEX.format(
    shown=f"{_PLAIN_INDEX} OR (a2 OPERATOR(pg_catalog.>) 0"
    " AND x.indkey[a2 OPERATOR(pg_catalog.-) 1] OPERATOR(pg_catalog.<>) 0)"
)
_CONSTRAINT = """(SELECT CASE WHEN x.contype OPERATOR(pg_catalog.=) ANY ('{p,u,f,n,t}'::pg_catalog."char"[])
 OR (x.contype OPERATOR(pg_catalog.=) 'x' AND EXISTS (SELECT FROM pg_catalog.pg_index i
 WHERE i.indexrelid OPERATOR(pg_catalog.=) x.conindid AND i.indexprs IS NULL AND i.indpred IS NULL))
 THEN pg_catalog.pg_get_constraintdef({args}) ELSE '(hidden)' END
 FROM pg_catalog.pg_constraint x WHERE x.oid OPERATOR(pg_catalog.=) a1)"""
_TRIGGER = """(SELECT CASE WHEN x.tgqual IS NULL AND x.tgnargs OPERATOR(pg_catalog.=) 0
 THEN pg_catalog.pg_get_triggerdef({args}) ELSE '(hidden)' END
 FROM pg_catalog.pg_trigger x WHERE x.oid OPERATOR(pg_catalog.=) a1)"""
_PARTITIONED = """(SELECT CASE WHEN x.partexprs IS NULL THEN pg_catalog.pg_get_partkeydef({args})
 WHEN x.partstrat OPERATOR(pg_catalog.=) 'l' THEN 'LIST ((hidden))'
 WHEN x.partstrat OPERATOR(pg_catalog.=) 'h' THEN 'HASH ((hidden))' ELSE 'RANGE ((hidden))' END
 FROM pg_catalog.pg_partitioned_table x WHERE x.partrelid OPERATOR(pg_catalog.=) a1)"""
UNCOUNTED = "{uncounted}"
"""Where the oids go of relations whose rows nobody may count."""
_SIZE = """(SELECT CASE WHEN x.relkind OPERATOR(pg_catalog.<>) ALL ('{{i,I,t}}'::pg_catalog."char"[])
 AND x.oid OPERATOR(pg_catalog.<>) ALL ({{uncounted}}::pg_catalog.oid[])
 THEN pg_catalog.{}(a1::pg_catalog.regclass{{rest}}) END
 FROM pg_catalog.pg_class x WHERE x.oid OPERATOR(pg_catalog.=) a1::pg_catalog.regclass)"""
_TABLE_SIZE = _SIZE.format("pg_table_size")
_SETTING, _SETTING_IN_CLEAR = (
    f"CASE WHEN {_shown('a1', in_clear=clear)} THEN pg_catalog.current_setting({{args}}) END" for clear in (False, True)
)
_FIXED = "CASE WHEN a1 IS NOT NULL THEN '(hidden)'::pg_catalog.text END"
_WRITTEN = "a1::pg_catalog.text"  # It has been masked: see HIDDEN_WHERE_SAID.
_NOTHING = "NULL::pg_catalog.text"

_LITERAL_FUNCTIONS: dict[str, str] = {
    "pg_get_indexdef": _INDEX.format(shown=_PLAIN_INDEX),
    "pg_get_indexdef/3": _INDEX_COLUMN,
    "pg_get_constraintdef": _CONSTRAINT,
    "pg_get_function_arguments": "pg_catalog.pg_get_function_identity_arguments(a1)",
    "pg_get_partkeydef": _PARTITIONED,
    "pg_get_expr": _WRITTEN,
    "pg_get_viewdef": _FIXED,
    "pg_get_ruledef": _FIXED,
    "pg_get_triggerdef": _TRIGGER,
    "pg_get_functiondef": _FIXED,
    "pg_get_function_sqlbody": _NOTHING,
    "pg_get_function_arg_default": _NOTHING,
    "pg_get_partition_constraintdef": _FIXED,
    "pg_get_statisticsobjdef": _FIXED,
    "pg_get_statisticsobjdef_columns": _FIXED,
    "pg_get_statisticsobjdef_expressions": "NULL::pg_catalog.text[]",
    "obj_description": _NOTHING,
    "col_description": _NOTHING,
    "shobj_description": _NOTHING,
    "current_setting": _SETTING,
    "pg_blocking_pids": "'{}'::pg_catalog.int4[]",
    "pg_relation_size": _SIZE.format("pg_relation_size"),
    "pg_table_size": _TABLE_SIZE,
    "pg_total_relation_size": _TABLE_SIZE,
    "pg_indexes_size": "NULL::pg_catalog.int8",
    "pg_database_size": "NULL::pg_catalog.int8",
    "pg_stat_get_numscans": "NULL::pg_catalog.int8",
    "pg_tablespace_size": "NULL::pg_catalog.int8",
}
"""Functions whose answers hold literals, or follow them -> what is written instead, over a row `a1, a2, ...` of their
arguments, perhaps for some number of these; sizes leave out indexes, and relations of which nobody may count rows."""
_LITERAL_FUNCTIONS_IN_CLEAR = {"current_setting": _SETTING_IN_CLEAR}


def literal_functions(*, in_clear: bool) -> dict[str, str]:
    """Return the functions that are not called as they stand, with what is written instead."""
    return _LITERAL_FUNCTIONS_IN_CLEAR if in_clear else _LITERAL_FUNCTIONS


MEASURING = frozenset({"pg_column_compression", "pg_column_size"})
"""Functions that say how a value is stored, which follows the length of what stands beside it: of rows, too."""
FUNCTIONS_IN_CLEAR = MEASURING.union(
    """
    currval enum_first enum_last enum_range lastval pg_blocking_pids pg_conf_load_time pg_current_wal_lsn
    pg_filenode_relation pg_get_object_address pg_last_wal_receive_lsn pg_last_wal_replay_lsn
    pg_last_xact_replay_timestamp pg_relation_filenode pg_relation_filepath pg_sequence_last_value
    pg_settings_get_flags pg_stat_get_dead_tuples pg_stat_get_live_tuples pg_stat_get_tuples_inserted
    """.split()
)
"""Functions beside those of the list that may be called where nothing is masked: they show what a catalogue does."""
