"""SQL, purely: text to effects, relations and fields; the masking rewrite; redaction. PostgreSQL's own grammar."""
