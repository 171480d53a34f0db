"""Tiny random model directories with tokenizers, written without transformers.

Beside the golden models they have a vocabulary that can spell a task, and a size to train.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import sentencepiece
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from gmma.families.qwen2_5_vl.tokenizer import QWEN_SPECIAL, QWEN_SPLIT
from gmma.huggingface.weights import write_params
from gmma.porting.pretrained import describe_pretrained

GOLDEN = Path(__file__).parent / "golden"
CORPUS = [
    "Where is the cup? It stands left of the 12 plates, behind the door.",
    "<answer>[10, 20.5, 300, 480]</answer> was wrong; the box is [11, 20, 310, 470].",
    "7 at 25, 38; 3 at 12, 0</think> Think first, inside <think> and </think>.",
    "def f(x):\n    return x**2 + 1\n\n\nÄpfel, naïve café, 数学は楽しい, 🙂 привет",
] * 8
TEMPLATES = Path(__file__).parent / "chat_templates"
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "tie_word_embeddings": True,
}
GEMMA_SPECIAL = (
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
)


def write_gemma_tokenizer(directory: Path) -> dict[str, int]:
    """A SentencePiece model as Gemma's: BPE, byte fallback, identity, no dummy prefix.

    Returns the ids of the special tokens, which stand behind the model's own.
    """
    path = directory / "tokenizer.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_prefix=str(path.with_suffix("")),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["\n\n", "\n"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).vocab_size()
    ids = {token: size + i for i, token in enumerate(GEMMA_SPECIAL)}
    added = {str(number): {"content": token, "special": True} for token, number in ids.items()}
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    return ids


def write_qwen_tokenizer(directory: Path) -> dict[str, int]:
    """A byte-level BPE as Qwen's; the ids of its special tokens."""
    library = Library(models.BPE())
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(CORPUS, trainer)
    library.add_special_tokens(list(QWEN_SPECIAL))
    library.add_tokens(["<tool_call>"])
    library.save(str(directory / "tokenizer.json"))
    return {token: library.token_to_id(token) for token in QWEN_SPECIAL}


def gemma_config(config: dict[str, Any], ids: dict[str, int]) -> None:
    """The golden config with another vocabulary."""
    config["image_token_index"] = ids["<image_soft_token>"]
    config["boi_token_index"] = ids["<start_of_image>"]
    config["eoi_token_index"] = ids["<end_of_image>"]
    config["text_config"]["vocab_size"] = max(ids.values()) + 3


def qwen_config(config: dict[str, Any], ids: dict[str, int]) -> None:
    """The golden config with another vocabulary."""
    config["image_token_id"] = ids["<|image_pad|>"]
    config["video_token_id"] = ids["<|video_pad|>"]
    config["vision_start_token_id"] = ids["<|vision_start|>"]
    config["vision_end_token_id"] = ids["<|vision_end|>"]
    config["text_config"]["vocab_size"] = max(ids.values()) + 3


def write_llama_tokenizer(directory: Path) -> dict[str, int]:
    """A byte-level BPE with the template and the end token of SmolLM2."""
    ids = write_qwen_tokenizer(directory)
    template = (TEMPLATES / "smollm2.jinja").read_text()
    named = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(named))
    return ids


def llama_config(config: dict[str, Any], ids: dict[str, int]) -> None:
    """A size of its own: there is no golden model."""
    config |= LLAMA | {"vocab_size": max(ids.values()) + 3, "eos_token_id": ids["<|im_end|>"]}


WRITERS: dict[str, tuple[Callable[[Path], dict[str, int]], Callable[..., None]]] = {
    "llama": (write_llama_tokenizer, llama_config),
    "gemma3": (write_gemma_tokenizer, gemma_config),
    "qwen2_5_vl": (write_qwen_tokenizer, qwen_config),
    "qwen3_vl": (write_qwen_tokenizer, qwen_config),
    "qwen3_5": (write_qwen_tokenizer, qwen_config),
}


def write_directory(family: str, directory: Path) -> Path:
    """A random model of the family with all that a Hugging Face directory holds."""
    directory.mkdir(parents=True)
    write_tokenizer, change = WRITERS[family]
    golden = GOLDEN / family
    written = golden / "config.json"
    config = json.loads(written.read_text()) if written.is_file() else {}
    change(config, write_tokenizer(directory))
    (directory / "config.json").write_text(json.dumps(config))
    for path in (golden / "generation_config.json", golden / "preprocessor_config.json"):
        if path.is_file():
            (directory / path.name).write_text(path.read_text())
    described = describe_pretrained(directory)
    table = described.family.table(described.policy.config)
    params = jax.jit(described.policy.init)(jax.random.key(0))  # op by op it takes half a minute
    leaves = params["params"]
    large = {**leaves, "embedding": 15 * leaves["embedding"]}  # so that adapters can move logits
    write_params(directory, {"params": large}, table.places(table.prefixes))
    return directory
