"""Whether a smaller or a larger value of `monitor` is better. Without torch."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UserError
from .schema import Config

_SMALLER = """
    loss error err rmse rmsle mae mse msle mape smape nll bce ce kl ppl perplexity bpb bpc bpd epe wer
    cer fid kid lpips brier ece crps
"""
_LARGER = """
    acc accuracy precision recall sensitivity specificity f1 auc auroc auprc ap map iou miou jaccard
    dice kappa mcc r2 psnr ssim snr bleu rouge chrf ndcg mrr
"""
_USUAL = {w: mode for mode, text in (("min", _SMALLER), ("max", _LARGER)) for w in text.split()}
_TURNING = {"neg", "negative", "minus", "inv", "inverse", "gap", "drop", "std", "var", "diff"}


def usual_mode(monitor: str, loss: Mapping[str, Any]) -> str | None:
    """Return "min" or "max" if the name is a usual one, such as val/loss or val/class_acc.

    loss: the config's section. A term of `loss=terms` is a loss, whatever its name.
    """
    name = monitor.removeprefix("val/")
    if name in (loss.get("terms") or {}):
        return "min"
    words = re.findall("[a-z0-9]+", name.lower())
    found = {_USUAL.get(w) or _USUAL.get(w.rstrip("0123456789")) for w in words} - {None}
    found = found or {"max" for w in words if re.fullmatch("top[0-9]+", w)}  # else top5_error
    is_turned = _TURNING & {*words} or words[:1] == ["1"]  # as in 1-acc
    return found.pop() if len(found) == 1 and not is_turned else None


def refuse_doubtful_mode(config: Config, overrides: Iterable[str]) -> None:
    """Refuse a config file's mode that may not fit `monitor`, unless the command confirms it."""
    given = {override.lstrip("+").split("=")[0] for override in overrides}
    usual, mode = usual_mode(config.monitor, config.loss), config.monitor_mode
    if mode != usual and "monitor_mode" not in given and (usual or "monitor" in given):
        fits = f"{'does' if usual else 'may'} not fit monitor={config.monitor}"
        raise UserError(
            f"monitor_mode={mode} of a config file {fits}. Add monitor_mode=auto, min or max."
        )
