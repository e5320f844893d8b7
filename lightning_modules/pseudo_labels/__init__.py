"""What happens to pseudo-labels: alignment, selection, relabeling."""
