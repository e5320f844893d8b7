"""What every method stands on: training, evaluation, the pseudo-label stage."""
