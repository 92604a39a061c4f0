"""`max_minutes` stops a run, and a loop of resumes still comes to its end."""

import pytest
from helpers.runs import BASE, assert_stopped_as_whole, the_run


@pytest.mark.parametrize("minutes", ["0.0001"])
def test_a_time_limit_stops_and_resumes(train, workspace, minutes):
    assert train(*BASE, "name=whole").code == 0
    done = train(*BASE, "name=stopped", f"max_minutes={minutes}")
    assert done.code == 75
    kept = "A resumed run keeps this limit. Add max_minutes=null to lift it. Go on with: python train.py resume="
    assert f"Stopped by max_minutes={minutes} after step 1 and saved. {kept}" in done.last
    assert train("name=stopped", f"resume={the_run(workspace, 'stopped')}", "max_minutes=null").code == 0
    assert_stopped_as_whole(workspace)


def test_a_time_limit_below_the_start_of_a_run_still_ends(train, workspace):
    """Each command does at least one step or one validation. So the documented loop ends."""
    options = (*BASE, "limit_train_batches=4", "epochs=1", "limit_val_batches=2")
    assert train(*options, "name=whole").code == 0
    codes = []
    while not codes or (codes[-1] == 75 and len(codes) < 20):
        codes.append(train(*options, "name=stopped", "resume=auto", "max_minutes=1e-9").code)
    assert codes == [75, 75, 75, 75, 0]
    assert_stopped_as_whole(workspace)
