"""Measure an exported model's accuracy in transformers, to be held beside `gmma eval`.

    gmma port export runs/word_problems_t4a4 exported --merge
    python experiments/prepare/transformers_accuracy.py exported data/word_problems/test.jsonl

Prompts are those of the export's chat template, responses are sampled at temperature 1 by
`generate`, and read and judged as gmma does. Only the sampler and the network are transformers'.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gmma.intervals import mean_interval
from gmma.rewards.mathematics import math_reward
from gmma.tasks.mathematics import read_problem
from gmma.text.prompt import read_response

BATCH = 50  # problems at a time


def sample(model: Any, tokenizer: Any, questions: list[str], slots: int) -> list[str]:
    """Sample one response a question."""
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for question in questions
    ]
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    out = model.generate(
        **batch,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=slots,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> None:
    """Print the accuracy of sampled answers with its 95 % interval over problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path, help="what gmma port export wrote")
    parser.add_argument("records", type=Path, help="JSON lines with question and answer")
    parser.add_argument("--samples", type=int, default=2, help="responses a problem")
    parser.add_argument("--slots", type=int, default=53, help="tokens of a response, at most")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(given.directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.directory, padding_side="left")
    records = [json.loads(line) for line in given.records.read_text().splitlines()]
    problems = [read_problem(record) for record in records]
    right = np.zeros((given.samples, len(problems)))
    for sampled in range(given.samples):
        for start in range(0, len(problems), BATCH):
            part = slice(start, start + BATCH)
            asked = [problem.question for problem in problems[part]]
            texts = sample(model, tokenizer, asked, given.slots)
            said = [read_response(text.encode(), b"").answer or "" for text in texts]
            truths = [problem.answer for problem in problems[part]]
            values = math_reward(said, thoughts=said, answer=truths)
            right[sampled, part] = [float(value or 0.0) for value in values]
    mean, low, high = mean_interval(right.mean(axis=0))
    print(f"accuracy of sampled answers {mean:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
