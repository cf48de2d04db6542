"""The gradient certificate: whether a recipe's hypergradients can be trusted, and if not, why."""

from metatune.check.certificate import Certificate, Settings, as_json, certify
from metatune.check.runs import check, refuse_other_run, write_into_run
from metatune.check.subject import Draw, Subject

__all__ = [
    "Certificate",
    "Draw",
    "Settings",
    "Subject",
    "as_json",
    "certify",
    "check",
    "refuse_other_run",
    "write_into_run",
]
