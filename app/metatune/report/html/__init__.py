"""A run as one page of HTML that stands alone: what `metatune report` writes.

A chapter a file: a pure function from what is known of the run to words, figures and tables.
"""

from metatune.report.html.page import page
from metatune.report.html.sources import Sources, place, read

__all__ = ["Sources", "page", "place", "read"]
