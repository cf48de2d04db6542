"""The files of an artefact, and the formats that they state."""

FORMAT = "metatune-artefact"
VERSION = 1

TUNED = "tuned.json"
TENSORS = "tuned.safetensors"
INITIALISATION = "initialisation.safetensors"
README = "README.md"
CERTIFICATE = "certificate.json"
TRANSFER = "transfer.json"
VERDICT = "verdict.json"
SIMPLE = "artefact-simple"  # a folder beside that of the artefact
RECIPE = "recipe.yaml"
META_PARAMETERS = "meta_parameters.safetensors"
REPLAY = "replay.json"

CERTIFICATE_FORMAT = "metatune-certificate"
CERTIFICATE_VERSION = 1

TRANSFER_FORMAT = "metatune-transfer"
TRANSFER_VERSION = 1

VERDICT_FORMAT = "metatune-verdict"
VERDICT_VERSION = 1

REPLAY_FORMAT = "metatune-replay"
REPLAY_VERSION = 1
