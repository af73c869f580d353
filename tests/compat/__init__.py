"""`make compat`: the suites that drivers publish, through the broker and through a plain forwarder, compared."""
