"""The demo: a real PostgreSQL with an invented shop, and the supervisor of `make demo`.

Every person, card, order and payment in the shop is invented: names are drawn from lists, e-mail addresses end in
reserved domains, telephone numbers and social security numbers come from ranges that are never issued.
"""
