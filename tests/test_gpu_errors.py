"""Errors that a GPU causes outside of the steps are one sentence. They are simulated by patching."""

import pytest
from helpers import snippets
from helpers.runs import the_run

SHORT = ("model=mlp", "max_steps=4", "save_every_steps=2", "logger=none", "workers=0")
MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB."
PLACES = {
    "the model is built": ("digits.engine.models.mlp:MLP.__init__", 1),
    "the model moves": ("torch.nn:Module.to", 1),
    "the loss moves": ("torch.nn:Module.to", 2),
    "the averages": ("digits.engine.build.averaged:Averaged.__init__", 1),
    "the optimizer's trial": ("digits.engine.build.optimizer_state._train", 1),
    "weights are kept": ("digits.engine.build.passes.weights_kept", 1),
    "the first batch": ("torch.nn:Linear.forward", 1),
}
STARTS = {
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel errors might be": "busy",
    "CUDA unknown error - this may be due to an incorrectly set up environment": "busy",
    "CUDA error: no kernel image is available for execution on the device": "do not fit together",
    "The NVIDIA driver on your system is too old (found version 11040).": "do not fit together",
    "CUDA driver version is insufficient for CUDA runtime version": "do not fit together",
    "CUDA error: out of memory": "memory is too small",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "memory is too small",
}


@pytest.fixture
def workspace(workspace):
    snippets.add_patched(workspace)
    return workspace


def told(done, code: int = 2) -> str:
    assert done.code == code, done.out
    assert "Traceback" not in done.out, done.out
    return done.last


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_gpu_out_of_memory_before_the_run(train, workspace, place):
    at, call = place
    done = train(*SHORT, "ema_decay=0.9", AT=at, CALL=str(call), RAISE=MEMORY)
    assert "memory is too small" in told(done)
    assert done.out.count("\n") == 1, done.out
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize("text", STARTS)
@pytest.mark.parametrize("at", ["digits.engine.setup.choose_device", "torch.nn:Linear.forward"])
def test_a_gpu_that_does_not_start(train, workspace, text, at):
    assert STARTS[text] in told(train(*SHORT, AT=at, RAISE=text))
    assert not (workspace / "runs").exists()


def test_a_gpu_out_of_memory_when_a_run_is_resumed_or_read(train, server, workspace):
    assert train(*SHORT, "max_minutes=0.00001").code == 75
    run = the_run(workspace)
    env = {"AT": "torch.nn:Module.load_state_dict", "RAISE": MEMORY}
    assert "memory is too small" in told(train(f"resume={run}", "max_minutes=null", **env))
    done = server.run(workspace / "digits/__main__.py", "evaluate", str(run), cwd=workspace, **env)
    assert "memory is too small" in told(done)
    assert train(f"resume={run}", "max_minutes=null").code == 0


def test_a_gpu_that_fails_in_the_run(train, workspace):
    done = train(*SHORT, AT="digits.engine.loop:Loop.after_step", CALL="3", RAISE=next(iter(STARTS)))
    assert "busy" in told(done, 1)
    assert "Traceback" in (the_run(workspace) / "train.log").read_text()


def test_each_process_tells_the_error_of_its_own_gpu(train_together, workspace):
    done = train_together(*SHORT, AT="torch.nn:Module.to", RAISE=MEMORY, ONLY="1")
    assert "Traceback" not in done.out, done.out
    assert "Rank 1: The GPU's memory is too small" in done.out
    assert "Another process has ended." in done.out
    assert not (workspace / "runs").exists()
