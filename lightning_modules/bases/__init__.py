"""Base classes of the methods: training, evaluation, and the pseudo-label stage."""
