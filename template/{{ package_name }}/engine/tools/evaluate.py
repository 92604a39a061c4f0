"""`evaluate RUN`: the values of a split, and for classes the confusion matrix and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..api import Context, Task
from ..errors import UserError
from ..paths import shown, write_json
from ..setup import held_out
from ..text import align, number, tell
from ..validation import evaluate_split
from .folders import new_figure, save_figure, writing_to
from .open_run import Opened


def evaluate_run(run: Opened, split: str, batch_size: int | None, out: Path) -> None:
    """Print the values, write evaluate-<split>.json and confusion-<split>.png. Raises `UserError`."""
    built, info = run.built, run.built.data.info
    loader = held_out(built, split, batch_size)
    if loader is None:
        raise UserError(f"{type(built.data).__name__} has no split '{split}'. Name another split.")
    with writing_to(out):
        pass  # report a folder that cannot be made before the work, not after it
    names = [str(n) for n in info.get("class_names") or range(info.get("classes", 0))]
    rows: list[dict[str, Any]] = []

    def predict(batch: Any, ctx: Context) -> None:
        for row in run.predict_batch(batch, ctx, len(rows)):  # rows hold a number for each class
            rows.append({key: row.get(key) for key in ("target", "label")})

    # Only the table of classes needs predictions. They may be slow, as generated text is.
    look = predict if names and type(built.task).predict_step is not Task.predict_step else None
    values = evaluate_split(built, built.model, loader, run.step, run.epoch, look=look)
    plan = loader.plan
    samples = min(plan.size, plan.steps * plan.batch_size)
    result = run.describe() | {"split": split, "samples": samples}
    result["values"] = {f"{split}/{name}": value for name, value in values.items()}
    counts = f"{samples:,} of {plan.size:,} samples of the {split} split"
    tell(f"{run.checkpoint.name}, step {run.step}, {counts}")
    tell(*align([[name, number(value)] for name, value in result["values"].items()]))
    known = set(names)
    if rows and all(str(row.get(key)) in known for row in rows for key in ("target", "label")):
        counted, matrix = count_classes(rows, names)
        result |= counted
        tell("", *class_table(result["classes"]))
        picture = out / f"confusion-{split}.png"
        draw_confusion(matrix, names, split, picture)
        tell("", f"The confusion matrix: {shown(picture)}")
    path = out / f"evaluate-{split}.json"
    with writing_to(out):
        write_json(path, result)
    tell(f"All results: {shown(path)}")


_WHOLE = 200  # classes: the matrix of more of them is nearly empty, and its file is large


def count_classes(
    rows: Sequence[Mapping[str, Any]], names: list[str]
) -> tuple[dict[str, Any], np.ndarray]:
    """Return precision, recall, F1 and support per class, and the matrix: a row is a target.

    The values hold the matrix as well: as `confusion`, or for many classes as `confusion_counts`,
    a list of [target, predicted, samples] by the numbers of the classes.
    """
    place = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), dtype=int)
    for row in rows:
        matrix[place[str(row["target"])], place[str(row["label"])]] += 1
    right, targets, labels = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    columns = {
        "precision": right / np.maximum(1, labels),
        "recall": right / np.maximum(1, targets),
        "f1": 2 * right / np.maximum(1, targets + labels),
        "support": targets,
    }
    classes = {
        name: {key: column[i].item() for key, column in columns.items()}
        for name, i in place.items()
    }
    values: dict[str, Any] = {"classes": classes, "class_names": names}
    if len(names) <= _WHOLE:
        values["confusion"] = matrix.tolist()
    else:
        cells = zip(*np.nonzero(matrix), strict=True)
        values["confusion_counts"] = [[int(a), int(b), int(matrix[a, b])] for a, b in cells]
    return values, matrix


def class_table(classes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the lines of the table; the mean is over the classes that have samples."""
    keys = ("precision", "recall", "f1")
    counted = [scores for scores in classes.values() if scores["support"]]
    mean = {key: sum(scores[key] for scores in counted) / len(counted) for key in keys}
    mean["support"] = sum(scores["support"] for scores in counted)
    table = [["class", *keys, "support"]]
    for name, scores in [*classes.items(), ("mean", mean)]:
        table.append([name, *(f"{scores[key]:.4f}" for key in keys), str(scores["support"])])
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
        axes.set_xticks(range(count), names, rotation=90)
        axes.set_yticks(range(count), names)
        for (row, column), value in np.ndenumerate(matrix):
            if value:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, value, ha="center", va="center", color=colour, fontsize=7)
    axes.set(xlabel="predicted", ylabel="target", title=f"Confusion matrix, {split} split")
    save_figure(figure, path)
