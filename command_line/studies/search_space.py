"""The part of a study that searches: parameters with their ranges, instead of axes with their levels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tailmatch.datamodules.arguments import SettingsError

if TYPE_CHECKING:
    import optuna

KEYS = ("trials", "parameters", "metric", "minimize", "prune")

LARGEST = 1e100
"""Numbers of ranges are smaller than this, in absolute value: Optuna computes with their differences as floats."""

OF_RANGE = ("low", "high", "log")


@dataclass(frozen=True)
class Parameter:
    """An option that is searched: in a range, or among values.

    Attributes:
        low: The least value; None if there are `values`.
        high: The greatest value, included.
        log: Whether the logarithm is drawn uniformly.
        values: The values; empty for a range.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    values: tuple[Any, ...] = ()

    @classmethod
    def read(cls, content: Any, name: str) -> "Parameter":
        """Read `{low: 1, high: 8}` or `{values: [a, b]}`.

        Raises:
            SettingsError: It is neither, or the range is empty.
        """
        if isinstance(content, dict) and content.keys() == {"values"}:
            values = content["values"]
            if not isinstance(values, list) or not values or not all(_is_plain(value) for value in values):
                raise SettingsError(f"{name}: values is {values!r:.60}; it must be a list of plain values")
            return cls(values=tuple(values))
        if not isinstance(content, dict) or not {"low", "high"} <= content.keys() <= set(OF_RANGE):
            raise SettingsError(
                f"{name} is {content!r:.60}; it must be {{low: 0.01, high: 1, log: true}} or {{values: [1, 2]}}"
            )
        low, high, log = content["low"], content["high"], content.get("log", False)
        if not all(type(each) in (int, float) and abs(each) < LARGEST for each in (low, high)) or not low < high:
            raise SettingsError(
                f"{name}: low is {low!r:.60} and high {high!r:.60}; they must be numbers, low below high"
            )
        if not isinstance(log, bool) or (log and low <= 0):
            raise SettingsError(f"{name}: log is {log!r} and low {low!r}; a logarithm needs a low above 0")
        return cls(low, high, log)

    def example(self) -> Any:
        """Return the first value, or the lower end of the range."""
        return self.values[0] if self.low is None else self.low

    def suggest(self, trial: "optuna.Trial", name: str) -> Any:
        """Draw a value; a range between two integers has integers."""
        if self.low is None or self.high is None:
            return trial.suggest_categorical(name, self.values)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class SearchSpace:
    """What a study searches.

    Attributes:
        trials: The number of trainings, pruned ones included.
        parameters: The options by name.
        metric: The column of `metrics.csv` that is optimized; the best validation of a training counts.
        minimize: Whether smaller is better.
        prune: Whether a training is ended that is worse than the median of the others at the same step.
    """

    trials: int
    parameters: Mapping[str, Parameter]
    metric: str = "val/balanced_accuracy"
    minimize: bool = False
    prune: bool = True

    @classmethod
    def read(cls, content: Any, name: str) -> "SearchSpace":
        """Read the part `search` of a study.

        Raises:
            SettingsError: A key is unknown or missing, or a value is out of its domain.
        """
        if not isinstance(content, dict) or not {"trials", "parameters"} <= content.keys() <= set(KEYS):
            raise SettingsError(f"{name} must have trials and parameters, and may have {', '.join(KEYS[2:])}")
        trials, parameters = content["trials"], content["parameters"]
        if type(trials) is not int or trials < 1:
            raise SettingsError(f"{name}: trials is {trials!r}; it must be an integer above 0")
        if not isinstance(parameters, dict) or not parameters:
            raise SettingsError(
                f"{name}: parameters is {parameters!r:.60}; it must name options, such as model.optimizer.lr"
            )
        for key in ("minimize", "prune"):
            if not isinstance(content.get(key, False), bool):
                raise SettingsError(f"{name}: {key} is {content[key]!r}; it must be true or false")
        if not isinstance(content.get("metric", ""), str):
            raise SettingsError(f"{name}: metric is {content['metric']!r}; it must be a column of metrics.csv")
        read = {str(key): Parameter.read(value, f"{name}, {key}") for key, value in parameters.items()}
        return cls(**{**content, "parameters": read})


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
