"""Posteriors of a parameter by sbi on a frozen encoder: error, calibration, and what is not like the simulations.

    pip install 'pdessl[sbi]'
    python benchmarks/posterior.py --out results/rows/posterior.json              # codes of a law found without labels
    python benchmarks/posterior.py --encoder runs/burgers/encoder                 # features of a pretrained encoder

Neural posterior estimation (Papamakarios, Murray 2016; sbi's NPE) of the logarithm of the viscosity of Burgers runs
from embeddings of simulated runs. Simulation-based calibration (Talts et al. 2018): ranks of the truth among draws,
tested for uniformity. Misspecification: Mahalanobis distance of a run's embedding (a threshold that 1 % of simulated
runs pass), and the maximum mean discrepancy of a set of runs from the simulated ones (Schmitt et al. 2022).
"""

import argparse
import math
import shlex
import sys
import time
import warnings
from pathlib import Path

import torch

import pdessl
from pdessl.data import simulate
from pdessl.data.recipe import load_recipe
from pdessl.evaluation.novelty import Novelty
from pdessl.experiments.provenance import machine, versions
from pdessl.files import write_json
from pdessl.inference.run_embedding import RunEmbedding

NAME = "viscosity"
WRONG = {
    "the same, other runs": {},
    "noise of three times the size": {"observation.noise": 0.06},
    "a travelling force that the simulations lack": {
        "forcing": {"family": "sine", "terms": 3, "amplitude": 0.3, "frequency": 0.4, "wave_numbers": [1, 2]}
    },
    "viscosities above the prior": {"parameters.viscosity.low": 0.5, "parameters.viscosity.high": 0.8},
}


def encoder_of(path, unlabelled):
    """Return the encoder of a folder, or a law found in runs without labels."""
    return pdessl.discover(unlabelled.without_parameters(), resamples=0) if path is None else pdessl.load(path)


def main():
    """Estimate, calibrate, look for what is wrong, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="burgers")
    parser.add_argument("--encoder", help="folder of pdessl pretrain; default: a law")
    parser.add_argument("--simulations", type=int, default=1024)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=200, help="at most")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from sbi.diagnostics import calc_misspecification_mmd, check_sbc, run_sbc
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn
    from sbi.utils import BoxUniform

    torch.set_num_threads(1)
    torch.manual_seed(0)
    begun = time.process_time()
    recipe = load_recipe(options.dataset)
    known = simulate(recipe, "unlabelled", range(options.simulations))
    embedding = RunEmbedding(encoder_of(options.encoder, known[slice(0, 256)]), known)
    x, theta = embedding(known.fields), known.parameters[NAME].log().float()[:, None]
    span = recipe.parameters[NAME]
    prior = BoxUniform(torch.tensor([math.log(span.low)]), torch.tensor([math.log(span.high)]))
    # The embedding is frozen, so that it is computed once: the network reads embeddings.
    inference = NPE(prior, density_estimator=posterior_nn("nsf", hidden_features=32, num_transforms=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sbi's own dependencies
        inference.append_simulations(theta, x).train(max_num_epochs=options.epochs)
        posterior = inference.build_posterior()
        test = simulate(recipe, "test", range(options.test))
        seen, truth = embedding(test.fields), test.parameters[NAME].log().float()[:, None]
        ranks, means = run_sbc(truth, seen, posterior, options.draws, show_progress_bar=False)
        checked = check_sbc(ranks, truth, means, options.draws)
        draws = posterior.sample_batched((options.draws,), seen, show_progress_bars=False)[..., 0]
    low, high = draws.quantile(0.05, dim=0), draws.quantile(0.95, dim=0)
    inside = ((truth[:, 0] >= low) & (truth[:, 0] <= high)).double().mean()
    error = ((draws.mean(dim=0) - truth[:, 0]).exp() - 1).abs().mean()
    rows = [{
        "what": "posterior", "simulations": options.simulations, "error_of_the_mean_percent": 100 * float(error),
        "width_of_90_percent": 100 * float(((high - low).exp() - 1).mean()), "inside_90": 100 * float(inside),
        "sbc_p_of_uniform_ranks": float(checked["ks_pvals"][0]), "sbc_c2st_of_ranks": float(checked["c2st_ranks"][0]),
    }]  # fmt: skip
    half = len(x) // 2
    novelty = Novelty.fit(x[:half].double().numpy(), x[half:].double().numpy(), level=0.99)
    for number, (title, changes) in enumerate(WRONG.items()):
        odd = load_recipe(options.dataset, overrides=changes)
        runs = simulate(odd, "labelled", range(min(64, options.test)))
        found = embedding(runs.fields)
        score = torch.as_tensor(novelty.score(found.double().numpy()))
        p_value, _ = calc_misspecification_mmd(found, x, mode="x_space", n_shuffle=200)
        row = {"what": title, "called_novel": 100 * float((score > 1).double().mean()), "mmd_p": float(p_value)}
        rows.append(row | ({"runs": len(runs)} if number == 0 else {}))
    told = "codes of a law" if options.encoder is None else options.encoder
    rows = [{"embedding": told, "table": "posterior" if n == 0 else "likeness", **row} for n, row in enumerate(rows)]
    for row in rows:
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
    if options.out is not None:
        command = shlex.join(["python", "benchmarks/posterior.py", *sys.argv[1:]])
        seconds = round(time.process_time() - begun)
        content = {"rows": rows, "command": command, "versions": versions(), "machine": machine(), "seconds": seconds}
        write_json(options.out, content)


if __name__ == "__main__":
    main()
