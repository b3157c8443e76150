"""Studies of surprise: which detector notices which violation, how often, and how late; with controls and floors."""

# B runs, T frames

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.data import generate, simulate
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.errors import SchemaError, did_you_mean
from pdessl.evaluation.novelty import area_under_roc
from pdessl.experiments.latent_forecasts import foreseen
from pdessl.experiments.pretraining import pretrain
from pdessl.experiments.processes import spread
from pdessl.experiments.provenance import check_same_version, versions
from pdessl.experiments.study_files import heading, origin, write_results
from pdessl.experiments.training import quietly
from pdessl.experiments.variant_names import folder_name, variants_of
from pdessl.experiments.violations import violations
from pdessl.files import checksum, write_json
from pdessl.inference.feature_scores import FeatureScores
from pdessl.inference.frame_scores import FrameScores, LawScores
from pdessl.inference.known_equation import EquationScores
from pdessl.inference.physics import PhysicsEncoder
from pdessl.inference.surprise import SurpriseDetector
from pdessl.models import ConvEncoder, Encoder
from pdessl.operators import discover
from pdessl.schema import Count, Size, fill
from pdessl.trajectory import Trajectories
from pdessl.written import say

__all__ = ["DETECTORS", "SurpriseStudy", "surprise_study"]

_KEYS = {"title", "about", "surprise", "variants"}
_WINDOW = 8
_CHOSEN = ("x 1.3", "/ 1.3", "backwards")  # what floors are shown on


@dataclass(frozen=True)
class SurpriseStudy:
    """A dataset, what is violated in it, and who is to notice.

    Args:
        dataset: name in the catalog: one field on one periodic axis; splits ``unlabelled``, ``validation``, ``test``.
        parameter: that switches on the way.
        reversible: see :func:`pdessl.experiments.violations.violations`.
        unlabelled: runs that a law is found in, and whose features are usual.
        runs: test runs; four times as many calibrate.
        rate: of false alarms.
        detectors: names of :data:`DETECTORS`.
        violations: parts of names of those to make; empty: all.
        models: further ones, name -> folder of a time-stepper, a world model, a temporal JEPA or a law.
        pretrained: further ones, name -> recipe of ``pdessl pretrain`` of a temporal JEPA or a world model, which is
            trained on the unlabelled runs.
        training: other values of these recipes, by the same names.
        encoders: name -> folder of an encoder, whose features' distance is a detector.
    """

    dataset: str
    parameter: str
    reversible: bool = False
    unlabelled: Size = 512
    runs: Count = 128
    rate: float = 0.05
    detectors: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    pretrained: dict[str, str] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _OneChannel:
    """One of the scores of a law alone."""

    whole: LawScores
    name: str

    @property
    def channels(self) -> tuple[str, ...]:
        return (self.name,)

    def scores(self, runs: Trajectories) -> FrameScores:
        found, number = self.whole.scores(runs), self.whole.channels.index(self.name)
        return replace(found, values=found.values[..., number : number + 1])


def frame_difference(runs: Trajectories) -> Tensor:
    """Mean square of the change from frame to frame."""
    return runs.fields.double().diff(dim=2).square().mean(dim=(1, 3))


def energy_drift(runs: Trajectories) -> Tensor:
    """Relative change of the energy from frame to frame."""
    energy = runs.fields.double().square().mean(dim=(1, 3))
    return energy.diff(dim=1).abs() / energy[:, :-1]


def mean_drift(runs: Trajectories) -> Tensor:
    """Change of the mean, which these equations conserve, from frame to frame."""
    return runs.fields.double().mean(dim=(1, 3)).diff(dim=1).abs()


class _Made:
    """What detectors are made of, each part when it is first asked for."""

    def __init__(self, settings: SurpriseStudy, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.recipe: DatasetRecipe = load_recipe(settings.dataset)
        self._law: LawScores | None = None
        self._unlabelled: Trajectories | None = None

    @property
    def unlabelled(self) -> Trajectories:
        if self._unlabelled is None:
            self._unlabelled = simulate(self.recipe, "unlabelled", range(self.settings.unlabelled))
        return self._unlabelled

    @property
    def law(self) -> LawScores:
        if self._law is None:
            frames = self.unlabelled.fields.shape[2]
            self._law = LawScores(discover(self.unlabelled, resamples=0)).for_frames(frames)
        return self._law

    def equation(self) -> EquationScores:
        """The equation and the level of the noise as the dataset declares them."""
        noise = float(self.recipe.observation["noise"])
        unknown = [n for n in self.recipe.parameters if n not in self.recipe.constants]
        return EquationScores(self.recipe.equation, unknown, self.recipe.constants, noise_level=noise)

    def physics(self) -> FeatureScores:
        runs = self.unlabelled.without_parameters()
        encoder = PhysicsEncoder.of(runs.window(slice(0, _WINDOW)))
        return FeatureScores.fit(encoder, runs, _WINDOW)

    def random(self) -> FeatureScores:
        runs = self.unlabelled.without_parameters()
        torch.manual_seed(0)
        network = ConvEncoder(in_channels=1, width=16, blocks=[1, 1], features=32, periodic=[True])
        fields = runs.fields
        encoder = Encoder(network, [float(fields.mean())], [float(fields.std())])
        network.train()
        with torch.no_grad():  # statistics of normalisation layers, if there are any, as in training
            encoder(fields[:64, :, :_WINDOW])
        return self.encoder(encoder.eval())

    def encoder(self, encoder: Encoder) -> FeatureScores:
        runs = self.unlabelled.without_parameters()
        return FeatureScores.fit(encoder, runs, _WINDOW)

    def trained(self, name: str, recipe: str) -> Any:
        """What is trained by a recipe on the unlabelled runs."""
        data = self.folder / "data"
        if not data.is_dir():
            size = dict.fromkeys(self.recipe.splits, 16) | {"unlabelled": self.settings.unlabelled}
            generate(self.recipe, data, size=size, progress=False)
        given = {"data.path": str(data), "trainer.enable_progress_bar": False, "probe.parameters": []}
        with quietly():
            run = pretrain(recipe, given | self.settings.training.get(name, {}), self.folder / folder_name(name))
        return foreseen(run.folder)


#: How a detector is made, by the name a recipe uses: what a row calls it, its table, and the model.
DETECTORS: dict[str, tuple[str, str, Callable[[_Made], Any]]] = {
    "law": ("law", "law", lambda made: made.law),
    "residual": ("law, its residual alone", "part", lambda made: _OneChannel(made.law, "residual")),
    "place": ("law, its place alone", "part", lambda made: _OneChannel(made.law, "place")),
    "code": ("law, its code alone", "part", lambda made: _OneChannel(made.law, "code")),
    "frame_difference": ("frame difference", "floor", lambda made: frame_difference),
    "energy_drift": ("energy drift", "floor", lambda made: energy_drift),
    "mean_drift": ("drift of the mean", "floor", lambda made: mean_drift),
    "equation": ("the known equation", "floor", lambda made: made.equation()),
    "physics_distance": ("distance of hand-made features", "floor", lambda made: made.physics()),
    "random_distance": ("distance of features of a random encoder", "floor", lambda made: made.random()),
}


def surprise_study(
    content: Mapping[str, Any],
    config: str,
    out: Path,
    only: Sequence[str] = (),
    workers: int = 1,
    announce: Callable[[str], None] = say,
    any_version: bool = False,
) -> dict[str, Any]:
    """Run a study of surprise; variants that a former call finished are not run again.

    Args:
        content: recipe: ``surprise`` (what the variants share, see :class:`SurpriseStudy`) and ``variants`` (name ->
            what is laid over it, at least ``dataset`` and ``parameter``).
        config: its name, for messages.
        out: folder; holds ``results.json``, ``table.md``, and a folder per variant.
        only: names of variants; default all.
        workers: processes of one thread each.
        announce: receives a line after every variant.
        any_version: keep results that another version of pdessl, torch or NumPy computed.

    Returns:
        The content of ``results.json``: a row per detector and violation, with ``auroc``, ``paired`` and ``alarms`` in
        per cent and ``delay`` in frames.

    Raises:
        SchemaError: unknown keys or detectors, no variant, or names that one folder would serve.
        StoreError: the folder holds results of another version.
    """
    variants = variants_of(content, _KEYS, config, only)
    shared = dict(content.get("surprise") or {})
    jobs = []
    for name, changes in variants.items():
        settings = fill(SurpriseStudy, shared | dict(changes or {}), f"{config}: {name}")
        wrong = [d for d in settings.detectors if d not in DETECTORS]
        if wrong:
            raise SchemaError(
                f"{config}: {name}: no detector '{wrong[0]}'.{did_you_mean(wrong[0], DETECTORS)} Known: "
                f"{', '.join(DETECTORS)}."
            )
        if not only or name in only:
            jobs.append(_Job(name, settings, str(out / folder_name(name)), any_version))
    started, rows = time.monotonic(), []
    for job, found in zip(jobs, spread(_run, jobs, workers), strict=True):
        rows += found
        announce(f"{job.name}: {len(found)} rows")
    results = {
        **heading(content, config),
        "rows": rows,
        "table": _table(rows),
        **origin(workers, started),
    }
    write_results(out, results, results["table"])
    return results


@dataclass(frozen=True)
class _Job:
    name: str
    settings: SurpriseStudy
    folder: str
    any_version: bool

    @property
    def hash(self) -> str:
        settings = self.settings
        # What the folders hold, not only where they are: a model may have been trained again since.
        held = {f: _contents(Path(f)) for f in (*settings.models.values(), *settings.encoders.values())}
        told = {"settings": asdict(settings), "data": load_recipe(settings.dataset).hash, "models": held}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _contents(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.suffix in (".json", ".safetensors") and p.is_file())
    return {str(p.relative_to(folder)): checksum(p) for p in files}


def _run(job: _Job) -> list[dict[str, Any]]:
    path, key = Path(job.folder) / "result.json", job.hash
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        rows = list(kept["rows"]) if kept["hash"] == key else []
        sound = all(isinstance(row["detector"], str) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        rows, sound = [], False  # none, or one that is damaged: it is computed again
    if rows and sound:
        check_same_version(kept.get("versions"), path, job.any_version)
        return rows
    rows = _measured(job.name, job.settings, Path(job.folder))
    write_json(path, {"hash": key, "versions": versions(), "rows": rows})
    return rows


def _measured(name: str, settings: SurpriseStudy, folder: Path) -> list[dict[str, Any]]:
    made, indices = _Made(settings, folder), range(settings.runs)
    calibration = simulate(made.recipe, "validation", range(4 * settings.runs)).without_parameters()
    sound = simulate(made.recipe, "test", indices).without_parameters()
    frame = sound.fields.shape[2] // 2
    every = violations(settings.dataset, settings.parameter, sound, frame, indices, settings.reversible)
    cases = {
        n: make() for n, make in every.items() if not settings.violations or any(v in n for v in settings.violations)
    }
    chosen = [DETECTORS[d] for d in settings.detectors]
    chosen += [(n, "model", lambda made, path=path: foreseen(path)) for n, path in settings.models.items()]
    chosen += [(n, "model", lambda made, n=n, r=r: made.trained(n, r)) for n, r in settings.pretrained.items()]
    chosen += [
        (f"distance of features of {n}", "floor", lambda made, path=path: made.encoder(_encoder(path)))
        for n, path in settings.encoders.items()
    ]
    rows = []
    for title, kind, make in chosen:
        model, begun = make(made), time.process_time()
        detector = SurpriseDetector.fit(model, calibration)
        found = _judged(detector, sound, cases, frame, settings.rate)
        seconds = (time.process_time() - begun) / (len(calibration) + len(sound) * (1 + len(cases)))
        for row in found:
            shown = kind in ("law", "model") or row["violation"].endswith(_CHOSEN)
            table = kind if shown else "left out"
            rows.append({"data": name, "detector": title, **row, "table": table, "ms_a_run": 1000 * seconds})
    return rows


def _encoder(path: str) -> Encoder:
    from pdessl.inference import load

    found = load(path)
    if not isinstance(found, Encoder):
        raise SchemaError(f"{path} holds a {type(found).__name__}; expected an encoder of 'pdessl pretrain'.")
    return found


def _judged(
    detector: SurpriseDetector, sound: Trajectories, cases: Mapping[str, Trajectories], frame: int, rate: float
) -> list[dict[str, Any]]:
    """Return a row per violation.

    AUROC: how often the largest statistic of a violated run is above that of another, sound run (the first half as they
    are, the second half violated). Paired: how often above that of the same run without; ties count half.
    """
    base = detector.detect(sound, rate)
    usual, half = np.nanmax(base.statistic.values, axis=1), len(sound) // 2
    rows: list[dict[str, Any]] = [{"violation": "none", "alarms": 100 * float(base.alarm.mean())}]
    start, step = sound.time[:, frame].numpy(), sound.time_step.numpy()
    for case, runs in cases.items():
        found = detector.detect(runs, rate)
        most = np.nanmax(found.statistic.values, axis=1)
        late = ((found.alarm_time.values - start) / step)[found.alarm.values]
        rows.append(
            {
                "violation": case,
                "auroc": 100 * area_under_roc(usual[:half], most[half:]),
                "paired": 100 * float(np.mean((most > usual) + 0.5 * (most == usual))),
                "alarms": 100 * float(found.alarm.mean()),
                "delay": round(float(np.median(late)), 6) if len(late) else None,
            }
        )
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("data", "violation", "detector", "auroc", "paired", "alarms", "delay")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [row.get(n) for n in head]
        shown = ["" if c is None else f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"
