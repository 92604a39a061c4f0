"""Predict the next value of a wave."""

__version__ = "1.2.0"
