"""Studies: many trainings that one file describes, run by `tailmatch sweep`."""
