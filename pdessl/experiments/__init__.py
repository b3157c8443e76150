"""Many models, seeds, labels and floors in one table, with what made them: comparisons, studies, the quickstart."""

__all__ = []
