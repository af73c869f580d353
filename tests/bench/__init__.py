"""What the hop costs: the same work sent directly, through other proxies where there are any, and through Airlock."""
