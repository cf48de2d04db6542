"""The gradient certificate: whether a recipe's hypergradients can be trusted, and if not, why."""

from metatune.check.certificate import Certificate, as_json, certify, judge
from metatune.check.numbers import Numbers, Settings, as_record, from_record
from metatune.check.runs import check, measured, refuse_other_run, write_into_run
from metatune.check.subject import Draw, Subject

__all__ = [
    "Certificate",
    "Draw",
    "Numbers",
    "Settings",
    "Subject",
    "as_json",
    "as_record",
    "certify",
    "check",
    "from_record",
    "judge",
    "measured",
    "refuse_other_run",
    "write_into_run",
]
