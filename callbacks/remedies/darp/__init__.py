"""DARP: pseudo-labels are moved to the class totals of the unlabeled set.

`callback.py` has what users name: `DARP` for methods that predict pseudo-labels in every step, `DARPRefinement` for
labels that are made at one time. Both own a `Solver` (`solver.py`), which removes noise (`noise.py`) and projects
(`dual.py`); `rows.py` has what these share.
"""
