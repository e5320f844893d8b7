"""Class-imbalance remedies, reports and checkpoints as callbacks."""
