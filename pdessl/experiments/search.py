"""A search over the settings of a pretraining: strengths of symmetries, windows, weights of objectives, rates."""

# n runs, V views of each, D feature width

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from pdessl.errors import PdesslError, SchemaError, StoreError
from pdessl.evaluation.metrics import relative_error
from pdessl.evaluation.targets import with_target
from pdessl.experiments.allowed_classes import check_allowed
from pdessl.experiments.cluster_jobs import count_of
from pdessl.experiments.inverse_sets import content_hash
from pdessl.experiments.processes import spread
from pdessl.experiments.provenance import check_same_version, versions
from pdessl.experiments.search_table import search_table, short
from pdessl.experiments.study_files import heading, origin, write_results
from pdessl.experiments.study_jobs import Job, Study, data_of, trained_encoder
from pdessl.experiments.training import quietly
from pdessl.files import write_json, write_text
from pdessl.inference import fit_parameter_model
from pdessl.inference.encoding import features
from pdessl.inference.labels import labels_of
from pdessl.objectives.monitors import lidar, rank_me
from pdessl.schema import Count, Size, dump_yaml, fill, override
from pdessl.written import say

__all__ = ["SCORES", "Dimension", "Search", "label_free", "search"]

#: Scores that read no label, and whether more of them is hoped to be better.
SCORES = {"rank": True, "shared": True, "lidar_rank": True, "loss": False}
_KEYS = {"title", "about", "study", "base", "search", "parts"}
_BY_HAND, _FOUND = "by hand", "found"
_APART = 10_000  # added to the seed of trials: what was found is confirmed with other weights, batches and labels


@dataclass(frozen=True)
class Dimension:
    """What a setting may be.

    Args:
        low, high: ends of an interval, included.
        log: whether it is searched by ratios; needs low > 0.
        integer: whole numbers only.
        choices: in place of an interval, values of any kind.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        ends = self.low is not None and self.high is not None and self.low < self.high
        if (self.choices is None) != ends or self.choices == () or (self.log and not (self.low or 0) > 0):
            raise SchemaError(
                f"found low {self.low}, high {self.high}, choices {self.choices}: expected low < high (low > 0 where "
                "it is searched by ratios), or one or more choices."
            )

    def holds(self, value: Any) -> bool:
        """Whether a value is one that may be taken."""
        if self.choices is not None:
            return _plain(value) in [_plain(c) for c in self.choices]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.integer or value == int(value))  # type: ignore[operator]

    def distribution(self) -> Any:
        """Return it as Optuna has it; choices by their number."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution(range(len(self.choices)))
        assert self.low is not None and self.high is not None  # noqa: S101  (of an interval)
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def value(self, drawn: Any) -> Any:
        """Return the setting that a draw stands for."""
        return drawn if self.choices is None else self.choices[drawn]

    def drawn(self, value: Any) -> Any:
        """Return the draw that stands for a setting."""
        return value if self.choices is None else [_plain(c) for c in self.choices].index(_plain(value))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


@dataclass(frozen=True)
class Search:
    """How settings are looked for.

    Args:
        space: dotted key of the base -> what it may be. The base's own value is the first that is tried.
        trials: pretrainings, that of the base among them.
        startup: those of them that are drawn evenly, before what was seen guides the draws.
        select: ``validation``: the error on validation runs of a readout of ``labels`` labelled runs; or, reading no
            label, one of ``rank``, ``shared``, ``lidar_rank`` and ``loss``, see :func:`label_free`.
        labels: labelled runs of the readout whose validation error each trial has.
        seed: of draws, and of every trial's weights, batches and labels: trials differ by their settings alone.
    """

    space: dict[str, Dimension] = field(default_factory=dict)
    trials: Count = 40
    startup: Count = 10
    select: Literal["validation", "rank", "shared", "lidar_rank", "loss"] = "validation"
    labels: Size = 64
    seed: int = 0

    def __post_init__(self) -> None:
        weighed = [key for key in self.space if key.startswith("model.objective")]
        if self.select == "loss" and weighed:
            raise SchemaError(
                f"search.select is loss and search.space varies {weighed[0]}: losses of two objectives do not compare, "
                "the smallest weight has the least. Take it out of search.space, or set search.select=shared."
            )


@dataclass(frozen=True)
class _Trial:
    number: int
    values: dict[str, Any]
    job: Job
    labels: int


def search(
    content: Mapping[str, Any],
    config: str,
    out: Path,
    confirm: Callable[[Path, Path], dict[str, Any]],
    base: Mapping[str, Any],
    data: str,
    workers: int = 1,
    announce: Callable[[str], None] = say,
    allow: Collection[str] = (),
    any_version: bool = False,
) -> dict[str, Any]:
    """Try settings of a pretraining, and compare the best with those of the recipe on test runs, with new seeds.

    Draws are those of a tree-structured Parzen estimator (Optuna) that is told the trials before and seeded by their
    number: a search that was stopped ends as one that was not. With several workers, that many trials are drawn before
    any of them is told. Test runs are looked at at the end only, by the ordinary study of two variants, whose recipe is
    written beside the result; asking for more trials after that looks at them again.

    Args:
        content: recipe: ``study`` and ``base`` as those of a study, and ``search`` (see :class:`Search`).
        config: its name, for messages.
        out: folder; holds ``trials/``, ``confirm.yaml``, ``confirmed/``, ``results.json`` and ``table.md``.
        confirm: runs a study, from its file and into a folder.
        base: the recipe's base, with the data's path made absolute.
        data: hash of the dataset.
        workers: processes of one thread each.
        announce: receives a line after every trial.
        allow: packages that the recipe may name classes of.
        any_version: keep trials that another version computed.

    Returns:
        The content of ``results.json``.

    Raises:
        SchemaError: unknown keys, a setting that the base lacks, or whose value there is outside its interval.
        StoreError: the folder holds trials of another search or version.
        PdesslError: Optuna is not installed, the first trial failed, or none had a score.

    Source: Bergstra, Bardenet, Bengio, Kégl (2011), Algorithms for hyper-parameter optimization.
    """
    if set(content) - _KEYS or not {"study", "base"} <= set(content):
        raise SchemaError(f"{config}: expected the keys {', '.join(sorted(_KEYS))}, found {', '.join(content)}.")
    settings = fill(Search, content["search"], f"{config}: search")
    compared = fill(Study, content["study"], f"{config}: study")
    start = _default(settings, base, config)
    if settings.select in ("shared", "lidar_rank") and not (compared.views.drawn and compared.views.count > 1):
        raise SchemaError(
            f"{config}: '{settings.select}' compares views of a run; give study.views a window and a count."
        )
    check_allowed(dict(base), allow, config)
    optuna, started = _optuna(), time.monotonic()
    same = {k: v for k, v in asdict(settings).items() if k != "trials"}
    key = content_hash(_plain({"search": same, "study": asdict(compared), "base": base, "data": data}))
    done: dict[int, dict[str, Any]] = {}
    open_ = _kept(out / "trials", key, done, any_version)

    def trial(number: int, values: dict[str, Any]) -> _Trial:
        recipe = override(base, values)
        folder = str(out / "trials" / f"{number:04d}")
        job = Job("trial", _APART + settings.seed, recipe, compared, folder, data, tuple(allow))
        return _Trial(number, values, job, settings.labels)

    while len(done) < settings.trials:
        wanted = min(count_of(workers), settings.trials - len(done))
        if not open_:
            open_ = _drawn(settings, done, start, wanted)
            for number, values in open_.items():
                write_json(_file(out, number), {"number": number, "values": values, "key": key})
        batch = [trial(number, values) for number, values in open_.items()]
        for one, result in zip(batch, spread(_run, batch, workers), strict=True):
            if one.number == 0 and "failed" in result:  # so would the others, one pretraining after the other
                for number in open_:
                    _file(out, number).unlink()
                raise PdesslError(f"the recipe itself, the first trial, failed: {result['failed']}")
            row = {"number": one.number, "values": one.values, "key": key, "versions": versions(), "result": result}
            write_json(_file(out, one.number), row)
            done[one.number] = row
            announce(_line(row))
        open_ = {}
    rows = [done[n] for n in sorted(done)]
    best = _best(rows, settings.select)
    study = {k: v for k, v in content.items() if k in ("title", "about", "study")}
    variants = {_BY_HAND: {}, _FOUND: override({}, best["values"])}
    write_text(out / "confirm.yaml", dump_yaml(_plain({**study, "base": base, "variants": variants})))
    confirmed = confirm(out / "confirm.yaml", out / "confirmed")
    results = {
        **heading(content, config),
        "search": _plain(asdict(settings)),
        "trials": [{k: row[k] for k in ("number", "values", "result")} for row in rows],
        "best": best["number"],
        "spearman": _spearman(rows),
        "confirmed": confirmed,
        **origin(workers, started),
        "optuna": optuna.__version__,  # its draws are those of this version
    }
    results["table"] = search_table(results, _BY_HAND, _FOUND)
    write_results(out, results, results["table"])
    return results


def label_free(views: Tensor) -> dict[str, float]:
    """Return scores of features that read no label.

    ``rank``: effective rank of the features of runs (:func:`pdessl.objectives.rank_me`). ``shared``: the share of the
    variance that views of a run have in common, mean over columns of σ_b²/(σ_b² + σ_w²), the intraclass correlation.
    ``lidar_rank``: effective rank of what survives views (:func:`pdessl.objectives.lidar`).

    Args:
        views: features of every view of runs, (n, V, D), n and V >= 2.
    """
    z = views.double()
    scale = z.flatten(0, 1).std(dim=0).clamp_min(1e-12)
    z = (z - z.flatten(0, 1).mean(dim=0)) / scale
    within = z.var(dim=1).mean(dim=0)
    between = (z.mean(dim=1).var(dim=0) - within / z.shape[1]).clamp_min(0)
    shared = (between / (between + within).clamp_min(1e-12)).mean()
    return {"rank": rank_me(z.mean(dim=1)), "shared": float(shared), "lidar_rank": lidar(z).rank}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise PdesslError("a search needs Optuna, which is not installed:  pip install 'pdessl[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _default(settings: Search, base: Mapping[str, Any], config: str) -> dict[str, Any]:
    if not settings.space:
        raise SchemaError(f"{config}: search.space is empty; give dotted keys of the base and what they may be.")
    found = {}
    for key, dimension in settings.space.items():
        value: Any = base
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise SchemaError(f"{config}: the base has no value of {key}, which search.space varies; give it one.")
            value = value[part]
        if not dimension.holds(value):
            raise SchemaError(
                f"{config}: base.{key} is {value}, which search.space does not hold; the search starts from it. Change "
                "one of the two."
            )
        found[key] = value
    return found


def _file(out: Path, number: int) -> Path:
    return out / "trials" / f"{number:04d}.json"


def _kept(folder: Path, key: str, done: dict[int, dict[str, Any]], any_version: bool) -> dict[int, dict[str, Any]]:
    """Put trials that a former call finished into ``done`` and return those that it had drawn only."""
    drawn = {}
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            row = dict(json.loads(path.read_text(encoding="utf-8")))
            number, values, other = int(row["number"]), dict(row["values"]), row["key"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # damaged: it is drawn again
        if other != key:
            raise StoreError(
                f"{folder.parent} holds trials of another search (other settings, study, base or data). Choose another "
                "folder; more trials of the same search may be asked for: search.trials."
            )
        if "result" not in row:
            drawn[number] = values
            continue
        check_same_version(row.get("versions"), path, any_version)
        done[number] = row
    return drawn


def _drawn(
    settings: Search, done: Mapping[int, Mapping[str, Any]], start: Mapping[str, Any], count: int
) -> dict[int, dict[str, Any]]:
    """Return the next trials, number -> values: a function of the trials before and of their numbers."""
    optuna = _optuna()
    space = {key: d.distribution() for key, d in settings.space.items()}
    study = optuna.create_study(direction="minimize")
    for number in sorted(done):
        row = done[number]
        loss = _loss(row["result"], settings.select)
        params = {key: settings.space[key].drawn(value) for key, value in row["values"].items()}
        state = optuna.trial.TrialState.FAIL if loss is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=loss, state=state))
    found: dict[int, dict[str, Any]] = {}
    number = 0
    while len(found) < count:
        if number in done:
            number += 1
            continue
        if number == 0:
            study.enqueue_trial({key: settings.space[key].drawn(value) for key, value in start.items()})
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=settings.startup, constant_liar=count > 1, seed=settings.seed * 100_003 + number
        )
        asked = study.ask(space)
        found[number] = {key: settings.space[key].value(asked.params[key]) for key in settings.space}
        number += 1
    return found


def _run(trial: _Trial) -> dict[str, Any]:
    """Pretrain with the settings of a trial and score the encoder; one that fails is a result too."""
    with quietly():
        try:
            encoder, monitors, seconds = trained_encoder(trial.job)
            data = data_of(trial.job.recipe)
            study, equation = trial.job.study, data.store.equation
            held = with_target(data.validation, study.target)
            labelled = with_target(data.labelled_subset(trial.labels, trial.job.seed), study.target)
            targets = [study.target] if study.scale is None else {study.target: study.scale}
            model = fit_parameter_model(encoder, labelled, targets=targets, views=study.views)
            said = torch.from_numpy(np.asarray(model.predict(held)[study.target].values, dtype=np.float64))
            error = relative_error(said, torch.from_numpy(labels_of(held, study.target)))
            views = features(encoder, held.replace(parameters={}), study.views, equation, average=False)
            scores = label_free(views) if views.shape[1] > 1 else {"rank": rank_me(views[:, 0])}
        except Exception as failure:  # whatever went wrong with these settings, the others are worth having
            text = " ".join(str(failure).split())[:300]
            return {"failed": text if isinstance(failure, PdesslError) else f"{type(failure).__name__}: {text}"}
    scores["loss"] = float(monitors.get("train/loss", math.nan))
    return {"error": float(error), "scores": {k: v for k, v in scores.items() if math.isfinite(v)}, "seconds": seconds}


def _loss(result: Mapping[str, Any], select: str) -> float | None:
    """Return what is minimised; None where the trial failed or lacks the score."""
    if select == "validation":
        return result.get("error") if math.isfinite(result.get("error", math.nan)) else None
    score = result.get("scores", {}).get(select)
    return None if score is None else (-score if SCORES[select] else score)


def _best(rows: Sequence[Mapping[str, Any]], select: str) -> Mapping[str, Any]:
    scored = [(loss, i) for i, row in enumerate(rows) if (loss := _loss(row["result"], select)) is not None]
    if not scored:
        why = rows[0]["result"].get("failed", f"it has no score '{select}'") if rows else "there is none"
        raise PdesslError(f"no trial has a score; of the first: {why}")
    return rows[min(scored)[1]]


def _spearman(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the rank correlation of each label-free score with the validation error over all trials."""
    found = {}
    for name in SCORES:
        good = [r["result"] for r in rows if name in r["result"].get("scores", ())]
        pairs = [(result["scores"][name], result["error"]) for result in good]
        if len({a for a, _ in pairs}) > 2:
            found[name] = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return found


def _line(row: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{k.rpartition('.')[2]} {short(v)}" for k, v in row["values"].items())
    result = row["result"]
    if "failed" in result:
        return f"trial {row['number']}: {settings}: failed: {result['failed']}"
    return f"trial {row['number']}: {settings}: {result['error']:.2f} % ({result['seconds']:.0f} s)"
