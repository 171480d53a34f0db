"""The text around questions, thoughts and answers: what is asked, and how a response is read.

    prompt   images, then the question, up to and including `<think>`
    thought  `{thought}</think>`
    answer   `<answer>{answer}</answer>`

The prompt opens the thought, so that a thought is all that the policy writes up to the closing tag.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gmma.errors import UserError
from gmma.tokenizer import Tokenizer

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
ANSWER_OPEN = "<answer>"
ANSWER_CLOSE = "</answer>"


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """The text that one model family puts around images and question."""

    opening: str = ""  # before everything, after the begin token where the tokenizer has one
    image_open: str = ""  # before and after the placeholders of each view of an image
    image_close: str = ""
    whole_view: str = ""  # before the whole image, where crops of it follow
    crop_views: str = ""  # before the first crop
    next_crop: str = ""  # before each other one
    closing: str = THINK_OPEN  # after the question


TINY_TEMPLATE = PromptTemplate()


def prompt_text(question: str, template: PromptTemplate = TINY_TEMPLATE) -> str:
    """The prompt as text, without begin token and images."""
    return f"{template.opening}{question}{template.closing}"


def prompt_tokens(
    question: str,
    image_tokens: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    template: PromptTemplate = TINY_TEMPLATE,
) -> list[int]:
    """The prompt's ids; `image_tokens` holds, per image, the placeholders of each of its views.

    Raises UserError where there are images but the tokenizer has no image token, and where the
    question itself spells a placeholder.
    """
    if image_tokens and tokenizer.image_token is None:
        raise UserError(
            f"the record has {len(image_tokens)} images but the tokenizer has no image token; "
            "use a task without images or a vision-language tokenizer"
        )
    texts = [template.opening]  # what stands between views is encoded in one piece
    for views in image_tokens:
        for place in range(len(views)):
            texts[-1] += view_text(place, len(views), template) + template.image_open
            texts.append(template.image_close)
    texts[-1] += f"{question}{template.closing}"
    first, *others = (tokenizer.encode(text) for text in texts)
    if any(tokenizer.image_token in ids for ids in (first, *others)):
        raise UserError(
            f"the question {question!r} holds the text of an image placeholder; remove it"
        )
    ids = [*([] if tokenizer.bos is None else [tokenizer.bos]), *first]
    counts = (count for views in image_tokens for count in views)
    for count, text in zip(counts, others, strict=True):
        ids += [tokenizer.image_token] * count  # type: ignore[list-item]
        ids += text
    return ids


def view_text(place: int, count: int, template: PromptTemplate) -> str:
    """The words before view `place` of an image that is shown in `count` views."""
    if count == 1:
        return ""
    return (template.whole_view, template.crop_views, template.next_crop)[min(place, 2)]


def thought_text(thought: str) -> str:
    """The thought node's text."""
    return f"{thought}{THINK_CLOSE}"


def answer_text(answer: str) -> str:
    """The answer node's text."""
    return f"{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


def parse_thought(text: str) -> str:
    """The thought within a thought node's text: all before the first closing tag."""
    return text.partition(THINK_CLOSE)[0]


def parse_answer(text: str) -> str | None:
    """The answer within an answer node's text, or None where the node breaks the form.

    After stripping white space the node must open with `<answer>` and close; a second opening tag
    inside breaks the form. Text after the first closing tag is tolerated, since the token that
    closes may carry more.
    """
    head, opening, rest = text.lstrip().partition(ANSWER_OPEN)
    answer, closing, _ = rest.partition(ANSWER_CLOSE)
    whole = opening and closing and not head and ANSWER_OPEN not in answer
    return answer if whole else None
