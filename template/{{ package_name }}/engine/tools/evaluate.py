"""`evaluate RUN`: the values of a split, and for classes the confusion matrix and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import rng
from ..api import Context, Task
from ..errors import UserError, own_words
from ..machine.device import autocast
from ..paths import shown, write_json
from ..rng import Domain
from ..setup import held_out
from ..text import align, number
from ..validation import evaluate_split
from .folders import writing_to
from .open_run import Opened
from .plots import new_figure, save_figure


def evaluate(run: Opened, split: str, batch_size: int | None, out: Path) -> None:
    """Print the values, write evaluate-<split>.json and confusion-<split>.png. Raises `UserError`."""
    built = run.built
    loader = held_out(built, split, batch_size)
    if loader is None:
        raise UserError(f"{type(built.data).__name__} has no split '{split}'.")
    with writing_to(out):
        pass  # where that is impossible, it is told before the work is done
    rows: list[dict[str, Any]] = []
    # Only a table of classes is made of predictions, which may take long, as a generated text does.
    has_classes = "class_names" in built.data.info or "classes" in built.data.info
    predicts = has_classes and type(built.task).predict_step is not Task.predict_step
    key = rng.make_key(built.config.seed, Domain.PREDICTION)

    def predict(batch: Any, ctx: Context) -> None:
        rng.seed_all(rng.fold_in(key, len(rows)))
        with autocast(built.precision, built.device):
            rows.extend(built.task.predict_step(run.model, batch, ctx))

    try:
        values = evaluate_split(
            built, run.model, loader, run.step, run.epoch, look=predict if predicts else None
        )
    except UserError as error:  # perhaps a worker's
        raise UserError(own_words(error)) from error
    plan = loader.plan
    samples = min(plan.size, plan.steps * plan.batch_size)
    result: dict[str, Any] = {
        **run.describe(),
        "split": split,
        "samples": samples,
        "values": {f"{split}/{name}": value for name, value in values.items()},
    }
    print(f"{run.checkpoint.name}, step {run.step}, {samples:,} samples of the {split} split")
    if samples < plan.size:
        print(f"limit_val_batches leaves out {plan.size - samples:,} more.")
    print(*align([[name, number(value)] for name, value in result["values"].items()]), sep="\n")
    with writing_to(out):
        if rows and all("label" in row and "target" in row for row in rows):
            info = built.data.info
            names = [str(n) for n in info.get("class_names") or range(info.get("classes", 0))]
            result |= _classes(rows, names)
            print(f"\n{_class_table(result['classes'])}")
            picture = out / f"confusion-{split}.png"
            draw_confusion(np.array(result["confusion"]), names, split, picture)
            print(f"\nThe confusion matrix: {shown(picture)}")
        path = out / f"evaluate-{split}.json"
        write_json(path, result)
    print(f"All of it: {shown(path)}", flush=True)


def _classes(rows: Sequence[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Per class precision, recall, F1 and support; the matrix: rows are targets."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    targets, labels = ([row[key] for row in rows] for key in ("target", "label"))
    scores = precision_recall_fscore_support(targets, labels, labels=names, zero_division=0)
    keys = ("precision", "recall", "f1", "support")
    table = {
        name: {key: float(column[i]) for key, column in zip(keys, scores, strict=True)}
        for i, name in enumerate(names)
    }
    for values in table.values():
        values["support"] = int(values["support"])
    return {
        "classes": table,
        "class_names": names,
        "confusion": confusion_matrix(targets, labels, labels=names).tolist(),
    }


def _class_table(classes: dict[str, dict[str, float]]) -> str:
    head = ["class", "precision", "recall", "f1", "support"]
    body = [
        [name, *(f"{row[key]:.4f}" for key in head[1:4]), str(row["support"])]
        for name, row in classes.items()
    ]
    counted = [row for row in classes.values() if row["support"]]
    means = [sum(row[key] for row in counted) / len(counted) for key in head[1:4]]
    total = sum(row["support"] for row in counted)
    return "\n".join(align([head, *body, ["mean", *(f"{m:.4f}" for m in means), str(total)]]))


def draw_confusion(matrix: np.ndarray, names: list[str], split: str, path: Path) -> None:
    """Counts, int, shape [targets, labels]; colours are shares of a row."""
    count = len(names)
    side = min(24.0, max(4.0, 1.5 + 0.4 * count))
    figure, axes = new_figure(side, side)
    axes.grid(False)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= 50:  # names and counts of more would be unreadable
        axes.set_xticks(range(count), names, rotation=90)
        axes.set_yticks(range(count), names)
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, value, ha="center", va="center", color=colour, fontsize=7)
    axes.set(xlabel="predicted", ylabel="is", title=f"Confusion matrix, {split} split")
    save_figure(figure, path)
