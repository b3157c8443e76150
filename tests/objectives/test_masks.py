import math

import pytest
import torch

from pdessl.errors import ResolutionError, SchemaError
from pdessl.objectives import BlockMasks

GRID = (4, 6, 8)
SAMPLERS = {
    "closed box": BlockMasks(GRID, (False, False, False)),
    "periodic": BlockMasks(GRID, (False, True, True)),
    "short blocks, one context block": BlockMasks(
        GRID, (False, True, False), 2, (0.1, 0.4), (0.25, 0.75), 3.0, (0.7, 0.9)
    ),
    "one space axis": BlockMasks((8, 16), (False, True), 2, (0.2, 0.3), (0.3, 0.6)),
    "three space axes": BlockMasks((2, 4, 6, 4), (False, True, False, True), 2, (0.1, 0.2)),
}


def coverage(sampler, draws=400, batch=8):
    """Share of blocks that hide each token, and share of samples that show it."""
    generator = torch.Generator().manual_seed(0)
    tokens = math.prod(sampler.grid)
    hidden, shown = torch.zeros(tokens), torch.zeros(tokens)
    for _ in range(draws):
        masks = sampler(batch, generator)
        hidden += torch.bincount(masks.targets.flatten(), minlength=tokens)
        shown += torch.bincount(masks.context.flatten(), minlength=tokens)
    return hidden.view(sampler.grid) / (draws * batch * sampler.blocks), shown.view(sampler.grid) / (draws * batch)


@pytest.mark.parametrize("name", SAMPLERS)
def test_processes_that_share_a_batch_take_their_rows_of_its_masks(name):
    whole = SAMPLERS[name](7, torch.Generator().manual_seed(4))
    parts = [SAMPLERS[name](7, torch.Generator().manual_seed(4), rows=rows) for rows in (slice(0, 5), slice(5, 7))]
    for joined, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(shares), joined)


@pytest.mark.parametrize("name", SAMPLERS)
def test_masks_are_disjoint_sorted_distinct_and_of_one_size(name):
    sampler, generator = SAMPLERS[name], torch.Generator().manual_seed(1)
    tokens = math.prod(sampler.grid)
    for _ in range(30):
        masks = sampler(5, generator)
        assert masks.targets.shape[:2] == (5, sampler.blocks)
        assert masks.context.shape[1] >= sampler.min_context
        for context, targets in zip(masks.context.tolist(), masks.targets.tolist(), strict=True):
            assert not set(context) & {t for block in targets for t in block}
            for indices in (context, *targets):
                assert indices == sorted(set(indices))
                assert indices[0] >= 0
                assert indices[-1] < tokens


def test_a_target_is_one_block_of_the_size_that_was_asked_for():
    sampler, generator = BlockMasks((4, 10, 10), (False, True, True), 1, (0.2, 0.2), (0.5, 0.5), 2.0), torch.Generator()
    ratios = []
    for _ in range(200):
        member = torch.zeros(400, dtype=torch.bool)
        member[sampler(1, generator.manual_seed(generator.seed())).targets[0, 0]] = True
        member = member.view(4, 10, 10)
        sides = []
        for axis in range(3):
            along = member.movedim(axis, 0).flatten(1).any(dim=1)
            # One run, on the circle for a periodic axis.
            changes = int((along != along.roll(1)).sum())
            assert changes in (0, 2)
            sides.append(int(along.sum()))
        assert math.prod(sides) == int(member.sum())
        assert sides[0] == 2
        assert sides[1] * sides[2] == pytest.approx(20, abs=5)
        ratios.append(math.log(sides[1] / sides[2]))
    assert abs(sum(ratios) / 200) < 0.15  # no axis is favoured
    assert max(ratios) > 0.4


def test_on_periodic_axes_every_token_is_hidden_and_shown_equally_often():
    for name, tubes in (("periodic", True), ("one space axis", False)):
        hidden, shown = coverage(SAMPLERS[name])
        draws = 400 * 8
        space = (hidden.mean(dim=0), shown.mean(dim=0))
        for found, independent in zip(space, (draws * SAMPLERS[name].blocks, draws), strict=True):
            expected = float(found.mean())
            # Chi-square of the marginal counts; tokens of one block come together, which only widens it by the block.
            deviation = (found - expected) / math.sqrt(expected * (1 - expected) / independent)
            assert float(deviation.square().mean()) < 2.5, name
            assert float(deviation.abs().max()) < 5, name
        if tubes:
            assert torch.equal(hidden, hidden[:1].expand_as(hidden))


def test_on_closed_axes_coverage_is_symmetric_and_reaches_the_ends():
    hidden, shown = coverage(SAMPLERS["closed box"], draws=800)
    for axis in range(3):
        for found in (hidden, shown):
            along = found.movedim(axis, 0).flatten(1).mean(dim=1)
            assert float(along.min()) > 0.25 * float(along.max())
            torch.testing.assert_close(along, along.flip(0), rtol=0.06, atol=0.01)
    assert float(hidden.min()) > 0
    assert float(shown.min()) > 0


def test_cutting_the_contexts_to_one_length_favours_no_token():
    """Closed time, blocks of part of it: the last slab is shown as often as the first (not so when cut in order)."""
    sampler = BlockMasks((8, 12), (False, True), 3, (0.2, 0.5), (0.25, 0.5))
    _, shown = coverage(sampler, batch=24, draws=150)
    along = shown.mean(dim=1)
    assert float(along[-1]) == pytest.approx(float(along[0]), rel=0.08)


def test_the_generator_alone_decides():
    sampler = SAMPLERS["short blocks, one context block"]
    first, second, other = (sampler(4, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.targets.shape != other.targets.shape or not torch.equal(first.targets, other.targets)
    generator = torch.Generator().manual_seed(5)
    sampler(4, generator)
    state = generator.get_state()
    following = sampler(4, generator)
    resumed = torch.Generator()
    resumed.set_state(state)
    assert torch.equal(sampler(4, resumed).context, following.context)


def test_places_differ_between_samples():
    masks = SAMPLERS["periodic"](16, torch.Generator().manual_seed(0))
    assert len({tuple(t) for t in masks.targets[:, 0].tolist()}) > 8


def test_errors():
    with pytest.raises(ResolutionError, match="left fewer than 4 visible tokens in 20 draws"):
        BlockMasks((2, 2), (False, False), 1, (1.0, 1.0))(3, torch.Generator())
    with pytest.raises(SchemaError, match=r"scale \[0.5, 0.2\]"):
        BlockMasks(GRID, (False,) * 3, scale=(0.5, 0.2))
    with pytest.raises(SchemaError, match="one flag for each"):
        BlockMasks(GRID, (False, True))
    with pytest.raises(SchemaError, match="aspect 0.5"):
        BlockMasks(GRID, (False,) * 3, aspect=0.5)
