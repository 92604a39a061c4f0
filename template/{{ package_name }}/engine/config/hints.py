"""What other tools call a key, a flag or a choice, and how to write it here. Without torch."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from ..errors import UserError, nearest
from ..paths import CONFIGS
from .schema import FIELDS, GROUPS, RULES

_WORDS = {
    "lr": "learning_rate lrate base_lr",
    "epochs": "max_epochs num_epochs n_epochs num_train_epochs",
    "max_steps": "max_iters num_steps total_steps iterations train_steps",
    "batch_size": "bs batch batchsize train_batch_size per_device_train_batch_size",
    "workers": "num_workers n_workers dataloader_num_workers",
    "accumulate": "accumulate_grad_batches gradient_accumulation_steps accum_steps",
    "clip_grad_norm": "gradient_clip_val max_grad_norm grad_clip clip_grad",
    "ema_decay": "ema model_ema",
    "precision": "amp use_amp fp16 bf16 mixed_precision",
    "early_stopping_patience": "patience early_stopping early_stop",
    "seed": "random_seed manual_seed",
    "name": "run_name exp_name experiment_name",
    "dry_run": "fast_dev_run",
    "log.every": "log_every_n_steps log_interval logging_steps print_freq",
    "val_every_steps": "val_check_interval eval_steps eval_every eval_interval",
    "val_every_epochs": "check_val_every_n_epoch",
    "save_every_steps": "save_steps save_every save_interval",
    "keep_last": "save_top_k save_total_limit",
    "optimizer": "opt optim",
    "model": "arch network",
    "data": "dataset datamodule",
    "loss": "criterion loss_fn",
    "scheduler": "sched lr_scheduler lr_schedule",
    "resume=RUN goes on with a run. init_from=FILE starts a new run from weights.": (
        "ckpt_path checkpoint checkpoint_path ckpt resume_from_checkpoint resume_from"
    ),
    "device=cuda takes one GPU. For several: torchrun --nproc-per-node=2 train.py KEY=VALUE.": (
        "gpu gpus num_gpus devices accelerator strategy nproc_per_node"
    ),
    "Runs are kept in runs/NAME/: write name=NAME.": (
        "output_dir out_dir log_dir logdir save_dir work_dir default_root_dir"
    ),
    "Put these keys into configs/experiment/NAME.yaml and write experiment=NAME.": (
        "config config_file cfg_file"
    ),
}
_MEANT = {word: meant for meant, words in _WORDS.items() for word in words.split()}
"""For each word of another tool, the key here or a sentence."""

_EMPTY = {"logger": "none", "mix": "none", "scheduler": "constant"}
"""The choice that stands for none."""

_OF_TORCH = {
    "optimizer": ("torch.optim", "RMSprop"),
    "scheduler": ("torch.optim.lr_scheduler", "CosineAnnealingLR"),
    "loss": ("torch.nn", "MSELoss"),
}
"""Where torch has more choices, and an example."""


def hint(key: str, known: Collection[str], target: str = "") -> str:
    """Return a sentence after a space that leads from an unknown key to a right one, or "".

    known: the keys of the top level, or the arguments that the `target` of a group's section takes.
    """
    place, _, name = key.rpartition(".")
    group, word = key.partition(".")[0], _word(name)
    meant = _MEANT.get(word, word if word in FIELDS else "")
    owners = _choices_with(f"{name}:")
    beside = [k.removeprefix(f"{place}.") for k in known if k.startswith(f"{place}.")]
    beside = beside if group not in GROUPS else list(known)
    near = difflib.get_close_matches(name, beside, n=1, cutoff=0.65)
    if group in GROUPS:
        own = [f"{group}={choice}" for g, choice in owners if g == group == place][:3]
        if own and not _choices_with(f"_target_: {target}"):
            return f" It is a key of {', '.join(own)}. {group}={target} starts without such keys."
        if own:
            return f" It is a key of {', '.join(own)}."
        if near:
            return f" Did you mean '{place}.{near[0]}'?"
        return f" Did you mean '{meant}'?" if meant in {*FIELDS} - {*GROUPS} else ""
    if meant:
        return f" Did you mean '{meant}'?" if meant in RULES else f" {meant}"
    if owners:
        return f" Did you mean '{owners[0][0]}.{name}'?"
    if near:
        return f" Did you mean '{place}.{near[0]}'?"
    if group == "vars":
        return " Add it below vars in configs/train.yaml."
    return "" if beside else nearest(key, known)


def _word(text: str) -> str:
    return text.lower().replace("-", "_")


def _choices_with(start: str) -> list[tuple[str, str]]:
    """Return the (group, choice) of each file in configs/ that has a line with this start."""
    line = re.compile(rf"^{re.escape(start)}", re.MULTILINE)
    files = [path for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]
    return [(p.parent.name, p.stem) for p in files if line.search(p.read_text(encoding="utf-8"))]


def refuse_other_spellings(arguments: Sequence[str]) -> None:
    """Refuse `--epochs 2`, `-lr=0.1` and `epochs 2`, and say how to write them. Raises `UserError`."""
    before = ""
    for word, after in zip(arguments, [*arguments, ""][1:], strict=True):
        is_flag, (name, equals, value) = word.startswith("-"), word.lstrip("-").partition("=")
        meant = _MEANT.get(_word(name), _word(name))
        is_key = meant in RULES or meant.split(".")[0] in (*GROUPS, "experiment")
        if (is_flag or not (equals or before.startswith("-"))) and (is_key or meant.endswith(".")):
            if not equals:
                is_switch = meant in FIELDS and FIELDS[meant].type == "bool"
                is_value = after != "" and after[0] != "-" and "=" not in after
                value = after if is_value else "true" if is_switch else "VALUE"
            said = f"Unknown flag '{word}'" if is_flag else f"'{word}' is not an override"
            raise UserError(f"{said}. {f'Write {meant}={value}.' if is_key else meant}")
        before = word


def accept(arguments: Iterable[str]) -> list[str]:
    """Return overrides as Hydra takes them: `logger=null` as the choice for none, and a class in
    place of a choice, `scheduler=.schedules.Sawtooth`, as the `_target_` of an empty section."""
    accepted: list[str] = []
    for argument in arguments:
        group, _, choice = argument.partition("=")
        is_file = group in GROUPS and choice in _choices(group)
        if group in _EMPTY and choice in ("null", "none") and not is_file:
            accepted.append(f"{group}={_EMPTY[group]}")
        elif group in GROUPS and re.fullmatch(r"[\w.]*\.[^\W\d]\w*", choice) and not is_file:
            has_wrapper = choice.startswith("torch.") and (CONFIGS / group / "torch.yaml").is_file()
            own = [f"{group}={'torch' if has_wrapper else 'named'}"] * (CONFIGS / group).is_dir()
            accepted += [*own, f"{group}._target_={choice}"]
        else:
            accepted.append(argument)
    return accepted


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def unknown_choice(group: str, choice: str) -> str:
    """Return the message for a choice that has no file in configs/`group`."""
    choices = _choices(group)
    if not choices:
        return f"configs/{group}/{choice}.yaml does not exist."
    within = [c for c in choices if len(c) > 2 and c.replace("_", "") in choice.lower()]
    near = f" Did you mean '{max(within, key=len)}'?" if within else nearest(choice, choices)
    sentence = f"There is no {group} '{choice}'.{near}"
    for wrapper in ("torchvision", "timm"):
        if group == "model" and wrapper in choices:
            sentence += f" Any model of {wrapper}: model={wrapper} model.name={choice}."
    if "." in choice:  # a class, among the values of a sweep
        sentence += f" In a sweep, name files of configs/{group}/, not classes."
    elif group in _OF_TORCH:
        module, example = _OF_TORCH[group]
        name = choice if choice[:1].isupper() else example
        sentence += f" Any {group} of torch by its class: {group}={module}.{name}."
    return f"{sentence} Choices: {', '.join(choices)}."
