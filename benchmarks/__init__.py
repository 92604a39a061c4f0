"""What the rendered projects cost, measured side by side: `python -m benchmarks [NAME …]`."""
