"""The texts that come with metatune."""

import hashlib
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "corpora"


class ShippedCorpus(NamedTuple):
    """One text; origins and licences stand in `corpora/README.md`.

    Attributes:
        bytes: its length in UTF-8.
        sha256: of the text.
    """

    bytes: int
    sha256: str


class DamagedCorpusError(OSError):
    """A shipped file is not what was shipped."""


SHIPPED: Mapping[str, ShippedCorpus] = {
    "bible_web": ShippedCorpus(
        1999916, "55b6d9f77df413b8717a171f67f78af6eb03dc3c699c95ec9feaa92b649d9234"
    ),
    "code_stdlib": ShippedCorpus(
        1999942, "6a6e4b239243157f78a6c6cc38f6d04ad88d4613ef0c4ba3e7ce6fea3db73aa7"
    ),
    "drama_shakespeare": ShippedCorpus(
        2000000, "936eec443cc0ad026c685ea40b1415d3591cb84599e7159d881edf737a907a06"
    ),
    "prose_austen": ShippedCorpus(
        1999964, "38eec996fb777bd7830a0adf06ea77cf38cd93adb57f698d63b8e35b4f494534"
    ),
    "reference_factbook": ShippedCorpus(
        1999750, "ef7efca683d70562290408bb8ab1c76d4c22091846dd0703f951c27fd08ac49d"
    ),
    "spanish_rv1909": ShippedCorpus(
        1999997, "ebba2053992989a3303cb6b194b3ea31d0a5dd77eeaaa76d5a0a69b3256b2e6f"
    ),
}


def shipped_text(name: str, folder: Path = FOLDER) -> str:
    """Reads a shipped text and checks that it is the one that was shipped.

    Args:
        name: a key of `SHIPPED`.
        folder: where the compressed files are.

    Raises:
        DamagedCorpusError: the file is missing, can't be decompressed, or holds another text.
    """
    path = folder / f"{name}.txt.xz"
    cure = "install metatune again"
    try:
        text = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise DamagedCorpusError(f"{path}: can't be read ({error}); {cure}") from error
    found = hashlib.sha256(text).hexdigest()
    if found != SHIPPED[name].sha256:
        raise DamagedCorpusError(
            f"{path}: is damaged: sha256 of the text is {found}, must be {SHIPPED[name].sha256}; "
            f"{cure}"
        )
    return text.decode()
