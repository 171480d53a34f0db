"""Decide about the SFT of a run that begins with another run's parameters, which had its own."""

from dataclasses import replace

from gmma.config import ExperimentConfig
from gmma.errors import UserError
from gmma.files import read_json
from gmma.porting.checkpoints import IMPORT_FILE
from gmma.records.resuming import CONFIG_FILE


def from_origin(config: ExperimentConfig, *, repeat_sft: bool) -> tuple[ExperimentConfig, str]:
    """Return the config without an SFT that its `init_from` had, and a line that says so.

    SFT stays where it is asked for, where the run has no RL, and behind an import, which had none.
    A run that has begun has decided. UserError where there is nothing to repeat.
    """
    origin, steps = config.init_from, config.sft.steps
    if origin is None or not steps:
        if repeat_sft:
            raise UserError(
                f"--repeat-sft with init_from = {origin} and sft.steps = {steps}: it repeats the "
                "SFT of the run that --init-from names; give both, or leave it away"
            )
        return config, ""
    if not config.rl.steps:
        return config, f"--init-from {origin}: SFT goes on from its parameters, for {steps} steps"
    if repeat_sft:
        return config, f"--init-from {origin}: SFT is repeated from its parameters, {steps} steps"
    saved = config.run_dir / CONFIG_FILE
    if saved.is_file():
        begun = read_json(saved).get("sft")
        left_out = isinstance(begun, dict) and begun.get("steps") == 0
    else:
        left_out = (origin / CONFIG_FILE).is_file()
    if left_out:
        return replace(config, sft=replace(config.sft, steps=0)), (
            f"--init-from {origin}: its SFT is not repeated: {steps} steps of this experiment's "
            "are left out; --repeat-sft takes them"
        )
    imported = (origin / IMPORT_FILE).is_file()
    words = f"--init-from {origin}: an import, which had no SFT: {steps} steps of it come first"
    return config, words if imported else ""
