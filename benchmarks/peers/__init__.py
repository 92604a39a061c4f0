"""The same training by different means, each a process of its own that runs when it is told to."""
