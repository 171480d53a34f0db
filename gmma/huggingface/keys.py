"""Read a config.json strictly: every key is used, known not to change the forward pass, or refused.

A key that we do not know is refused by name unless it is absent in effect (null, false, empty): a
config that asks for more than we compute must not load.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmma.errors import UserError

NOT_COMPUTED = frozenset(
    [
        "_model_name_or_path",  # transformers, from a GGUF file
        "_name_or_path",
        "architectures",
        "auto_map",
        "boi_token_index",
        "bos_token_id",
        "cache_implementation",
        "dtype",
        "eoi_token_index",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "label2id",
        "max_position_embeddings",
        "max_window_layers",
        "model_type",
        "pad_token_id",
        "tokens_per_second",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "use_cache",
        "video_token_id",
        "vision_end_token_id",
        "vision_start_token_id",
        "vision_token_id",
    ]
) | frozenset(  # what transformers before 5 wrote into every config, of generation and of outputs
    [
        "bad_words_ids",
        "begin_suppress_tokens",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "prefix",
        "problem_type",
        "pruned_heads",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torchscript",
        "typical_p",
        "use_bfloat16",
    ]
)


# Larger than any size of a model of these families; what is above would only take all memory.
MOST, MOST_LAYERS, MOST_TOKENS = 2**20, 1024, 2**22


@dataclass(frozen=True, kw_only=True)
class Section:
    """One dictionary of a config.json, and where it stands."""

    values: Mapping[str, Any]
    where: str  # file and section, for messages

    def get(self, key: str, default: Any) -> Any:
        """Return the value of a key; null counts as absent."""
        value = self.values.get(key)
        return default if value is None else value

    def size(self, key: str, default: int, most: int = MOST) -> int:
        """Read a whole number from 1 to `most`: a count. UserError for any other value."""
        value = self.get(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise UserError(
                f"{self.where}: {key} = {value!r}; it must be a whole number from 1 to {most}"
            )
        return value

    def number(self, key: str, default: float) -> float:
        """Read a positive number that is finite. UserError for any other value."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise UserError(f"{self.where}: {key} = {value!r}; it must be a number above 0")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Read a truth value. UserError for any other value."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise UserError(f"{self.where}: {key} = {value!r}; it must be true or false")
        return value

    def section(self, key: str) -> dict[str, Any]:
        """Read a dictionary within this one, empty if there is none. UserError otherwise."""
        value = self.get(key, {})
        if not isinstance(value, Mapping):
            raise UserError(
                f"{self.where}: {key} = {value!r}; it must be a JSON object, as the original has it"
            )
        return dict(value)

    def refuse(self, key: str, rule: str) -> UserError:
        """Make the error for a value that we do not implement."""
        return UserError(f"{self.where}: {key} = {self.values.get(key)!r}; gmma implements {rule}")

    def require(self, key: str, allowed: Sequence[Any]) -> None:
        """Refuse a value outside `allowed`; an absent key is allowed."""
        if self.values.get(key) is not None and self.values[key] not in allowed:
            raise self.refuse(key, f"only {', '.join(map(repr, allowed))} there")

    def require_known(self, known: Sequence[str]) -> None:
        """Refuse the keys that stand for something we do not compute."""
        unknown = sorted(
            key
            for key, value in self.values.items()
            if key not in known and key not in NOT_COMPUTED and value not in (None, False, [], {})
        )
        if unknown:
            raise UserError(
                f"{self.where} asks for {', '.join(unknown)}, which gmma does not implement; "
                "remove the key if it changes nothing, or use another model"
            )


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. UserError where there is none."""
    if not path.is_file():
        raise UserError(
            f"there is no {path}; give a Hugging Face model directory, in a bucket too, or "
            "hf://OWNER/NAME for one of the Hub"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); copy the file again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}, not a JSON object")
    return value
