"""Metrics, probes, classical estimates, plots and reports. Plots load matplotlib: import what you need."""

__all__ = []
