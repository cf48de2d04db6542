"""The tuned optimizer and schedule for Axolotl, as a plugin of its configuration.

plugins:
  - metatune_axolotl.TunedPlugin
"""

from typing import Any

from axolotl.integrations.base import BasePlugin  # pyright: ignore[reportMissingImports]
from metatune_trainer import Tuned  # pyright: ignore[reportMissingImports]


class TunedPlugin(BasePlugin):
    """Trains by Axolotl's own trainer with every parameter on its curve."""

    def get_trainer_cls(self, cfg: Any) -> type:
        """Its trainer for causal language models, with the tuned schedules."""
        from axolotl.core.trainers.base import (  # pyright: ignore[reportMissingImports]
            AxolotlTrainer,
        )

        class TunedAxolotlTrainer(Tuned, AxolotlTrainer):
            """Axolotl's trainer with the tuned schedules."""

        return TunedAxolotlTrainer
