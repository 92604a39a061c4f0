"""What a GPU lacks is told in a sentence, with torch's own errors: memory, other GPUs, kernels, a driver."""

import pytest
from helpers import snippets, stand_in
from helpers.forkserver import free_port
from helpers.runs import the_run

pytestmark = pytest.mark.xdist_group("gpu")
SHORT = ("max_steps=6", "workers=0", "val_every_epochs=0", "model=mlp", "model.hidden=[2048,2048]")
PLACES = {
    "the model is built": ("digits.engine.models.mlp:MLP.__init__", ()),
    "the model moves": ("digits.engine.setup.move_model", ()),
    "the loss moves": ("digits.large:LargeLoss._apply", ("loss=.large.LargeLoss",)),
    "the averages": ("digits.engine.build.averaged:Averaged.__init__", ("ema_decay=0.9",)),
    "the first batch": ("digits.engine.build.first_batch.check_one_batch", ()),
    "the optimizer's trial": ("digits.engine.build.optimizer_state._train", ()),
}


@pytest.fixture
def workspace(workspace):
    snippets.add(workspace, "digits/large.py")
    return workspace


def told(done, code=2):
    assert done.code == code, done.out
    assert "Traceback" not in done.out, done.out
    return done.last


@pytest.mark.parametrize("place", PLACES)
def test_memory_before_the_run(gpu_train, workspace, place):
    at, overrides = PLACES[place]
    done = gpu_train(*SHORT, *overrides, AT=at)
    assert "memory is too small" in told(done)
    assert done.out.count("\n") == 1, done.out
    assert not (workspace / "runs").exists()


def test_memory_in_the_run(gpu_train, workspace):
    repeats = ("deterministic=warn", "precision=fp32")  # values of memory that is used again differ
    done = gpu_train(*SHORT, *repeats, AT="digits.engine.loop:Loop.after_step", CALL="3")
    assert "memory is too small for batch_size=64" in told(done, 1)
    assert "memory is too small" in (the_run(workspace) / "train.log").read_text()


def test_data_that_do_not_fit(gpu_train, workspace):
    done = gpu_train("data=synthetic", "data.size=2000", "data_on_device=true", AT="digits.engine.setup.on_device")
    assert "The data do not fit on the GPU. Set data_on_device=false." in told(done)
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("cudaSetDevice 46", "busy or does not start"),
        ("cudaMalloc 46", "busy or does not start"),
        ("cudaLaunchKernel 209", "do not fit together"),
        ("cudaGetDeviceCount 35", "has 0 usable GPUs"),
        ("cudaGetDeviceCount 999", "has 0 usable GPUs"),
    ],
)
def test_a_gpu_that_does_not_start(gpu_train, workspace, error, sentence):
    assert sentence in told(gpu_train(*SHORT, STAND_IN_ERROR=error))
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(("processes", "gpus"), [(2, 1), (3, 2)])
def test_more_processes_than_gpus(gpu_server, workspace, processes, gpus):
    command = (workspace / "train.py", "device=cuda", *SHORT)
    done = gpu_server.run_together(*command, processes=processes, STAND_IN_GPUS=str(gpus))
    told(done)
    assert done.out.count(f"This machine has {gpus} usable GPUs for {processes} processes.") == processes
    assert not (workspace / "runs").exists()


@pytest.mark.parametrize(
    ("device", "sentence"), [("cuda", "Each needs its own, on every host."), ("auto", "a GPU on some hosts only")]
)
def test_a_host_without_a_gpu(gpu_server, workspace, device, sentence):
    """Two hosts of one process each. NCCL would wait for the second one."""
    hosts = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    commands = [
        gpu_server.start(
            workspace / "train.py", f"device={device}", *SHORT, RANK=rank, LOCAL_RANK="0", STAND_IN_GPUS=gpus, **hosts
        )
        for rank, gpus in (("0", "1"), ("1", "0"))
    ]
    for done in [command.result() for command in commands]:
        assert sentence in told(done)
        assert not (workspace / "runs").exists()


def test_a_second_gpu(gpu_train, workspace):
    done = gpu_train(*SHORT, "device=cuda:1", STAND_IN_GPUS="2", **stand_in.ZEROS)
    assert done.code == 0, done.out
    assert "on cuda:1 in bf16" in done.out
    assert "has 2 usable GPUs" in told(gpu_train(*SHORT, "device=cuda:2", STAND_IN_GPUS="2"))


def test_an_operation_without_a_deterministic_kernel(gpu_train, workspace):
    model = ("model=.large.Pooled", "max_steps=2", "workers=0")
    said = told(gpu_train(*model, **stand_in.ZEROS))
    assert "adaptive_avg_pool2d_backward_cuda" in said
    assert "deterministic=warn" in said
    assert not (workspace / "runs").exists()
    done = gpu_train(*model, "deterministic=warn", **stand_in.ZEROS)
    assert done.code == 0, done.out
