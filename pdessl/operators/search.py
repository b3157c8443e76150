"""The search for the law of unlabelled runs: what is not given is chosen by label-free diagnostics."""

# B runs, K terms, E targets, R codes

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.operators.fit import Fitted, Normals, coefficients, fit, loss, reliability
from pdessl.operators.latent import Candidate, LatentOperator, half_difference
from pdessl.operators.library import Form, Term, curl_form, plain_form, reactions
from pdessl.operators.pile import stacked
from pdessl.operators.refinement import periodic_axes
from pdessl.operators.resolution import FEWEST, nodes_in_a_wave
from pdessl.operators.simple import chosen_tolerance
from pdessl.operators.sparse import sparsified
from pdessl.operators.steady import steadier, steady_codes
from pdessl.operators.trials import Trials
from pdessl.operators.weak import Grams, Projection, weak_grams
from pdessl.trajectory import Trajectories

__all__ = ["Choice", "choose", "discover", "law_of", "sampled_runs", "solenoidal", "tried_runs"]

_FEWEST = 4  # runs: a code that differs from run to run needs several
_TRIED = 128  # runs that half-widths are chosen on, at most; of large runs fewer, as each says more
_TRIED_FEWEST = 24
_TRIED_NUMBERS = 2**20
_MUCH = 0.05  # of the time derivative, left unexplained by the library that is tried first
_HALVES = (4, 6, 9, 13)  # half-widths that are tried
_FINER_HALVES = (4, 5, 6, 9)  # of nodes that were made twice as many
_REFINED = 2  # times as many nodes: no product of two fields is aliased then
_SOLENOIDAL = 0.1  # of the size of its parts: a divergence below it is that of the grid


@dataclass(frozen=True)
class Choice:
    """How a law is to be fitted: what the diagnostics chose, and all that was tried.

    Args:
        projection: how runs are read.
        form: the library and the left sides, and which terms the law of each may have.
        noise_removed: subtract the expected Gram of the estimated noise.
        rank: R.
        steady: codes are read with less weight for positions that the law does not describe; None: where halves of
            runs then agree better.
        tried: the candidates, best first.
        field_names, axis_names: of the runs.
        waves: frames and nodes in a wave, in the tenth of the runs that have fewest.
    """

    projection: Projection
    form: Form
    noise_removed: bool
    rank: int
    steady: bool | None
    tried: tuple[Candidate, ...]
    field_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    waves: tuple[float, ...]


def discover(
    runs: Trajectories,
    *,
    rank: int | None = None,
    terms: Sequence[Term] | None = None,
    half_width: Sequence[int] | None = None,
    centred: bool | None = None,
    noise_removed: bool | None = None,
    divergence_free: bool | None = None,
    time_order: int = 1,
    known: Sequence[str] = (),
    high_pass: int | None = None,
    advected: bool | None = False,
    steady: bool | None = None,
    refined: bool | None = None,
    resamples: int = 20,
    seed: int = 0,
) -> LatentOperator:
    """Find the law that unlabelled runs obey, and the numbers in it that differ from run to run.

    What is not given is chosen by label-free diagnostics: *reliability* (do the two halves of a run agree about its
    code?) and *unexplained* (the share of the time derivative that the law does not explain). The smallest rank at
    which the unexplained share stops falling is taken. Labels that the runs may hold are not read, but for ``known``.

    Args:
        runs: B >= 4 unlabelled runs on equally spaced frames.
        rank: R; None: 0 to 3, as many as the runs need.
        terms: the library; None: :func:`pdessl.operators.library.default_library`, and for one field of which that
            leaves more than a twentieth unexplained :func:`pdessl.operators.library.reactions`, where it explains twice
            as well.
        half_width: of the test functions, frames and nodes; None: chosen.
        centred: subtract each run's mean (a law of reaction terms must keep it); None: chosen.
        noise_removed: subtract the expected Gram of the estimated noise; None: chosen.
        divergence_free: two fields over a plane are a velocity without divergence whose pressure is not measured: the
            law is one of their curl. None: where two fields have no divergence and their curl is explained much better
            than they are.
        time_order: of the law; 2 for waves and beams.
        known: parameters the runs record (or constants), each of which multiplies a further copy of all terms.
        high_pass: leave out waves below this number along periodic axes (an unknown slow force); None: 0, unless much
            is unexplained or codes are unreliable without, and reliable with it.
        advected: take time derivatives along the flow of two fields that are a velocity without divergence, as frames
            need that are so far apart that structures pass many nodes between them
            (:func:`pdessl.operators.advection.traced`); None: tried beside derivatives at nodes.
        steady: read codes of runs with less weight for positions of the test function that the law does not describe
            (:func:`pdessl.operators.steady.steady_codes`); None: where the halves of runs then agree better.
        refined: read the runs on twice as many nodes along periodic axes
            (:func:`pdessl.operators.refinement.refined`), which ``half_width`` counts then; None: where a tenth of them
            have waves of fewer than six nodes, whose products alias.
        resamples: of the bootstrap that gives standard errors of the coefficients.
        seed: of the bootstrap.

    Raises:
        DataError: fewer than 4 runs, values that are not finite, constant fields, unequal time steps, or a known factor
            that the runs do not record.
        ShapeError: runs too short or too coarse for any test function, or no velocity in a plane where one is declared.
    """
    choice = choose(
        runs[slice(0, tried_runs(runs.fields.shape))],
        rank=rank,
        terms=terms,
        half_width=half_width,
        centred=centred,
        noise_removed=noise_removed,
        divergence_free=divergence_free,
        time_order=time_order,
        known=known,
        high_pass=high_pass,
        advected=advected,
        steady=steady,
        refined=refined,
    )
    check(runs)
    some = runs[slice(0, sampled_runs(runs.fields.shape))]
    return law_of(choice, [weak_grams(runs, choice.projection)], some, resamples, seed)


def tried_runs(shape: Sequence[int]) -> int:
    """Return how many runs of fields (B, C, T, *X) settings are chosen on."""
    return min(_TRIED, max(_TRIED_FEWEST, _TRIED_NUMBERS // math.prod(shape[2:])))


def sampled_runs(shape: Sequence[int]) -> int:
    """Return how many runs of fields (B, C, T, *X) tell which way codes are read: in few, chance decides."""
    return min(_TRIED, max(_TRIED_FEWEST, 4 * _TRIED_NUMBERS // math.prod(shape[2:])))


def check(runs: Trajectories, first: int = 0) -> None:
    """Refuse runs that no law can be found in.

    Args:
        runs: to look at.
        first: number of the first of them, for messages.

    Raises:
        DataError: a field of a run is constant, or not finite.
    """
    flat = runs.check_finite().fields.double().movedim(1, 0).flatten(2)
    still = (flat.std(dim=2, correction=0) <= 1e-12 * flat.abs().amax(dim=2).clamp_min(1e-300)).any(dim=0)
    if bool(still.any()):
        raise DataError(
            f"a field of run {first + int(still.nonzero()[0])} is constant, and so are {int(still.sum())} in all: it "
            "obeys any law. Leave these runs, or this field, out."
        )


def choose(
    few: Trajectories,
    *,
    rank: int | None = None,
    terms: Sequence[Term] | None = None,
    half_width: Sequence[int] | None = None,
    centred: bool | None = None,
    noise_removed: bool | None = None,
    divergence_free: bool | None = None,
    time_order: int = 1,
    known: Sequence[str] = (),
    high_pass: int | None = None,
    advected: bool | None = False,
    steady: bool | None = None,
    refined: bool | None = None,
) -> Choice:
    """Choose how the law of runs is to be fitted, on some of them; see :func:`discover`."""
    if len(few) < _FEWEST:
        raise DataError(
            f"{len(few)} runs; a law whose coefficients differ between runs needs {_FEWEST} or more. For the "
            "coefficients of one run of a known equation use pdessl.evaluation.classical.weak_form."
        )
    check(few)
    waves = nodes_in_a_wave(few).quantile(0.1, dim=0)
    coarse = refined is None and any(float(waves[1 + axis]) < FEWEST for axis in periodic_axes(few))
    times = _REFINED if refined or coarse else 1
    widths = [tuple(half_width)] if half_width is not None else _widths(few.fields.shape[2:], times)
    if not widths:
        raise ShapeError(
            f"{few.fields.shape[2]} frames of {tuple(few.fields.shape[3:])} nodes; expected 13 or more of each, so "
            "that test functions fit in and the halves of a run can be compared."
        )
    means = [True, False] if centred is None and _moving(few) else [bool(centred)]
    removals = [True, False] if noise_removed is None else [noise_removed]
    trials = Trials(few, removals)
    forms = _forms(few, terms, divergence_free, time_order, known)
    at = 1 if rank is None else rank
    if len(forms) > 1:  # which left side is told apart by one width: the others are tried with that one only
        middle = sorted(widths)[len(widths) // 2]
        for form in forms:
            trials.add(form, middle, means[-1], high_pass or 0, refined=times)
        lead = trials.scored(at)[0].form
        forms = [form for form in forms if form.name == lead]
        if advected:  # these were not along the flow, as all are to be
            trials = Trials(few, removals)
    flow = _flow(few, advected)
    ways = [flow] if advected else [(), flow] if flow else [()]
    for form, width, centre, along in itertools.product(forms, widths, means, ways):
        # Halves of a run agree about what aliased products say: those are not tried beside the others.
        trials.add(form, width, centre, high_pass or 0, along, 1 if along and not refined else times)
    tried = trials.scored(at)
    if high_pass is None and "periodic" in few.boundary and _poor(tried[0]):
        for edge in [k for k in (2, 3, 4, 6, 8) if 6 * k <= min(few.fields.shape[3:])]:
            trials.add_like(tried[0], edge)
        again = trials.scored(at)
        surer = [c for c in again if c.high_pass and 1 - c.reliability < 0.5 * (1 - tried[0].reliability)]
        if surer:
            # The lowest edge that is nearly as reliable as the best: above it waves are lost that say something.
            surest = max(min(1 - c.reliability for c in surer), 1e-4)
            edge = min(c.high_pass for c in surer if 1 - c.reliability <= 2 * surest)
            tried = [c for c in again if c.high_pass == edge] + [c for c in again if c.high_pass != edge]
    best = tried[0]
    needed = trials.rank(best, tried)  # also where it is given, so that one too large is told
    chosen = needed if rank is None else rank
    limited = trials.carriers(best, chosen)
    if chosen > 1 or limited:
        again = [c for c in trials.scored(chosen) if c.high_pass == best.high_pass and c.form == best.form]
        best, tried = again[0], again + tried
    projection, form = trials.of(best)
    choice = Choice(
        replace(projection, stride=()),
        form,
        best.noise_removed,
        chosen,
        steady,
        tuple(tried),
        few.field_names,
        few.axis_names,
        tuple(waves.tolist()),
    )
    if terms is not None or centred is not None or len(few.field_names) > 1 or best.unexplained <= _MUCH:
        return choice
    # One field that reacts, as bistable and excitable media do, has terms of third order and no mean to leave out.
    other = choose(
        few,
        rank=rank,
        terms=reactions(len(few.axis_names)),
        half_width=half_width,
        centred=False,
        noise_removed=noise_removed,
        time_order=time_order,
        known=known,
        high_pass=high_pass,
        steady=steady,
        refined=refined,
    )
    if other.tried[0].unexplained > 0.5 * best.unexplained:
        return choice
    return replace(other, tried=(*other.tried, *choice.tried))


def law_of(
    choice: Choice, grams: Iterable[Grams], some: Trajectories, resamples: int = 20, seed: int = 0
) -> LatentOperator:
    """Fit the law on the Grams of all runs, which come part by part.

    In memory are one part, some numbers of every run (its codes and coefficients), and 8 MB of normal equations at
    most: beyond that they are kept in a temporary folder, and every sum over runs reads them part by part.

    Args:
        choice: how.
        grams: of parts of B >= 4 runs, made with ``choice.projection``.
        some: of the runs, which tell how codes are read (:func:`sampled_runs`).
        resamples: of the bootstrap over runs.
        seed: of the bootstrap.
    """
    with ExitStack() as stack:
        whole, halves, level = stacked(grams, len(choice.projection.terms), choice.noise_removed, stack)
        allowed = torch.tensor(choice.form.mask(choice.rank), device=level.device)
        law, codes = sparsified(fit(whole, choice.rank, allowed=allowed), whole, halves)
        found = replace(
            choice.tried[0],
            rank=choice.rank,
            reliability=float(reliability(law, halves).min()) if choice.rank else 1.0,
            unexplained=float(loss(law, codes, whole).mean().clamp_min(0.0)),
        )
        made = LatentOperator(
            projection=choice.projection,
            fitted=law,
            noise_removed=choice.noise_removed,
            field_names=choice.field_names,
            axis_names=choice.axis_names,
            level=level.median(dim=0).values,
            spread=half_difference(law, halves).median(dim=0).values,
            candidates=(found, *choice.tried),
            errors=_bootstrap(law, whole, codes, resamples, seed),
            count=len(whole),
            tolerance=chosen_tolerance(law, whole),
            waves=choice.waves,
        )
    coarse = replace(choice.projection, stride=(1, *(max(1, h // 2) for h in choice.projection.half_width[1:])))
    reading = law, some, coarse, choice.noise_removed
    if not choice.rank or choice.steady is False or (choice.steady is None and not steadier(*reading)):
        return made
    _, halves_read = steady_codes(*reading)
    spread = (halves_read[:, 0] - halves_read[:, 1]).abs().median(dim=0).values / 2
    return replace(made, spread=spread, steady=True)


def _poor(candidate: Candidate) -> bool:
    return candidate.unexplained > 0.2 or candidate.reliability < 0.9


def _forms(
    runs: Trajectories,
    terms: Sequence[Term] | None,
    divergence_free: bool | None,
    order: int,
    known: Sequence[str],
) -> list[Form]:
    fields, axes = runs.fields.shape[1], len(runs.space)
    plain = plain_form(fields, axes, order, terms, known)
    pair = solenoidal(runs) if divergence_free is not False and terms is None and order == 1 else None
    if pair is None:
        if divergence_free:
            raise ShapeError(
                f"no two of the fields {', '.join(runs.field_names)} over {', '.join(runs.axis_names)} are a velocity "
                "without divergence. Name such fields alone, or leave divergence_free out."
            )
        return [plain]
    curl = curl_form(runs.field_names, runs.axis_names, pair, known)
    return [curl] if divergence_free else [plain, curl]


def _flow(runs: Trajectories, advected: bool | None) -> tuple[int, ...]:
    """Return the numbers of the fields that are the velocity which derivatives are taken along, or none."""
    found = None if advected is False else solenoidal(runs)
    if advected and found is None:
        raise ShapeError(
            f"no two of the fields {', '.join(runs.field_names)} over {', '.join(runs.axis_names)} are a velocity "
            "without divergence, along which rates could be taken. Leave advected out."
        )
    return found or ()


def solenoidal(runs: Trajectories) -> tuple[int, int] | None:
    """Return the numbers of two fields without divergence over a plane, or None."""
    fields = runs.fields.shape[1]
    if len(runs.space) != 2 or fields < 2 or min(runs.fields.shape[2:]) < 9:
        return None
    zero = (0,) * fields
    slopes = tuple(Term((*zero[:c], 1, *zero[c + 1 :]), alpha) for c in range(fields) for alpha in ((1, 0), (0, 1)))
    grams = weak_grams(runs, Projection(slopes, (2, 4, 4), stride=(2, 2, 2)))
    size = (grams.halves.mean(dim=1) - grams.noise).mean(dim=0)
    for first, second in itertools.permutations(range(fields), 2):
        a, b = 2 * first, 2 * second + 1
        if float(size[a, a] + size[b, b] + 2 * size[a, b]) < _SOLENOIDAL**2 * float(size[a, a] + size[b, b]):
            return first, second
    return None


def _widths(sizes: Sequence[int], refined: int = 1) -> list[tuple[int, ...]]:
    """Half-widths to try: frames by nodes, the same along all space axes."""
    frames = [h for h in _HALVES if 2 * h + 1 <= sizes[0] * 0.7]
    nodes = [h for h in (_HALVES if refined == 1 else _FINER_HALVES) if 2 * h + 1 <= min(sizes[1:]) * 0.7]
    return [(a, *[b] * (len(sizes) - 1)) for a, b in itertools.product(frames, nodes)]


def _moving(runs: Trajectories) -> bool:
    """Whether some run has a mean worth subtracting."""
    fields = runs.fields.double().flatten(2)
    return bool((fields.mean(dim=2).abs() > 1e-2 * fields.std(dim=2, correction=0)).any())


def _bootstrap(law: Fitted, normal: Normals, codes: Tensor, resamples: int, seed: int) -> Tensor:
    """Return standard errors of c0 and C over resampled runs, with the codes held."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for _ in range(resamples):
        rows = torch.randint(len(codes), (len(codes),), generator=generator)
        times = torch.bincount(rows, minlength=len(codes)).to(codes)
        part = coefficients(codes, normal, law.kept, law.pivots, times)
        drawn.append(torch.cat([part.constant[None], part.varying]))
    if len(drawn) < 2:
        return torch.zeros(law.rank + 1, *law.constant.shape, dtype=law.constant.dtype)
    return torch.stack(drawn).std(dim=0)
