"""The same training in different libraries. Each is a process that runs when it is its turn."""
