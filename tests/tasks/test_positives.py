"""Grouped positives: every second view is of another run, whatever the objective; labels are never looked at."""

import pytest
import torch

from pdessl.errors import SchemaError
from pdessl.objectives import VICReg
from pdessl.tasks.positives import runs_of_views

from .test_objectives import OBJECTIVES, augmentation, task
from .toy import waves


def paired(count=16):
    return waves(count, 1).replace(partner=waves(count, 2))


def ready(learner):
    learner.log_terms = lambda *arguments: None
    learner._trainer = type("Stub", (), {"current_epoch": 0, "global_rank": 0})()
    return learner.train()


@pytest.mark.parametrize("name", [n for n in OBJECTIVES if n != "VICRegL"])
def test_every_joint_embedding_objective_takes_views_of_two_runs(name):
    settings = {"teacher": {"start": 0.9}} if name == "BYOL" else {}
    learner = ready(task(OBJECTIVES[name](), **settings))
    loss = learner.training_step(paired(), 0)
    loss.backward()
    assert torch.isfinite(loss) and any(p.grad.abs().max() > 0 for p in learner.encoder.parameters())
    other = paired().replace(partner=waves(16, 3))
    assert not torch.equal(loss, ready(task(OBJECTIVES[name](), **settings)).training_step(other, 0))


def test_views_are_of_runs_and_partners_in_turn():
    batch = paired()
    assert [r is batch for r in runs_of_views(batch, 5)] == [True, False, True, False, True]
    assert runs_of_views(batch, 2)[1] is batch.partner
    alone = waves(4)
    assert all(r is alone for r in runs_of_views(alone, 3))


def test_a_run_that_is_its_own_partner_is_two_views_of_it():
    """Nothing is left of the group: the loss is that without partners."""
    runs = waves(16, 1)
    loss = ready(task(VICReg())).training_step(runs.replace(partner=runs), 0)
    assert torch.equal(loss, ready(task(VICReg())).training_step(runs, 0))


def test_labels_change_nothing():
    batch = paired()
    permuted = {"viscosity": batch.parameters["viscosity"].flip(0)}
    other = batch.replace(parameters=permuted, partner=batch.partner.replace(parameters=permuted))
    views = augmentation(reflections=True)
    loss = ready(task(VICReg(), views)).training_step(batch, 0)
    assert torch.equal(loss, ready(task(VICReg(), views)).training_step(other, 0))


def test_an_objective_on_places_is_refused():
    with pytest.raises(SchemaError, match="two runs of a group have no place in common. Leave data.grouped out"):
        ready(task(OBJECTIVES["VICRegL"]())).training_step(paired(), 0)
