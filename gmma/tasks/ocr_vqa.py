"""Task `ocr_vqa`: a question about text in the image.

    question  Which store is this receipt from?
    thought   The text reads SAFEWAY.
    answer    SAFEWAY

A record's answer is a text, or a list of accepted ones, of which the first is demonstrated. A
mirrored image would be no fair question, so augmentation never flips one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gmma.errors import UserError
from gmma.images.frames import AxisMap
from gmma.rewards.anls import anls_reward
from gmma.rewards.boxes import Box
from gmma.rewards.exact import exact_reward, read_gold_texts
from gmma.tasks.augment import Geometry
from gmma.tasks.records import refuse_tags, require_text
from gmma.tasks.task import Demonstration
from gmma.tasks.visual import Visual, VisualConfig, traced, visual_task
from gmma.types import Example


@dataclass(frozen=True, kw_only=True)
class OcrVqaConfig(VisualConfig):
    """Questions about text."""

    name: Literal["ocr_vqa"] = "ocr_vqa"  # which task this is


def read_truth(config: OcrVqaConfig, answer: Any, mask: np.ndarray | None) -> dict[str, Any]:
    """Read the column `answer`: the accepted texts."""
    if (texts := read_gold_texts(answer)) is None:
        raise UserError(f"the answer {str(answer)[:80]} is no text and no list of texts")
    for text in texts:
        refuse_tags(require_text(text, "an accepted text"), "an accepted text")
    return {"answer": texts}


def place(answer: Any, units: AxisMap) -> Any:
    """Return the truth as it is: a text has no place."""
    return answer


def move(columns: Mapping[str, Any], place: AxisMap) -> dict[str, Any]:
    """Change nothing: the truth has no place."""
    return {}


def bounds(columns: Mapping[str, Any]) -> Box | None:
    """Return None, which keeps crops from cutting the text off: it may be anywhere."""
    return None


def instruct(config: OcrVqaConfig) -> str:
    """Tell the model how to answer."""
    return "Answer with the text alone."


@traced
def demonstrate(config: OcrVqaConfig, example: Example, rng: np.random.Generator) -> Demonstration:
    """Demonstrate the first accepted text; ours."""
    text = example.columns["answer"][0]
    return Demonstration(thought=f"The text reads {text}.", answer=text)


def metrics(
    config: OcrVqaConfig, answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, list[float]]:
    """Measure `anls`, `exact` (case and space folded), and `parsed`: there is any text."""
    truths = [example.columns["answer"] for example in examples]
    blank = [""] * len(answers)
    return {
        "anls": [value or 0.0 for value in anls_reward(answers, thoughts=blank, answer=truths)],
        "exact": [value or 0.0 for value in exact_reward(answers, thoughts=blank, answer=truths)],
        "parsed": [float(bool(answer.strip())) for answer in answers],
    }


OCR_VQA = visual_task(
    Visual(
        name="ocr_vqa",
        config=OcrVqaConfig,
        read_truth=read_truth,
        place=place,
        geometry=Geometry(move=move, bounds=bounds, mirrors=False),
        instruct=instruct,
        speaks_coordinates=lambda config: False,
        demonstrate=demonstrate,
        metrics=metrics,
        headline="anls",
    )
)
