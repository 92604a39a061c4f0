"""From the config to objects."""
