"""Figures with names that matplotlib would take for formulas."""

import numpy as np
from PIL import Image


def test_a_confusion_matrix_with_any_names(engine, tmp_path):
    names = ["price in $", r"$\frac{$", r"a_b^c$\nope$", "猫"]
    engine("tools.evaluate").draw_confusion(np.eye(4, dtype=int), names, "val", tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as file:
        assert min(file.size) > 200


def test_a_run_with_any_name(train, workspace):
    name = r"price $\nope$".replace("\\", "")
    assert train(f"name='{name} $_$'", "model=mlp", "epochs=1", "logger=none", "log.curves=true").code == 0
    (run,) = (workspace / "runs" / f"{name} $_$").iterdir()
    assert (run / "curves.png").exists()
