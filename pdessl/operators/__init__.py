"""Evolution operators: weak-form terms of fields, and the law that unlabelled runs obey with one code a run."""

from pdessl.operators.degraded import Coded, DegradedViews
from pdessl.operators.following import CoarseStep, Followed, codes_of, follow
from pdessl.operators.integration import LawFlow
from pdessl.operators.latent import Candidate, LatentOperator
from pdessl.operators.learned import Learned, fit_learned
from pdessl.operators.library import Term, default_library
from pdessl.operators.networks import AmortisedOperator, LearnedOperator, minimising_codes
from pdessl.operators.saving import load_law, save_law
from pdessl.operators.search import Choice, choose, discover, law_of
from pdessl.operators.surprise import Surprise, surprise
from pdessl.operators.weak import Grams, Projection, noise_level, weak_grams, weak_products

__all__ = [
    "AmortisedOperator",
    "Candidate",
    "Choice",
    "CoarseStep",
    "Coded",
    "DegradedViews",
    "Followed",
    "Grams",
    "LatentOperator",
    "LawFlow",
    "Learned",
    "LearnedOperator",
    "Projection",
    "Surprise",
    "Term",
    "choose",
    "codes_of",
    "default_library",
    "discover",
    "follow",
    "fit_learned",
    "law_of",
    "load_law",
    "minimising_codes",
    "noise_level",
    "save_law",
    "surprise",
    "weak_grams",
    "weak_products",
]
