"""How good is it? FreiHAND's scores, and run folders on test sets with what makes a hand hard."""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    freihand_scores="freihand",
    score_file="freihand",
    ScoreReport="freihand",
    evaluate_run="runs",
    find_runs="runs",
)
