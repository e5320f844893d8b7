"""GPUs and threads of trainings that run at the same time."""

import pytest

from tailmatch.command_line.studies.places import environment_at, environments
from tailmatch.datamodules.arguments import SettingsError

ONE, FOUR = {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "4"}


@pytest.mark.parametrize(
    ("jobs", "threads", "gpus", "expected"),
    [
        (None, None, 0, [{}]),  # one training on all cores
        (None, 2, 0, [{"OMP_NUM_THREADS": "2"}] * 4),
        (4, None, 0, [{"OMP_NUM_THREADS": "2"}] * 4),
        (None, None, 1, [{}]),
        (None, None, 2, [{"CUDA_VISIBLE_DEVICES": "5", **FOUR}, {"CUDA_VISIBLE_DEVICES": "6", **FOUR}]),
        (1, None, 2, [{}]),  # all GPUs for one training
        (2, 1, 3, [{"CUDA_VISIBLE_DEVICES": "5,7", **ONE}, {"CUDA_VISIBLE_DEVICES": "6", **ONE}]),
        (3, 1, 2, [{"CUDA_VISIBLE_DEVICES": gpu, **ONE} for gpu in "565"]),
    ],
)
def test_the_devices_are_divided(
    jobs: int | None, threads: int | None, gpus: int, expected: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    places = environments(jobs, threads, ["5", "6", "7"][:gpus], 8)
    assert [{name: value for name, value in place.items() if name != "MPLBACKEND"} for place in places] == expected


def test_a_number_of_threads_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert all("OMP_NUM_THREADS" not in place for place in environments(4, None, [], 8))
    with pytest.raises(SettingsError, match="--jobs is 0; it must be at least 1"):
        environments(0, None, [], 8)


def test_a_training_is_none_of_the_tasks_that_slurm_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else Lightning would wait for the others: `srun -n 2 tailmatch sweep` starts two, which share the cells."""
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    found = environment_at(ONE)
    assert found["OMP_NUM_THREADS"] == "1" and found["SLURM_JOB_ID"] == "7"
    assert not {"SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"} & found.keys()
