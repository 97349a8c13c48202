"""A self-contained html page about one or more runs."""

from eql_d2.reporting.report import write_report
from eql_d2.reporting.runs import Run, Side, files_of_runs, read_sides

__all__ = ["Run", "Side", "files_of_runs", "read_sides", "write_report"]
