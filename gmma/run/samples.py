"""One tree as a person reads it: on screen, as JSON, and drawn on its image."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from gmma.errors import printable
from gmma.files import RunPath
from gmma.records.metrics import Completion
from gmma.run.assembly import Parts
from gmma.scoring import ScoredRollout, TreeTexts
from gmma.tasks.defaults import Said, draw_answers
from gmma.types import Advantages, Example


@dataclass(frozen=True, kw_only=True)
class ScoredTrees:
    """A batch of trees with what became of them, on the host."""

    examples: tuple[Example, ...]
    scored: ScoredRollout
    advantages: Advantages


def tree_record(trees: ScoredTrees, row: int) -> dict[str, Any]:
    """Prompt, thoughts, answers, rewards and advantages of one tree as JSON values."""
    example, texts = trees.examples[row], trees.scored.texts
    thoughts = [
        {
            "thought": thought,
            **({} if texts.closed[row, i] else {"closed": False}),
            "advantage": float(trees.advantages.thought[row, i]),
            "answers": [answer_record(trees, row, i, j) for j in range(len(texts.answers[row][i]))],
        }
        for i, thought in enumerate(texts.thoughts[row])
    ]
    return {
        "id": example.id,
        "question": example.question,
        "truth": plain(example.columns.get("answer")),
        "thoughts": thoughts,
    }


def text_record(example: Example, texts: TreeTexts, row: int) -> dict[str, Any]:
    """Prompt, thoughts and answers of one tree that nothing has judged, as JSON values."""
    thoughts = [
        {
            "thought": thought,
            **({} if texts.closed[row, i] else {"closed": False}),
            "answers": [said_record(texts, row, i, j) for j in range(len(texts.answers[row][i]))],
        }
        for i, thought in enumerate(texts.thoughts[row])
    ]
    return {"id": example.id, "question": example.question, "thoughts": thoughts}


def said_record(texts: TreeTexts, row: int, i: int, j: int) -> dict[str, Any]:
    """Return what answer j to thought i of a tree says, as JSON values.

    `written` is there where the form was broken: all that the policy wrote behind its thought.
    """
    broken = not texts.well_formed[row, i, j]
    return {
        "answer": texts.answers[row][i][j],
        **({"written": texts.written[row][i][j]} if broken else {}),
    }


def answer_record(trees: ScoredTrees, row: int, i: int, j: int) -> dict[str, Any]:
    """Return answer j to thought i of a tree with what it earned, as JSON values."""
    scores = trees.scored.scores
    return {
        **said_record(trees.scored.texts, row, i, j),
        "reward": float(scores.rewards[row, i, j]),
        "terms": {name: float(values[row, i, j]) for name, values in scores.terms.items()},
        "advantage": float(trees.advantages.answer[row, i, j]),
    }


def completion_rows(trees: ScoredTrees) -> list[Completion]:
    """Return prompt, thought, answer and reward of every answer of a batch's trees.

    In place of an answer that cannot be read stands all that was written; a reward that is not
    finite is None.
    """
    texts, rewards = trees.scored.texts, trees.scored.scores.rewards
    rows: list[Completion] = []
    for at in np.ndindex(rewards.shape):
        row, i, j = at
        answer = texts.answers[row][i][j]
        said = texts.written[row][i][j] if answer is None else answer
        reward = float(rewards[at]) if np.isfinite(rewards[at]) else None
        rows.append((trees.examples[row].question, texts.thoughts[row][i], said, reward))
    return rows


def plain(value: Any) -> Any:
    """Turn arrays into lists, so that JSON takes them."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def write_tree(parts: Parts, trees: ScoredTrees, row: int, directory: RunPath) -> RunPath:
    """Write a tree as `write_record` does, with its rewards and advantages."""
    return write_record(parts, tree_record(trees, row), trees.examples[row], directory)


def write_record(
    parts: Parts, record: Mapping[str, Any], example: Example, directory: RunPath
) -> RunPath:
    """Write `tree.json` and `image.png`, truth and answers drawn; returns the picture's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tree.json").write_text(json.dumps(record, indent=1))
    picture = directory / "image.png"
    drawn = io.BytesIO()
    said = [said_of(answer) for thought in record["thoughts"] for answer in thought["answers"]]
    shown = draw_answers(parts.task, parts.config.task, example, said)
    shown.save(drawn, format="PNG")
    picture.write_bytes(drawn.getvalue())
    return picture


def said_of(answer: Mapping[str, Any]) -> Said:
    """Return what a picture says of an answer of a tree: its text, and what it earned."""
    terms = ", ".join(f"{name} {value:.3g}" for name, value in answer.get("terms", {}).items())
    earned = f"reward {answer['reward']:.2f}" if "reward" in answer else ""
    return Said(
        answer=answer["answer"] or "",
        note=earned + (f" ({terms})" if terms else ""),
        written=answer.get("written"),
    )


def seen(text: str) -> str:
    """Return a text as rich shows it: neither its own marks nor a terminal's are obeyed."""
    return escape(printable(text))


def print_tree(record: dict[str, Any], console: Console) -> None:
    """Print the tree: a thought with its advantage, below it its answers; bare if not judged.

    Of an answer that broke the form all is shown that was written behind the thought.
    """
    judged = "truth" in record
    truth = f"  truth {seen(str(record['truth']))}" if judged else ""
    root = Tree(f"[bold]{seen(record['question'])}[/]{truth}")
    for thought in record["thoughts"]:
        cut = "" if thought.get("closed", True) else "  [red]ran out of slots[/]"
        worth = f"  advantage {thought['advantage']:+.2f}" if judged else ""
        branch = root.add(f"[cyan]{seen(thought['thought'])}[/]{cut}{worth}")
        for answer in thought["answers"]:
            text = "[red]no answer[/]" if answer["answer"] is None else seen(answer["answer"])
            if judged:
                text += f"  reward {answer['reward']:.2f}  advantage {answer['advantage']:+.2f}"
            leaf = branch.add(text)
            if "written" in answer:
                leaf.add(f"[red]form broken, written:[/] {escape(repr(answer['written']))}")
    console.print(root)
