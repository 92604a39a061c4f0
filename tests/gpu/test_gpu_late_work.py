"""Batches and checkpoints are right however late a GPU does its work, and each wait is needed for that."""

import pytest
from helpers import snippets

pytestmark = pytest.mark.xdist_group("gpu")


@pytest.fixture
def late(gpu_server, workspace):
    """`late(*arguments)`: what late.py says about work that is done late, on all streams or on the main one."""
    snippets.add(workspace, "late.py")

    def late(*arguments, streams="all"):
        done = gpu_server.run(workspace / "late.py", *arguments, STAND_IN_LATE=streams, CUDA_VISIBLE_DEVICES="0")
        assert done.code == 0, done.out
        return done.last

    return late


@pytest.mark.parametrize("streams", ["none", "main", "all"])
@pytest.mark.parametrize(("what", "count"), [("batches", 60), ("saves", 5)])
def test_all_are_right(late, what, count, streams):
    assert late(what, streams=streams) == f"0 of {count} are wrong"


@pytest.mark.parametrize(
    ("what", "omitted", "streams", "least"),
    [
        ("batches", "torch.cuda:Stream.wait_event", "all", 50),
        ("batches", "torch:Tensor.record_stream", "main", 10),
        ("saves", "torch.cuda:Event.synchronize", "all", 5),
    ],
)
def test_without_a_wait_they_are_wrong(late, what, omitted, streams, least):
    assert int(late(what, omitted, streams=streams).split()[0]) >= least
