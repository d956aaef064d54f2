"""Figures: charts of numbers, and sheets of pictures.

Every function takes data and returns a matplotlib Figure; `save` writes one whole. Nothing here knows a model, and
pyplot's list of open figures is left alone, so that a run which draws hundreds of them keeps none in memory.
"""

import visualisation.backend  # noqa: F401  before anything else imports matplotlib
from visualisation.certainty import coverage_curve, interval_chart, reliability_diagram
from visualisation.charts import (
    bar_chart,
    confusion_matrix,
    context_chart,
    learning_curves,
    score_against_virality,
    submissions_per_image,
    virality_distribution,
)
from visualisation.comparison import comparison_chart
from visualisation.drawing import BLUE, SKY, VERMILLION, Figure, as_bytes, save, save_with_data
from visualisation.sheets import pairs, picture_grid, ranked_strip, windows_on_pictures, windows_over_epochs

__all__ = [
    "BLUE",
    "SKY",
    "VERMILLION",
    "Figure",
    "as_bytes",
    "bar_chart",
    "comparison_chart",
    "confusion_matrix",
    "context_chart",
    "coverage_curve",
    "interval_chart",
    "learning_curves",
    "pairs",
    "picture_grid",
    "ranked_strip",
    "reliability_diagram",
    "save",
    "save_with_data",
    "score_against_virality",
    "submissions_per_image",
    "virality_distribution",
    "windows_on_pictures",
    "windows_over_epochs",
]
