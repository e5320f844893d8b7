"""Operations on pseudo-labels: alignment, selection, relabeling."""
