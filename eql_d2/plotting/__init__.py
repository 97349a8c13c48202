"""Figures from metrics and annotation files; matplotlib is imported inside functions."""

from eql_d2.plotting.bars import plot_metrics_comparison
from eql_d2.plotting.category_ap import plot_category_ap
from eql_d2.plotting.counts import plot_category_counts, write_category_csv
from eql_d2.plotting.curves import plot_loss_curves, read_training_log
from eql_d2.plotting.images import write_png
from eql_d2.plotting.instances import draw_instances
from eql_d2.plotting.palette import category_color
from eql_d2.plotting.pictures import save_ground_truth_pictures, save_prediction_pictures
from eql_d2.plotting.predictions import list_images, predict_images
from eql_d2.plotting.results_table import (
    ResultRow,
    groups_source,
    read_results_csv,
    rows_from_runs,
    write_results_csv,
)

__all__ = [
    "ResultRow",
    "category_color",
    "draw_instances",
    "groups_source",
    "list_images",
    "plot_category_ap",
    "plot_category_counts",
    "plot_loss_curves",
    "plot_metrics_comparison",
    "predict_images",
    "read_results_csv",
    "read_training_log",
    "rows_from_runs",
    "save_ground_truth_pictures",
    "save_prediction_pictures",
    "write_category_csv",
    "write_png",
    "write_results_csv",
]
