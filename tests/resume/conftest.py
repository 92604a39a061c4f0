"""A project whose task stops a run at a given batch."""

import pytest
from helpers import snippets


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/stopping.py")
    return workspace
