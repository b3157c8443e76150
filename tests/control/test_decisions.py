"""Choice of experiments: information against closed forms, optima that are known, and what is refused and why."""

import math

import pytest
import torch

from pdessl.control.choosing import Best, Known, Record, experiment
from pdessl.control.decisions import Equal, Sobol, Uniform, admissible, over_limits
from pdessl.control.information import entropy, information_gain, noise_draws, separation, told_of, updated
from pdessl.control.interventions import Refusal
from pdessl.control.rivals import load_problem
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.schema import override
from pdessl.solvers import Burgers

STUDY = {
    "hypotheses": {
        "burgers": {"equation": "burgers", "parameters": {"viscosity": {"low": 0.2, "high": 0.8, "count": 3}}}
    },
    "domain": {"length": 2 * math.pi},
    "points": 32,
    "initial": {"wave_numbers": [1, 3], "amplitude": [0.0, 0.5]},
    "sensors": {"count": 2, "distance": 1.0},
    "times": {"count": 2, "step": 0.1, "end": 0.5},
    "limits": {"peak": 0.8},
    "noise": 0.02,
}


def changed(*words):
    return load_problem(override(STUDY, list(words)))


def cube(n, d, seed=0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(spread=1.0, count=161, reach=5.0):
    """Values of a normal parameter on a fine grid, with their weights."""
    values = torch.linspace(-reach * spread, reach * spread, count, dtype=torch.float64)
    return values, torch.softmax(-0.5 * (values / spread) ** 2, dim=0)


class Linear:
    """y = f(x) θ + noise with θ normal: the gain is ½ log(1 + f²τ²/σ²), largest where |f| is."""

    def __init__(self, limit=None):
        self.theta, self.weights = gaussian(count=31)
        self.answers = torch.arange(31)
        self.dimensions, self.size, self.noise, self.limit = 2, 1, 0.5, limit

    @staticmethod
    def sensitivity(x):
        return torch.sin(math.pi * x[:, 0]) * (0.2 + x[:, 1])

    def outcomes(self, x):
        return self.sensitivity(x)[:, None, None] * self.theta[:, None]

    def refusals(self, x):
        return [] if self.limit is None else [Refusal("dose", x[:, 1], self.limit)]


def test_the_gain_of_a_linear_gaussian_experiment_is_its_closed_form():
    theta, weights = gaussian(count=101)
    rows = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, -2.0], [3.0, 1.0]], dtype=torch.float64)
    noise = torch.tensor([1.0, 0.5], dtype=torch.float64)
    found = information_gain(rows[:, None] * theta[:, None], weights, noise, noise_draws(256, 2))
    exact = 0.5 * torch.log1p((rows / noise).square().sum(dim=1))
    assert float(found.mean[0]) == pytest.approx(0.0, abs=1e-12)
    assert bool(((found.mean - exact).abs() <= found.error + 1e-12).all())
    assert bool(((found.mean - exact).abs() <= 5e-3).all())  # the draws are whitened: better than their error says


def test_a_parameter_that_nobody_asks_for_is_summed_over():
    theta, first = gaussian(1.0, 21, 3.5)
    other, second = gaussian(2.0, 21, 3.5)
    weights = (first[:, None] * second).flatten()
    outcomes = (theta[:, None] + 0.5 * other).flatten()[None, :, None]
    answers = torch.arange(21).repeat_interleave(21)
    asked = information_gain(outcomes, weights, 0.5, noise_draws(32, 1), answers)
    both = information_gain(outcomes, weights, 0.5, noise_draws(32, 1))
    assert float(asked.mean) == pytest.approx(0.5 * math.log(2.25 / 1.25), abs=4 * float(asked.error) + 5e-3)
    assert float(both.mean) == pytest.approx(0.5 * math.log(2.25 / 0.25), abs=4 * float(both.error) + 5e-3)


def test_no_experiment_tells_more_than_there_is_to_know():
    weights = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
    far = 1e3 * torch.arange(4, dtype=torch.float64)[None, :, None]
    gain = information_gain(far, weights, 1.0, noise_draws(8, 1))
    assert float(gain.mean) == pytest.approx(entropy(weights), abs=1e-9)
    convinced = told_of(far, weights, 1.0, noise_draws(8, 1), torch.arange(4), 2)
    assert float(convinced) == pytest.approx(-math.log(0.2), abs=1e-9)


def test_the_posterior_of_a_linear_gaussian_experiment_is_the_textbooks():
    theta, weights = gaussian(2.0, 2001, 8.0)
    a, noise, y = torch.tensor([1.5, -0.5], dtype=torch.float64), 0.7, torch.tensor([1.0, 0.4], dtype=torch.float64)
    after = updated(weights, theta[:, None] * a, y, noise)
    variance = 1 / (1 / 4.0 + float(a @ a) / noise**2)
    mean = variance * float(a @ y) / noise**2
    assert float(after @ theta) == pytest.approx(mean, rel=1e-6)
    assert float(after @ (theta - mean) ** 2) == pytest.approx(variance, rel=1e-6)
    half = torch.tensor([1.0, math.nan], dtype=torch.float64)  # a sensor that failed says nothing
    assert torch.allclose(
        updated(weights, theta[:, None] * a, half, noise), updated(weights, theta[:, None] * a[:1], half[:1], noise)
    )
    with pytest.raises(DataError, match="no number"):
        updated(weights, theta[:, None] * a, torch.full((2,), math.nan), noise)
    with pytest.raises(ShapeError, match=r"expected \(H,\)"):
        updated(weights, theta[:, None] * a, y[:1], noise)


def test_the_chosen_experiment_is_the_analytic_optimum():
    problem = Linear()
    for criterion in ("information", "separation"):
        choice = Best(criterion, pool=64, draws=32).choose(problem, problem.weights, 0)
        assert float(problem.sensitivity(choice.point[None])) >= 0.99 * 1.2  # at (0.5, 1), the only maximum
    choice = Best(pool=64, draws=128).choose(problem, problem.weights, 0)
    assert choice.value == pytest.approx(0.5 * math.log1p((1.2 / 0.5) ** 2), abs=4 * choice.error + 0.02)
    bounded = Linear(limit=0.4)
    point = Best(pool=64, draws=32).choose(bounded, bounded.weights, 0).point
    assert float(bounded.sensitivity(point[None])) >= 0.98 * 0.6 and float(point[1]) <= 0.4


@pytest.mark.parametrize("chooser", [Best(pool=64), Uniform(), Sobol(), Equal(4)], ids=lambda c: type(c).__name__)
def test_an_infeasible_limit_is_refused_with_the_reason(chooser):
    with pytest.raises(DataError, match=r"'dose' <= -1 refuses \d+ \(smallest value .*Raise the limit"):
        chooser.choose(Linear(limit=-1.0), Linear().weights, 0)


def test_separation_is_the_distance_of_the_two_closest_answers_that_are_left():
    outcomes = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]]], dtype=torch.float64)
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert float(separation(outcomes, even, 2.0)) == pytest.approx(2.5)
    gone = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    assert float(separation(outcomes, gone, 2.0)) == pytest.approx(25.0)
    assert float(separation(outcomes, even, 2.0, torch.tensor([0, 0, 1]))) == pytest.approx(22.5)
    with pytest.raises(DataError, match="nothing to separate"):
        separation(outcomes, even, 2.0, torch.zeros(3, dtype=torch.long))
    with pytest.raises(DataError, match="without noise"):
        separation(outcomes, even, 0.0)


# ------------------------------------------------------------------------------------------------- experiments on PDEs


def test_what_is_foreseen_is_what_the_simulator_gives():
    problem = changed("initial.mean=[-0.2,0.2]")
    points = cube(3, problem.dimensions)
    points[2, :5] = points[1, :5]  # two experiments with one field: it is simulated once
    found, chosen = problem.outcomes(points), problem.space.decoded(points)
    x = torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32)
    for row in range(3):
        told = problem.space.described(chosen, row)
        field = told["initial"]["mean"] + sum(
            t["amplitude"] * torch.sin(t["wave_number"] * x + t["phase"]) for t in told["initial"]["terms"]
        )
        solver = Burgers(problem.values[0]["viscosity"], points=32, check_resolution=False, dtype=torch.float64)
        times = torch.tensor([0.1 * i for i in range(1, 6)], dtype=torch.float64)
        run = solver.solve(field.expand(3, 1, -1), times).trajectories.fields[:, 0]
        read = run[:, [round(t / 0.1) - 1 for t in told["times"]]]
        read = read[:, :, [round(s / (2 * math.pi / 32)) for s in told["sensors"]]].flatten(1)
        # The step of a batch is that of its sharpest field.
        assert torch.allclose(found[row], read, atol=1e-7)
    assert float((found[1] - found[2]).abs().max()) > 1e-3


def test_a_force_moves_what_is_foreseen_and_holds_over_its_interval():
    words = "force={positions: [1.0, 3.0], width: 0.5, amplitude: [-1, 1], intervals: 2}"
    problem = changed(words, "times.positions=[0.1,0.3]", "sensors.positions=[0.0,1.9634954084936207]")
    assert problem.dimensions == 2 * 2 + 4
    middle = torch.full((2, 8), 0.5, dtype=torch.float64)
    middle[1, [5, 7]] = 1.0  # the second interval, from 0.25 on, of both actuators
    rest, moved = problem.outcomes(middle)
    assert torch.allclose(rest[:, :2], moved[:, :2], atol=1e-12) and float((moved - rest)[:, 3].min()) > 0.01
    limited = changed(words, "limits.force=0.1")
    with pytest.raises(DataError, match="limits.force, root mean square of amplitudes' is 1, at most 0.1"):
        over_limits(limited.refusals(torch.ones(1, limited.dimensions, dtype=torch.float64)), "it")


def test_a_force_that_makes_fields_too_sharp_for_the_grid_is_refused_and_the_others_are_right():
    force = "force={positions: [1.0, 3.0], width: 0.5, amplitude: [-2, 2], intervals: 2}"
    words = [force, "points=64", "times.end=1.5", "initial.wave_numbers=[1,2]", "initial.amplitude=[0,0.1]"]
    words += ["hypotheses.burgers.parameters.viscosity={low: 0.08, high: 0.2, count: 2}"]
    problem, fine = changed(*words), changed(*words, "points=512")
    points = cube(48, problem.dimensions)
    calm = points.clone()
    calm[:, 4:8] = 0.5
    good = admissible(problem, points)
    assert bool(admissible(problem, calm).all()) and 8 <= int(good.sum()) <= 40  # refused for the force alone
    chosen = problem.space.decoded(points[good][:8])
    values = {"viscosity": torch.full((8,), 0.08, dtype=torch.float64)}
    gap = (problem._fields(chosen, 0, values) - fine._fields(chosen, 0, values)[:, :, ::8]).abs()
    assert float(gap.max()) < 1e-3  # of fields up to 1.5: neither grid nor step is too coarse
    with pytest.raises(DataError, match="'points, those that resolve the solution' is .*, at most 64"):
        over_limits(problem.refusals(points[~good][:1]), "it")
    told = Best(pool=32, rounds=1, kept=2, moved=4, draws=16).choose(problem, problem.weights, 0)
    # No solution is higher than the field at the start and the force together can be.
    assert float(problem.outcomes(told.point[None]).abs().max()) <= 0.2 + 1.5 * 2 * 2


class Failing(Linear):
    """A model that gives no number for a part of the experiments, 0 and more of the first coordinate."""

    def __init__(self, share):
        super().__init__()
        self.share = share

    def outcomes(self, x):
        found = super().outcomes(x)
        found[x[:, 0] >= self.share, 3] = math.nan
        return found


def test_experiments_that_a_model_fails_at_are_left_out_and_refused_where_none_is_left():
    some, none = Failing(0.4), Failing(0.0)
    search = Best(pool=64, draws=32)
    choice = search.choose(some, some.weights, 0)
    assert float(choice.point[0]) < 0.4 and math.isfinite(choice.value)
    assert float(some.sensitivity(choice.point[None])) >= 0.97 * 1.2 * math.sin(0.4 * math.pi)
    with pytest.raises(DataError, match="none of 64 admissible experiments has finite outcomes.* A finer grid"):
        search.choose(none, none.weights, 0)
    with pytest.raises(DataError, match="experiment 1: what is foreseen of it is not finite"):
        experiment(none, Uniform(), lambda point, k: torch.zeros(1, dtype=torch.float64), 2)


def test_least_distances_hold_for_every_point_of_the_cube_also_across_the_period():
    problem = changed("sensors.count=4", "sensors.distance=1.5", "times.gap=0.2", "times.end=0.3")
    points = torch.cat([cube(200, problem.dimensions), torch.zeros(1, 10), torch.ones(1, 10)]).double()
    chosen = problem.space.decoded(points)
    sensors = chosen.sensors.sort(dim=1).values
    around = torch.cat([sensors, sensors[:, :1] + 32], dim=1).diff(dim=1)
    assert int(around.min()) == math.ceil(1.5 / (2 * math.pi / 32))
    assert int(chosen.times.diff(dim=1).min()) == 2 and int(chosen.times.min()) == 1 and int(chosen.times.max()) == 3


def test_an_experiment_as_plain_data_is_the_same_experiment():
    problem = changed()
    chosen = problem.space.decoded(cube(1, problem.dimensions))
    told = problem.space.described(chosen, 0)
    again = problem.space.read(told, "design.yaml")
    assert torch.equal(problem.foreseen(again), problem.foreseen(chosen))
    with pytest.raises(SchemaError, match="design.yaml: sensors .* expected 2 multiples of"):
        problem.space.read({**told, "sensors": [0.1, 0.2]}, "design.yaml")
    with pytest.raises(SchemaError, match=r"wave numbers \[1\].* expected those of the study"):
        problem.space.read({**told, "initial": {"mean": 0.0, "terms": told["initial"]["terms"][:1]}}, "design.yaml")


@pytest.mark.parametrize("length, step", [(1e-7, 1e-10), (2 * math.pi, 0.1), (1.23456789e7, 1.23456789e5 / 7)])
def test_places_and_times_are_read_back_in_any_unit(length, step):
    times = f"times={{count: 40, step: {step}, end: {1000 * step}}}"
    problem = changed(f"domain.length={length}", times, "points=512", "sensors.count=40", "sensors.distance=0")
    chosen = problem.space.decoded(cube(3, problem.dimensions))
    for row in range(3):
        told = problem.space.described(chosen, row)
        again = problem.space.read(told, "design.yaml")
        assert torch.equal(again.sensors[0], chosen.sensors[row]) and torch.equal(again.times[0], chosen.times[row])
        for what, unit in (("sensors", length / 512), ("times", step)):
            off = [*told[what][:-1], told[what][-1] + 0.01 * unit]
            with pytest.raises(SchemaError, match=f"{what} .* expected 40 multiples of"):
                problem.space.read({**told, what: off}, "design.yaml")


@pytest.mark.parametrize(
    "words, said",
    [
        (["sensors.count=8"], "sensors: 8 of them, .* do not fit between 0 and"),
        (["times.gap=0.6"], "times: 2 of them, 0.6 apart, do not fit"),
        (["times.positions=[0.1,0.15]"], "times.positions .* expected 2 multiples of 0.1"),
        (["initial.amplitude=[1,0]"], "initial.amplitude: .* lower number first"),
        (["initial.wave_numbers=[1,12]"], "all different, below 11"),
        (["ask=equation"], "ask: equation, but there is one rival, burgers"),
        (["ask=dispersion"], "'dispersion' is no parameter of every rival"),
        (["hypotheses.burgers.parameters.viscosity=0.3"], "1 in all; expected 2 to 512"),
        (["hypotheses.burgers.equation=gray_scott"], "no simulator of 'gray_scott'.* burgers"),
    ],
)
def test_a_study_that_cannot_be_is_refused_with_the_reason(words, said):
    with pytest.raises(SchemaError, match=said):
        changed(*words)


def test_a_grid_that_does_not_resolve_the_hypotheses_is_a_limit():
    with pytest.raises(DataError, match="'points, those that resolve the solution' <= 8 refuses"):
        blunt = changed(
            "points=8",
            "initial.wave_numbers=[1]",
            "initial.amplitude=[0.1,0.5]",
            "hypotheses.burgers.parameters.viscosity.low=0.001",
        )
        Sobol().choose(blunt, blunt.weights, 0)


def test_rivals_share_the_prior_and_give_an_answer_each():
    kdv = (
        "{equation: kdv_burgers, parameters: {viscosity: {low: 0.3, high: 0.5, count: 2}, dispersion: 0.05}, weight: 3}"
    )
    problem = changed(f"hypotheses.waves={kdv}")
    assert problem.answer_labels == ["burgers", "waves"] and problem.answers.tolist() == [0, 0, 0, 1, 1]
    assert torch.allclose(problem.weights, torch.tensor([0.25 / 3] * 3 + [0.375] * 2, dtype=torch.float64))
    foreseen = problem.outcomes(cube(2, problem.dimensions))
    assert foreseen.shape == (2, 5, 4) and bool((foreseen[:, 1] - foreseen[:, 3]).abs().amax(dim=1).min() > 1e-3)


def test_floors_are_reproducible_admissible_and_spread_as_they_say():
    problem = changed()
    for make in (Uniform, Sobol):
        points = [make(3).choose(problem, problem.weights, k).point for k in range(4)]
        again = [make(3).choose(problem, problem.weights, k).point for k in (3, 0)]
        assert torch.equal(points[3], again[0]) and torch.equal(points[0], again[1])
        assert len({tuple(p.tolist()) for p in points}) == 4
        over_limits(problem.refusals(torch.stack(points[:1])), "it")
    free = changed("limits.peak=5")
    lattice = torch.stack([Equal(4).choose(free, free.weights, k).point for k in range(4)])
    assert torch.allclose(lattice[:, :4].sort(dim=0).values[:, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]).double())


def test_of_equal_spacing_every_number_takes_equally_spaced_values_also_one_sensor_and_one_time():
    cells = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)
    words = ["times.end=2", "force={positions: [1.0], width: 0.5, amplitude: [-0.1, 0.1]}", "initial.mean=[-0.1,0.1]"]
    for sensors, times in ((1, 1), (3, 2)):
        problem = changed(f"sensors.count={sensors}", f"times.count={times}", "limits.peak=5", *words)
        lattice = torch.stack([Equal(4).choose(problem, problem.weights, k).point for k in range(4)])
        assert torch.allclose(lattice[:, :6].sort(dim=0).values, cells[:, None].expand(4, 6))
        for start, count in ((6, sensors), (6 + sensors, times)):
            part = lattice[:, start : start + count]
            assert torch.allclose(part[:, 0].sort().values, cells / count)  # each in its own part of the range
            assert torch.allclose(part.diff(dim=1), torch.full((4, count - 1), 1 / count, dtype=torch.float64))
        # Where a limit refuses the point, only the strengths are drawn in: no phase, no place, no time.
        tight = changed(f"sensors.count={sensors}", f"times.count={times}", "limits.force=0.05", *words)
        drawn = torch.stack([Equal(4).choose(tight, tight.weights, k).point for k in range(4)])
        assert torch.equal(drawn[:, 2:4], lattice[:, 2:4]) and torch.equal(drawn[:, 6:], lattice[:, 6:])
        assert float((drawn - lattice)[:, 5].abs().max()) > 0.1


def test_the_loop_finds_the_truth_and_stops_when_it_is_sure():
    problem = changed("noise=0.005")
    noise = torch.randn(6, problem.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def observe(point, k):
        return problem.run(problem.space.decoded(point[None]), 0, {"viscosity": 0.4}, noise[k])

    search = Best(pool=32, rounds=1, kept=1, moved=4, draws=32)
    for chooser in (search, Known(1, search)):
        record = experiment(problem, chooser, observe, 6, until=0.95)
        assert float(record.certainty(problem.answers, 1)[-1]) >= 0.95
        assert record.needed(problem.answers, 1) == len(record.choices) <= 3
        assert record.needed(problem.answers, 0, 0.99) == math.inf
    with pytest.raises(DataError, match="count 0"):
        experiment(problem, search, observe, 0)
    assert Record(weights=[problem.weights]).needed(problem.answers, 0, 0.3) == 0
