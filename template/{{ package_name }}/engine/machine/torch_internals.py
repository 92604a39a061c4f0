"""Everything that uses a name which torch does not promise. No other file of the engine does.

Each use has its reason and a public path, which is taken if the private name is missing or changed.
Tried with torch 2.15. Earlier versions of this code were tried by hand with torch 2.6.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from itertools import repeat
from operator import attrgetter, is_not
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks

_is_allowed = True


def use_public_paths() -> None:
    """Do without all private names from now on. Results stay the same, bit for bit."""
    global _is_allowed
    _is_allowed = False


def _has(owner: object, *names: str) -> bool:
    return _is_allowed and all(hasattr(owner, name) for name in names)


# ---------------------------------------------------------------- many tensors in one call
# For a small network, a call for each tensor takes longer than the computation.


def for_each(method: str, tensors: list[Tensor], *arguments: Any) -> None:
    """Call an in-place method of each tensor. A list among the arguments has one for each."""
    tensors, arguments = _local(tensors), tuple(map(_local, arguments))
    if _has(torch, f"_foreach_{method}"):
        getattr(torch, f"_foreach_{method}")(tensors, *arguments)
        return
    for number, tensor in enumerate(tensors):
        own = (given[number] if isinstance(given, list) else given for given in arguments)
        getattr(tensor, method)(*own)


def look_for_not_finite(tensors: list[Tensor], found: Tensor, calls: Tensor) -> None:
    """Set the scalar `found` to 1 if a tensor holds an infinity or a NaN. Then, and from then on,
    add 1 to the scalar `calls`. All are on one device."""
    if tensors and hasattr(tensors[0], "to_local"):
        tensors = _local(tensors)
    kinds = set(map(_kind, tensors))
    name = "_amp_foreach_non_finite_check_and_unscale_"
    if kinds == {(torch.float32, torch.strided)} and _is_allowed and hasattr(torch, name):
        getattr(torch, name)(tensors, found, _one(found.device))  # times 1 changes no bit
    else:
        for tensor in tensors:
            dense = tensor.coalesce().values() if tensor.is_sparse else tensor
            found.logical_or_((~dense.isfinite()).any())
    calls.add_(found)


_kind = attrgetter("dtype", "layout")


def _local(value: Any) -> Any:
    """Return a list of divided tensors as their parts in this process, another value as it is."""
    is_divided = isinstance(value, list) and value and hasattr(value[0], "to_local")
    return [tensor.to_local() for tensor in value] if is_divided else value


@cache
def _one(device: torch.device) -> Tensor:
    return torch.ones((), device=device)


def split_rows(rows: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    """Cut a tensor into parts of so many rows. Each may be changed in place, unlike a view."""
    if _has(rows, "unsafe_split_with_sizes"):
        return rows.unsafe_split_with_sizes(sizes)
    return [part.clone() for part in rows.split(sizes)]


def version(tensor: Tensor) -> object:
    """A value that differs once the tensor was changed in place. Publicly, it always differs."""
    return tensor._version if _has(tensor, "_version") else object()


# ---------------------------------------------------------------- starts without the compiler
# Importing torch's compiler takes 2.5 s. With compile=false nothing uses it.


def set_deterministic(strict: bool, warn_only: bool, compiles: bool) -> None:
    """Like `torch.use_deterministic_algorithms`, which imports the compiler to inform it."""
    if not compiles and _has(torch._C, "_set_deterministic_algorithms"):
        torch._C._set_deterministic_algorithms(strict, warn_only=warn_only)
    else:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)


def leave_compiler_out() -> None:
    """Mark methods of optimizers as not to be compiled: torch imports its compiler to do that."""
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if _is_allowed and plain is not None and not hasattr(plain, "__dynamo_disable"):
            setattr(plain, "__dynamo_disable", plain)


# ---------------------------------------------------------------- optimizers with a short step
# For a small network, what torch does around Adam's fused kernel takes longer than the kernel.


_ONE = torch.ones((), device="cpu")  # adding a Python number creates a tensor at every step


def short_class(kind: Any) -> Any:
    """Return the class to build instead of `kind`: one with a short step, or `kind` itself."""
    if kind is SGD and _collects(SGD, "self group params grads momentum_buffer_list"):
        return ShortSGD
    if kind in (Adam, AdamW) and _knows_adam():
        kind([torch.zeros(1)])  # torch makes a class call hooks when the first of it is built
        return ShortAdam if kind is Adam else ShortAdamW
    return kind


def _knows_adam() -> bool:
    """Whether torch's Adam, its kernels and its hooks are those that `ShortAdam` builds on."""
    kernels = ("_fused_adam_", "_fused_adamw_")
    lists = "grads exp_avgs exp_avg_sqs max_exp_avg_sqs state_steps"
    if not (
        issubclass(AdamW, Adam)
        and _collects(Adam, f"self group params_with_grad {lists}")
        and _has(torch, *kernels)
        and _has(hooks, "_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
    ):
        return False
    names = f"self {lists} lr beta1 beta2 weight_decay eps amsgrad maximize".split()
    schemas = [getattr(torch.ops.aten, kernel).default._schema for kernel in kernels]
    return all(
        [a.name for a in schema.arguments if not a.has_default_value()] == names
        for schema in schemas
    )


def _collects(kind: Any, names: str) -> bool:
    """Whether an optimizer class collects the tensors of a parameter group under these names."""
    has = _has(kind, "_init_group")
    return has and list(inspect.signature(kind._init_group).parameters) == names.split()


class _Lists(NamedTuple):
    """What the kernel takes of a parameter group besides its gradients."""

    params: list[Tensor]
    averages: list[Tensor]
    squares: list[Tensor]
    counts: list[Tensor]
    """The step count of each parameter, a view of an element of `all_counts`."""
    all_counts: Tensor  # one addition counts for all


class ShortAdam(Adam):
    """`Adam(fused=True)`, bit for bit: calls the same kernel with lists kept between steps.

    If the options ask for more, it takes torch's own step. A new state makes it collect lists anew.
    """

    _kernel: Any = getattr(torch, "_fused_adam_", None)  # a built-in function, so it is not bound
    _kept: list[_Lists | None] | None = None
    """One entry for each group, None if one of its parameters had no gradient. Empty if the options
    ask for torch's own step."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if (
            closure is not None
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or hooks._global_optimizer_pre_hooks
            or hooks._global_optimizer_post_hooks
            or getattr(self, "grad_scale", None) is not None  # of fp16
            or getattr(self, "found_inf", None) is not None
        ):
            self._kept = None  # a hook may change the state and the options
            return super().step(closure)
        if self._kept is None:
            self._kept = [None] * len(self.param_groups) if _can_be_short(self) else []
        if not self._kept:
            return super().step()
        with torch.no_grad():
            for number, group in enumerate(self.param_groups):
                grads: list[Any] = [parameter.grad for parameter in group["params"]]
                lists = self._kept[number]
                if (
                    lists is None
                    or not all(map(is_not, grads, repeat(None)))
                    or lists.counts[0] is not self.state[lists.params[0]].get("step")
                ):
                    grads = [grad for grad in grads if grad is not None]
                    if not grads:
                        continue
                    lists = self._collect(group)
                    self._kept[number] = lists if len(grads) == len(group["params"]) else None
                beta1, beta2 = group["betas"]
                lists.all_counts.add_(_ONE)
                self._kernel(
                    lists.params,
                    grads,
                    lists.averages,
                    lists.squares,
                    [],
                    lists.counts,
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=group["maximize"],
                )
        return None

    # Says that hooks are called. Otherwise torch would wrap this method and call them twice.
    step.hooked = True  # type: ignore[attr-defined]

    def _collect(self, group: dict[str, Any]) -> _Lists:
        """Collect what belongs to the parameters that have gradients."""
        lists: list[list[Tensor]] = [[] for _ in range(6)]
        self._init_group(group, *lists)
        params, _, averages, squares, _, counts = lists
        all_counts = torch.stack([count.reshape(()) for count in counts])
        counts = list(all_counts.unbind())
        for parameter, count in zip(params, counts, strict=True):
            self.state[parameter]["step"] = count
        return _Lists(params, averages, squares, counts, all_counts)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._kept = None
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._kept = None
        super().load_state_dict(state_dict)


class ShortAdamW(ShortAdam, AdamW):
    """`AdamW(fused=True)`, bit for bit."""

    _kernel = getattr(torch, "_fused_adamw_", None)


class ShortSGD(SGD):
    """`SGD`, bit for bit. Its step does not import torch's compiler to tell it not to compile."""

    _plain_step = staticmethod(inspect.unwrap(SGD.step))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            if hasattr(group["params"][0], "to_local"):
                group["fused"] = False  # this kernel takes no divided tensors
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return self._plain_step(self, closure)

    def _init_group(self, group: dict[str, Any], params: Any, grads: Any, momenta: Any) -> bool:
        is_sparse: bool = super()._init_group(group, params, grads, momenta)
        if getattr(self, "found_inf", None) is not None and not group["dampening"]:
            # If fp16's scale is too large for the first step, torch leaves momenta uninitialised.
            for number, parameter in enumerate(params):
                if momenta[number] is None:
                    momenta[number] = torch.zeros_like(parameter)
        return is_sparse


def _can_be_short(optimizer: Optimizer) -> bool:
    """Whether the options of all groups are those of the kernel, without torch's special cases."""
    return all(
        group["fused"] is True
        and not group["amsgrad"]
        and group.get("decoupled_weight_decay") is isinstance(optimizer, AdamW)
        and not isinstance(group["lr"], Tensor)
        and len({(p.device, p.dtype) for p in group["params"]}) == 1
        for group in optimizer.param_groups
    )
