"""`parallel=fsdp` and `hsdp`: parameters, gradients and optimizer state divided among processes.

FSDP2 turns parameters into DTensors. All else takes `local` parts, or `whole` tensors.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..config.schema import Config
from ..errors import UserError
from .distributed import LOCAL_WORLD_SIZE, WORLD_SIZE, from_all


def is_sharded(config: Config) -> bool:
    """Whether this process trains with divided parameters. The verbs read a run with whole ones."""
    return config.parallel != "ddp" and WORLD_SIZE > 1


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a whole tensor from the parts of all processes. All must call it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def refuse_unfit(config: Config) -> None:
    """Refuse what cannot work with divided parameters. Raises `UserError`."""
    if config.parallel == "ddp":
        return
    wrong = {
        "precision=fp16": config.precision == "fp16",
        "channels_last=true": config.channels_last,
        f"compile={config.compile}": config.compile != "false",
        "log.histograms": config.log.histograms is not None,
        "dry_run=true": config.dry_run,
        "virtual_ranks": config.virtual_ranks is not None,
    }
    if WORLD_SIZE == 1:
        raise UserError(
            f"parallel={config.parallel} divides a model among processes, but there is one. Start it "
            "with torchrun, or set parallel=ddp."
        )
    if WORLD_SIZE % LOCAL_WORLD_SIZE or len(set(from_all(LOCAL_WORLD_SIZE))) > 1:
        raise UserError(f"parallel={config.parallel} needs as many processes on each host.")
    for what in filter(wrong.get, wrong):
        raise UserError(f"parallel={config.parallel} does not work with {what}. Leave one out.")


@cache
def mesh_of(parallel: str, device_type: str) -> Any:
    """Return the mesh of processes. hsdp: a row for each host, which holds a whole model."""
    from torch.distributed.device_mesh import init_device_mesh

    hosts = WORLD_SIZE // LOCAL_WORLD_SIZE
    if parallel == "hsdp" and hosts > 1:
        names = ("replicate", "shard")
        return init_device_mesh(device_type, (hosts, LOCAL_WORLD_SIZE), mesh_dim_names=names)
    return init_device_mesh(device_type, (WORLD_SIZE,), mesh_dim_names=("shard",))


def shard(
    config: Config, model: nn.Module, loss: nn.Module, device: torch.device, precision: str
) -> nn.Module | None:
    """Divide the parameters of model and loss, in place. Return a divided copy of the model for
    `ema_decay`. Raises `UserError`."""
    if not is_sharded(config):
        return None
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    name = config.parallel
    held = Counter(id(p) for module in (model, loss) for p in set(module.parameters()))
    if held and max(held.values()) > 1:
        raise UserError(f"parallel={name} does not work with weights that loss and model share.")
    twin = None if config.ema_decay is None else copy.deepcopy(model)
    mesh = mesh_of(name, device.type)
    policy = MixedPrecisionPolicy()
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for module in filter(None, (model, twin)):
        for unit in (*blocks(module), module):
            fully_shard(unit, mesh=mesh, mp_policy=policy)
        module.register_forward_hook(_give_back)
        module.to(device)  # buffers
    if any(True for _ in loss.parameters()):
        fully_shard(loss, mesh=mesh, reshard_after_forward=True)
    return twin


def _give_back(module: Any, inputs: Any, outputs: Any) -> None:
    """Divide the root again after a forward pass without a backward pass. FSDP2 would leave it whole."""
    if not torch.is_grad_enabled():
        module.reshard()


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the outermost repeated modules: entries of a list or chain with another entry of the same
    class, and with modules of their own. Each is gathered when it computes. The root gathers a block
    that shares weights with others."""
    found: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        children = list(module.children())
        kinds = Counter(type(child) for child in children if any(child.children()))
        for child in children:
            is_listed = isinstance(module, nn.ModuleList | nn.Sequential | nn.ModuleDict)
            is_container = type(child) in (nn.ModuleList, nn.ModuleDict, nn.Sequential)
            if is_listed and not is_container and kinds[type(child)] > 1:
                found.append(child)
            else:
                search(child)

    search(model)
    places = Counter(id(p) for m in model.modules() for p in dict.fromkeys(m.parameters(False)))
    own = {block: [places[id(p)] for p in block.parameters()] for block in found}
    return [block for block, counts in own.items() if counts and max(counts) == 1]


def staged(tensor: Tensor, copied: Tensor) -> Tensor:
    """Return `copied`, which holds the local part of `tensor` on the CPU, as such a part."""
    if not hasattr(tensor, "to_local"):
        return copied
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    mesh = mesh_of("hsdp" if tensor.device_mesh.ndim > 1 else "fsdp", "cpu")
    return DTensor.from_local(
        copied, mesh, tensor.placements, shape=tensor.shape, stride=tensor.stride()
    )


def divided(
    state: Mapping[str, Any], own: Mapping[str, Tensor], config: Config, device: torch.device
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint's state with this process's part of each tensor. Also return the tensors
    still to be read, by their names in the checkpoint.

    own: the tensors of the model, and those of the loss as "loss.<name>".
    """
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor, zeros

    mesh = mesh_of(config.parallel, device.type)
    unread: dict[str, Tensor] = {}
    replicated = [Replicate()] * mesh.ndim

    def part(tensor: Any, *place: str) -> Any:
        if not isinstance(tensor, Tensor):
            return tensor
        twin = own.get(f"loss.{place[1]}" if place[0] == "loss" else place[1])
        fits = isinstance(twin, DTensor) and twin.shape == tensor.shape
        if not tensor.is_meta and not fits and (place[0] != "optimizer" or tensor.ndim == 0):
            return tensor  # such as a buffer, or a count of steps
        # Such as a factored moment is whole in each process.
        placements = twin.placements if isinstance(twin, DTensor) and fits else replicated
        if not tensor.is_meta:
            return distribute_tensor(tensor.to(device), mesh, placements, src_data_rank=None)
        found = unread["/".join(place)] = zeros(
            tensor.shape, dtype=tensor.dtype, device_mesh=mesh, placements=placements
        )
        return found

    parts = {k: map_places(part, state[k], k) for k in ("model", "ema", "loss", "optimizer")}
    return {**state, **parts}, unread


def map_places(function: Callable[..., Any], value: Any, *place: str) -> Any:
    """Apply `function` to each value that is not a container, with the keys that lead to it. Return the
    results in plain dicts, lists and tuples."""
    if isinstance(value, Mapping):
        return {key: map_places(function, v, *place, str(key)) for key, v in value.items()}
    if isinstance(value, list | tuple):
        entries = (map_places(function, v, *place, str(n)) for n, v in enumerate(value))
        return (list if isinstance(value, list) else tuple)(entries)
    return function(value, *place)
