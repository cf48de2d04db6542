"""The gain at a model that is named, from the rungs that were trained, before it is trained."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from metatune.artefact import Artefact, ArtefactError
from metatune.fit.artefact_folder import write_artefact
from metatune.fit.run_folder import RunFolder
from metatune.ladder.beyond import operations_of, parameters_of, points_of
from metatune.ladder.judging import as_json
from metatune.ladder.prediction import predict
from metatune.ladder.record import LadderRecord
from metatune.models import read_config
from metatune.recipe.faults import ABSENT, Fault
from metatune.runs.faults import RUN
from metatune.runs.lock import locked
from metatune.transfer.toward import toward_folder

LEDGER: Final = "transfer.json"


def predicted_at(folder: RunFolder, tuned: Artefact, model: Path, steps: int) -> dict[str, Any]:
    """Predicts the gain at a model, and writes it into the ledger with its time.

    It reads as many tokens in an update as the tuned training did. Nothing is trained.

    Args:
        folder: of the run.
        tuned: its artefact, with a ledger.
        model: a folder with the model's config.json.
        steps: updates of its training.

    Returns:
        What stands in the ledger's `farther`.

    Raises:
        ArtefactError: there is no ledger, or too few rungs for a line; what was tuned can't be
            carried to the model by the ledger's rule.
        RecipeError: the model's config can't be read.
    """
    ledger = tuned.transfer
    if ledger is None:
        problem = "isn't there: no rung was trained, so that nothing can be predicted"
        cure = "climb a ladder first, by `metatune transfer RUN --ladder ...`"
        raise ArtefactError("artefact", [Fault(LEDGER, ABSENT, problem, cure)])
    toward_folder(tuned, model, ledger["rule"], steps=steps)  # refuses what can't be carried
    tokens = tuned.horizon_tokens // tuned.horizon_steps * steps
    parameters = parameters_of(read_config(model), tuned.provenance.get("vocab_size"))
    operations = operations_of(parameters, tokens)
    if (made := predict(points_of(ledger), operations, parameters)) is None:
        problem = "has too few rungs for a line: two of different compute are needed"
        cure = "climb on, by `metatune transfer RUN --ladder ...`"
        raise ArtefactError("artefact", [Fault(LEDGER, len(ledger["rungs"]), problem, cure)])
    largest = max(rung["operations"] for rung in ledger["rungs"])
    found: dict[str, Any] = as_json(
        {
            "times": operations / largest,
            "operations": operations,
            **made._asdict(),
            "at": str(model),
            "steps": steps,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    with locked(folder.path, RUN):
        record = LadderRecord(folder.path, {"rule": ledger["rule"], **_own(ledger)})
        record.mend()
        record.name(found)
        kept = [each for each in ledger["farther"] if not each.get("at")]
        written = {**ledger, "farther": [*kept, *record.named()]}
        write_artefact(folder, replace(tuned, transfer=written))
    return found


def _own(ledger: Any) -> dict[str, Any]:
    return {key: ledger[key] for key in ("recipe_sha256", "best_outer_step")}
