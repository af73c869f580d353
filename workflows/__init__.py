"""How a request becomes a grant: pure state tables, reviews, signed orders, and the wire models of the broker's API."""
