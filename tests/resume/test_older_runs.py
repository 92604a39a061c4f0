"""Runs of earlier releases lack newer keys. They go on as they began."""

import re

import pytest
from helpers.runs import assert_stopped_as_whole, the_run

OLD = ("contiguous=null",)


def as_of_an_older_release(folder):
    """Remove the newer keys from the stored config and its checkpoints."""
    import torch

    def without(text):
        text = re.sub(r"(?m)^contiguous: .*\n", "", text)
        keys = "test_fraction|colour_share|range|background|leave_out"
        return re.sub(rf"(?m)^  (?:(?:{keys}): .*|skip:.*\n(?:  - .*\n)*)\n?", "", text)

    path = folder / "config.yaml"
    path.write_text(without(path.read_text()))
    assert "contiguous" not in path.read_text()
    for path in (folder / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        state["config"] = without(state["config"])
        torch.save(state, path)


def go_on(train, workspace, folder, options, resume: str) -> None:
    """Resume the run by its folder or as `auto` finds it. It must end as the whole run did."""
    done = train(*(*options, "name=stopped", "resume=auto") if resume == "auto" else (f"resume={folder}",))
    assert done.code == 0, done.out
    assert the_run(workspace, "stopped") == folder
    assert_stopped_as_whole(workspace)


@pytest.mark.parametrize("resume", ["auto", "RUN"])
def test_a_run_goes_on_in_its_layout(train, workspace, stopping, resume):
    options = (*stopping, "logger=none")
    assert train(*options, *OLD, "name=whole").code == 0
    assert train(*options, *OLD, "name=stopped", AT="13", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    as_of_an_older_release(folder)
    refused = train(f"resume={folder}", "contiguous=true")
    assert refused.code == 2
    assert "contiguous cannot change" in refused.last
    go_on(train, workspace, folder, options, resume)


@pytest.mark.parametrize("resume", ["auto", "RUN"])
def test_a_run_on_pictures_goes_on(train, workspace, pictures, stopping, resume):
    options = (*stopping, "data=image_folder", f"data.root='{pictures}'", "batch_size=16", "logger=none")
    old = (*OLD, "data.range=null", "data.background=null", "data.skip=null", "data.colour_share=0.0")
    assert train(*options, *old, "name=whole").code == 0
    assert train(*options, *old, "name=stopped", AT="4", WITH="SIGTERM").code == 75
    folder = the_run(workspace, "stopped")
    as_of_an_older_release(folder)
    text = (folder / "config.yaml").read_text()
    assert not re.search("background|skip|range|leave_out", text), text
    if resume == "RUN":
        refused = train(f"resume={folder}", "data.background=white")
        assert refused.code == 2
        assert "data cannot change" in refused.last
    go_on(train, workspace, folder, options, resume)
