"""Do views that move the label help, and if not, is it the noise? Moments and a ridge, on clean and noisy Burgers runs.

    python benchmarks/label_moving.py --out results/rows/label_moving.json        # two minutes of one core

The scaling of the viscosity multiplies the field, and so its noise: in moved views the size of the noise tells by how
much the label was moved, in test runs it tells nothing. ``noise made equal`` adds noise until all views have as much.
"""

import argparse
import math
from pathlib import Path

import torch

import pdessl
from pdessl.augmentation import LieAugmentation
from pdessl.data import load_recipe
from pdessl.evaluation.metrics import error_in_percent
from pdessl.evaluation.physics_features import moments_of
from pdessl.evaluation.tables import measured
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.models import bounded, embed, fit_ridge

PLAIN = {"space_translation": 0.5, "galilean_boost": 0.25}
REACH = 0.5  # largest log of the factor of length; the viscosity moves by its double
WINDOW = (32, 64)


def with_noise(runs, deviation, generator):
    """Return runs with white noise of a standard deviation (n,) or a number added."""
    deviation = torch.as_tensor(deviation, dtype=torch.float32).expand(len(runs))
    drawn = torch.randn(runs.fields.shape, generator=generator)
    return runs.replace(fields=runs.fields + deviation.view(-1, 1, 1, 1) * drawn)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[16, 64, 192])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=256)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = LieAugmentation("burgers", PLAIN, reflections=True, window=WINDOW)
    moved = LieAugmentation(
        "burgers", {**PLAIN, "viscosity_scaling": REACH}, moves=("viscosity",), reflections=True, window=WINDOW
    )
    rows = []
    for noise in (0.0, 0.02):
        recipe = load_recipe("burgers", overrides={"observation.noise": noise})
        train = pdessl.simulate(recipe, "labelled", range(max(options.labels)))
        test = pdessl.simulate(recipe, "test", range(options.test))
        truth = test.parameters["viscosity"].double()
        made = moments_of(train[slice(0, 2)].window(slice(0, WINDOW[0])))
        most = noise * math.exp(REACH)

        def features(runs, made=made):
            return embed(made, (runs[slice(i, i + 64)] for i in range(0, len(runs), 64))).cpu()

        for method in ("plain", "moved", "moved, noise made equal")[: 2 if noise == 0 else 3]:
            equal = "equal" in method
            for count in options.labels:
                errors = []
                for seed in range(options.seeds):
                    generator = torch.Generator().manual_seed(seed)
                    runs = train[torch.randperm(len(train), generator=generator)[:count].tolist()]
                    x, y = [], []
                    for _ in range(options.views):
                        view, elements = (moved if "moved" in method else plain)(runs, generator)
                        if equal:
                            own = noise * elements.strengths["viscosity_scaling"].exp()
                            view = with_noise(view, (most**2 - own**2).clamp_min(0).sqrt(), generator)
                        x.append(features(view))
                        y.append(view.parameters["viscosity"].double().log())
                    readout = fit_ridge(torch.cat(x), torch.cat(y)[:, None])
                    seen = [plain(test, generator)[0] for _ in range(2)]
                    if equal:
                        seen = [with_noise(view, math.sqrt(most**2 - noise**2), generator) for view in seen]
                    guess = readout.predict(sum(map(features, seen)) / len(seen))[:, 0].double()
                    known = runs.parameters["viscosity"].double().log()
                    errors.append(float(error_in_percent(bounded(guess, known).exp(), truth)))
                row = {"noise": noise, "method": method, "labels": count, "relative_error": measured(errors)}
                rows.append(row)
                print(f"noise {noise:<5g} {method:<24s} {count:4d} labels {row['relative_error']['mean']:6.2f} %")
    if options.out is not None:
        command = "python benchmarks/label_moving.py"
        write_json(options.out, {"rows": rows, "command": command, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
