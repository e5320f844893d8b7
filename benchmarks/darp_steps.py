"""Count the evaluations of DARP's solver without the parts of its step that are not Newton's method.

    python -m benchmarks.darp_steps [--problems 400] [--rows 200]

The problems are the random ones of the tests (`random_problem`): 2 to 200 classes, one-hot to uniform predictions,
priors of 1:1 to 1:1000. Each is solved cold, and again from the prices that were found after every twentieth row was
sharpened. The line of a variant has the number of problems that do not converge, and the
median, the largest and the sum of the evaluations, cold and warm.
"""

import argparse
import statistics
from contextlib import nullcontext
from unittest.mock import patch

import torch

from benchmarks.darp_solver import change_some
from tailmatch.callbacks.remedies.darp import dual, solver
from tests.callbacks.remedies.darp.test_solver import random_problem

VARIANTS = {
    "as implemented": nullcontext(),
    "without the limit of a step": patch.object(solver, "moved", lambda problem, state, step: state.nu + step),
    "Newton's right-hand side": patch.object(
        dual, "wanted_losses", lambda problem, state: state.totals - problem.target
    ),
}
"""Name to the replacement of a function of the solver."""


def counted(problems: int, rows: int) -> tuple[int, list[int], list[int]]:
    """Solve the problems; return how many do not converge, and the evaluations of each, cold and warm."""
    unsolved, cold, warm = 0, [], []
    for seed in range(problems):
        probs, target = random_problem(seed, rows)
        first = solver.Solver().solve(probs, target)
        unsolved += not first.converged
        cold.append(first.iterations)
        change_some(probs)
        warm.append(solver.Solver().solve(probs, target, first.nu).iterations)
    return unsolved, cold, warm


def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=400, help="number of problems (default: 400)")
    parser.add_argument("--rows", type=int, default=200, help="rows of each problem (default: 200)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name, variant in VARIANTS.items():
        with variant:
            unsolved, *counts = counted(asked.problems, asked.rows)
        shown = "; ".join(f"{statistics.median(c):g}, {max(c)}, {sum(c)}" for c in counts)
        print(f"{name}: {unsolved} of {asked.problems} do not converge; cold and warm: {shown}", flush=True)


if __name__ == "__main__":
    main()
