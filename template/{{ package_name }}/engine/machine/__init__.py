"""Devices, processes, and what torch does not promise."""
