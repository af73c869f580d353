"""What may be asked: the YAML files people edit, and the engine that reads them."""
