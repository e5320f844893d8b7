"""DARP: refine pseudo-labels so that their class totals are those of the unlabeled set.

`callback.py` has the public classes: `DARP` for methods that predict pseudo-labels in every step, `DARPRefinement` for
labels that are all made at once. Both own a `Solver` (`solver.py`), which removes noise (`noise.py`) and projects
(`dual.py`). `rows.py` has what these modules share.
"""
