"""The law of a dataset's unlabelled runs, what its code tells from few labels, and its section of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pdessl.data import PDEDataModule
from pdessl.errors import PdesslError
from pdessl.evaluation.targets import with_target
from pdessl.experiments.comparison import law_of_unlabelled
from pdessl.experiments.law_text import summary, symmetry_line
from pdessl.experiments.regression import Regression
from pdessl.experiments.routes import Route
from pdessl.experiments.scales import declared_scale
from pdessl.inference.measured import MeasuredParameter
from pdessl.operators import LatentOperator
from pdessl.trajectory import Trajectories

__all__ = ["ReadLaw", "as_report", "read_law"]


@dataclass(frozen=True)
class ReadLaw:
    """The law of unlabelled runs, and how well its code tells a parameter of the test runs.

    Args:
        law: of the unlabelled runs.
        symmetries: derived from it, in words.
        labels: number of labelled runs that were used.
        measured: on the test runs, from so many labels and the first seed; None where the law has no code or the code
            could not be read, which ``reason`` says.
        reason: why there is no measurement.
    """

    law: LatentOperator
    symmetries: str
    labels: int
    measured: MeasuredParameter | None
    reason: str = ""

    def lines(self, target: str) -> list[str]:
        """Return what is printed."""
        found = [*summary(self.law).splitlines(), self.symmetries, *self.law.warnings()]
        if self.measured is None:
            return [*found, f"{target}: {self.reason}"]
        return [
            *found,
            f"{target} from {self.labels} labels: {self.measured.error:.2g} % error on {len(self.measured.truth)} test "
            f"runs, {self.measured.coverage.share:.0%} of them in their {self.measured.coverage.level:.0%} interval",
        ]


def read_law(data: PDEDataModule, settings: Regression) -> ReadLaw:
    """Find the law of the unlabelled runs, and read the parameter from its code with the fewest labels of the settings.

    Args:
        data: with the splits unlabelled, labelled and test.
        settings: target, scale, numbers of labels, first seed.

    Raises:
        DataError, ShapeError: runs that have no law that can be found, see :func:`pdessl.operators.discover`.
    """
    law = law_of_unlabelled(data)
    count = min(n or len(data.labelled_subset(None)) for n in settings.labels)
    symmetries = symmetry_line(law)
    if not law.rank:
        return ReadLaw(law, symmetries, count, None, "nothing in the law differs from run to run")
    target = settings.target
    labelled: Trajectories = with_target(data.labelled_subset(count, settings.first_seed), target)
    try:
        route = Route(law, data, settings, settings.scale or declared_scale(data, target), labelled)
        model = route.fit(route.encode(labelled), "best")
        measured = model.measure(route.encode(with_target(data.test, target)), route.level)
    except PdesslError as error:
        return ReadLaw(law, symmetries, count, None, str(error))
    return ReadLaw(law, symmetries, count, measured.parameters[target])


def as_report(found: ReadLaw, data: PDEDataModule, target: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section ``law`` and its arrays; see :mod:`pdessl.evaluation.report`.

    The figure shows a test run as observed, and for all of them the code itself where there is one code, else what is
    predicted from the labels.
    """
    law, test = found.law, data.test
    section: dict[str, Any] = {
        "equation": str(law).splitlines(),
        "diagnostics": summary(law).splitlines()[-1],
        "symmetries": found.symmetries,
        "warnings": list(law.warnings()),
        "target": target,
        "labels": found.labels,
        "runs": law.count,
        "reason": found.reason,
    }
    arrays: dict[str, Any] = {}
    if found.measured is None:
        return section, arrays
    section["error"] = found.measured.error
    section["coverage"] = {"level": found.measured.coverage.level, "share": found.measured.coverage.share}
    section["shown"] = law.letters[0] if law.rank == 1 else "predicted"
    shown = law.encode(test)[0][:, 0].double().numpy() if law.rank == 1 else found.measured.prediction
    arrays |= {"law/shown": np.asarray(shown), "law/parameter": found.measured.truth}
    if len(test.space) == 1:
        middle = int(np.argsort(found.measured.truth)[len(test) // 4])
        arrays["law/field"] = test.fields[middle, 0].numpy().astype("float32")
        arrays["law/time"] = test.time[middle].numpy()
        arrays["law/space"] = test.space[0][middle].numpy()
        section["field"] = f"{test.field_names[0]}, a run as observed"
    return section, arrays
