"""Callbacks that change pseudo-labels or logits."""
