"""Evolution operators: weak-form terms of fields, and the law that unlabelled runs obey with one code a run."""

from pdessl.operators.latent import Candidate, LatentOperator, discover
from pdessl.operators.library import Term, default_library
from pdessl.operators.saving import load_law, save_law
from pdessl.operators.weak import Grams, noise_level, weak_grams, weak_products

__all__ = [
    "Candidate",
    "Grams",
    "LatentOperator",
    "Term",
    "default_library",
    "discover",
    "load_law",
    "noise_level",
    "save_law",
    "weak_grams",
    "weak_products",
]
