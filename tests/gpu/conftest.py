"""Fixtures: commands that see GPUs which are not there."""

from collections.abc import Callable, Iterator

import pytest
from helpers import snippets, stand_in
from helpers.forkserver import Result, Server
from helpers.once import once, shared_folder


@pytest.fixture(scope="session")
def gpu_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose commands run under the stand-in of stand_in.cpp."""
    if reason := stand_in.missing():
        pytest.skip(reason)
    library = once(shared_folder(tmp_path_factory) / "stand-in", stand_in.build) / stand_in.LIBRARY
    server = Server(tmp_path_factory.mktemp("gpu-commands"), stand_in.PREPARE, LD_PRELOAD=str(library))
    yield server
    server.close()


@pytest.fixture
def gpu_train(gpu_server, workspace) -> Callable[..., Result]:
    """`gpu_train(*overrides, **env)`: the result of `python train.py device=cuda *overrides` with patched.py."""
    snippets.add_patched(workspace)

    def gpu_train(*overrides: str, **env: str) -> Result:
        return gpu_server.run(
            workspace / "train.py", "device=cuda", "logger=none", "log.curves=false", *overrides, **env
        )

    return gpu_train
