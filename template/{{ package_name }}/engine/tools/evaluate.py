"""`evaluate RUN`: the values of a split, and for classes the confusion matrix and a table."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..api import Context, Task
from ..build.content import fingerprint_of
from ..errors import UserError
from ..paths import shown, write_json
from ..setup import held_out
from ..text import align, number, say, tell
from ..validation import evaluate_split
from .folders import new_figure, save_figure, writing_to
from .open_run import Opened

_WHOLE = 200  # classes: the matrix of more of them is nearly empty, and its file is large


def evaluate_run(run: Opened, split: str, batch_size: int | None, out: Path) -> None:
    """Print the values, write evaluate-<split>.json and confusion-<split>.png. Raises `UserError`."""
    built, info = run.built, run.built.info
    loader = held_out(built, split, batch_size)
    if fingerprint_of(built.data, built.config)[0] != run.fingerprint:
        say(f"The data have changed since {run.checkpoint.name} was written.")
    if loader is None:
        raise UserError(f"{type(built.data).__name__} has no split '{split}'. Name another split.")
    with writing_to(out):
        pass  # report a folder that cannot be made before the work, not after it
    names = [str(n) for n in info.get("class_names") or range(info.get("classes", 0))]
    known = [str(n) for n in built.data.info.get("class_names") or names]
    if known != names:
        other = ", ".join(sorted({*names} ^ {*known})) or "their order"
        raise UserError(f"The data have other classes than the run: {other}.")
    pairs: list[tuple[str, str]] = []  # target and label of each sample

    def predict(batch: Any, ctx: Context) -> None:
        rows = run.predict_batch(batch, ctx, len(pairs))
        pairs.extend((str(row.get("target")), str(row.get("label"))) for row in rows)

    # Only the table of classes needs predictions. They may be slow, as generated text is.
    look = predict if names and type(built.task).predict_step is not Task.predict_step else None
    means = evaluate_split(built, built.model, loader, run.step, run.epoch, look=look)
    plan = loader.plan
    samples = min(plan.size, plan.steps * plan.batch_size)
    values = {f"{split}/{name}": value for name, value in means.items()}
    result = {**run.describe(), "split": split, "samples": samples, "values": values}
    counts = f"{samples:,} of {plan.size:,} samples of the {split} split"
    tell(f"{run.checkpoint.name}, step {run.step}, {counts}")
    tell(*align([[name, number(value)] for name, value in values.items()]))
    if pairs and set(chain(*pairs)) <= set(names):
        place = {name: i for i, name in enumerate(names)}
        matrix = np.zeros((len(names), len(names)), dtype=int)  # of targets × labels
        for target, label in pairs:
            matrix[place[target], place[label]] += 1
        scores = class_scores(matrix)
        result["classes"] = {
            name: {key: column[i].item() for key, column in scores.items()}
            for name, i in place.items()
        }
        result["class_names"] = names
        if len(names) <= _WHOLE:
            result["confusion"] = matrix.tolist()
        else:  # [target, predicted, samples], by the numbers of the classes
            cells = np.nonzero(matrix)
            result["confusion_counts"] = np.stack([*cells, matrix[cells]], axis=1).tolist()
        tell("", *class_table(scores, names))
        picture = out / f"confusion-{split}.png"
        draw_confusion(matrix, names, split, picture)
        tell("", f"The confusion matrix: {shown(picture)}")
    path = out / f"evaluate-{split}.json"
    with writing_to(out):
        write_json(path, result)
    tell(f"All results: {shown(path)}")


def class_scores(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall, F1 and support of each class. A row of the matrix is a target."""
    right, targets, labels = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": right / np.maximum(1, labels),
        "recall": right / np.maximum(1, targets),
        "f1": 2 * right / np.maximum(1, targets + labels),
        "support": targets,
    }


def class_table(scores: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
    """Return the lines of the table; the mean is over the classes that have samples."""
    *shares, support = scores.values()
    mean = ("mean", *(column[support > 0].mean() for column in shares), support.sum())
    table = [["class", *scores]]
    for name, *row, count in [*zip(names, *shares, support, strict=True), mean]:
        table.append([name, *(f"{share:.4f}" for share in row), str(count)])
    return align(table)


def draw_confusion(matrix: np.ndarray, names: list[str], split: str, path: Path) -> None:
    """Draw counts, int, shape [targets, labels]; the colours show shares of a row."""
    count = len(names)
    side = min(24.0, max(4.0, 1.5 + 0.4 * count))
    figure, (axes,) = new_figure(side, side)
    axes.grid(False)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= 50:  # names and counts of more classes would be unreadable
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, value, ha="center", va="center", color=colour, fontsize=7)
    axes.set(xlabel="predicted", ylabel="target", title=f"Confusion matrix, {split} split")
    save_figure(figure, path)
