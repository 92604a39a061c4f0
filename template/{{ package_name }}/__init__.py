"""A training project made from the Ostinato template."""
