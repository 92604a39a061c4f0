"""The fit as a picture."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from .parabola import parabola


def draw_fit(model: nn.Module, points: tuple[Tensor, Tensor], device: torch.device) -> Figure:
    """Draw the training points, the true curve and the model's curve."""
    x = torch.linspace(-1.2, 1.2, 121).view(-1, 1)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*points, ".", color="grey", label="points")
    axes.plot(x, parabola(x), "--", label="3x² + 2")
    axes.plot(x, model(x.to(device)).float().cpu(), label="model")
    axes.set(xlabel="x", ylabel="y")
    axes.legend()
    return figure
