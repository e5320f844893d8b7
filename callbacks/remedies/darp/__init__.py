"""DARP: refinement of pseudo-labels to the class totals of the unlabeled set."""
