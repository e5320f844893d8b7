"""Generations as CReST's: each trains on pseudo-labels of the one before, also if it is killed in the middle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from tailmatch.command_line.studies.cells import cells_of
from tailmatch.command_line.studies.reading import read_study, study_file
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tests.contract import assert_same
from tests.kills import KILLED, Moment, killed_at, outlive
from tests.typed import tailmatch

SMALL = {
    "data": {
        "class_path": "Digits",
        "init_args": {
            "class_counts": {"class_path": "DARPCounts", "init_args": {"labeled_max": 12, "unlabeled_max": 60}},
            "image_size": 8,
            "labeled_batch_size": 6,
            "unlabeled_ratio": 2,
            "steps_per_epoch": 3,
        },
    },
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
    "options": {"model.network": "CifarResNet", "model.network.depth": 8, "checkpoint.last_every_n_steps": 1},
}


@dataclass(frozen=True)
class Chain:
    """The first generations of CReST+ in `studies/crest_cifar10.yaml`, small; the second is killed and continued."""

    folder: Path
    processes: int = 1

    def begin_or_go_on(self, rank: int, number: int, moment: Moment | None) -> None:
        """See `Killable.begin_or_go_on`."""
        content = yaml.safe_load(study_file("studies/crest_cifar10.yaml").read_text())
        content["axes"]["gamma"] = {"10": {"options": {"data.class_counts.labeled_gamma": 10}}}
        file = self.folder / "study.yaml"
        file.write_text(yaml.safe_dump({**content, **SMALL, "published": None}, sort_keys=False))
        cells = [cell for cell in cells_of(read_study(file)) if "CReST_aligned" in cell.name and cell.seed == 0]
        for generation, cell in enumerate(cells[:2]):
            done = self.folder / cell.name / "done"
            if done.exists():
                continue
            cell.write_settings(self.folder)
            for command in ("fit", cell.commands[2]):
                assert command in cell.commands
                with killed_at(moment if generation == 1 and command == "fit" else None):
                    tailmatch(*cell.words(command, self.folder))
            done.touch()


def test_a_chain_that_is_killed_in_the_middle_ends_with_the_same_numbers(tmp_path: Path) -> None:
    whole, killed = Chain(tmp_path / "whole"), Chain(tmp_path / "killed")
    assert outlive(whole, []) == [0]
    assert outlive(killed, [Moment(4, written=0.5)]) == [KILLED, 0]
    for generation in range(2):
        folders = [chain.folder / f"10-CReST_aligned-{generation}-seed0" for chain in (whole, killed)]
        states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders]
        for part in ("state_dict", "trained_weights", "optimizer_states", "global_step"):
            assert_same(states[0][part], states[1][part], f"generation {generation}: {part}")
        labels = [read_pseudo_labels(folder / "labels.npz") for folder in folders]
        for name in ("key", "label", "confidence"):
            assert np.array_equal(getattr(labels[0], name), getattr(labels[1], name)), name
        counts = states[0]["state_dict"]["class_counts"]
        assert (counts.sum() > 51) == (generation > 0)  # of 51 given labels
        target = states[0]["callbacks"]["DistributionAlignment"]
        assert target["steps"] == 6
