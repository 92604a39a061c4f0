"""The config: its keys, how it is composed, checked and stored. Without torch."""
