"""Sessions, purely: what is known of one, the gate's decision, what is recorded, and the ports that adapters fill."""
