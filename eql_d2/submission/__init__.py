"""Check results files, and make the files that test servers take."""

from eql_d2.submission.packing import Submission, pack_submission
from eql_d2.submission.validation import Validation, validate_results

__all__ = ["Submission", "Validation", "pack_submission", "validate_results"]
