"""The text around questions, thoughts and answers: what is asked, and how a response is read.

    prompt   images and question, up to and including `<think>`
    thought  `{thought}</think>`
    answer   `<answer>{answer}</answer>`

A run may have other tags (`prompt.tags`). The prompt opens the thought, so that a thought is all
that the policy writes up to the closing tag. Images stand before the question, or where it says
`<image>`, once for each.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gmma.errors import UserError
from gmma.options.prompt import DEFAULT_TAGS, PromptConfig, Tags, TinyTemplate
from gmma.options.prompt import IMAGE_MARK as IMAGE_MARK
from gmma.text.tokenizer import Tokenizer

THINK_OPEN, THINK_CLOSE = DEFAULT_TAGS.think
ANSWER_OPEN, ANSWER_CLOSE = DEFAULT_TAGS.answer
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}()]', re.DOTALL)
TAGS = DEFAULT_TAGS.all


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """The text that one model family puts around images and question."""

    opening: str = ""  # before everything, after the begin token where the tokenizer has one
    # In place of `opening`, before and after a system prompt; None: the family has no place for one
    system: tuple[str, str] | None = None
    image_open: str = ""  # before and after the placeholders of each view of an image
    image_close: str = ""
    whole_view: str = ""  # before the whole image, where crops of it follow
    crop_views: str = ""  # before the first crop
    next_crop: str = ""  # before each other one
    # Outer white space of a question, and of a system prompt, is left out, as the family does
    strip: bool = False
    strip_system: bool = False
    closing: str = THINK_OPEN  # after the question
    tags: Tags = DEFAULT_TAGS  # of a reply; the first stands at the end of `closing`

    def ask(self, text: str) -> str:
        """Return the question as the prompt has it."""
        return text.strip() if self.strip else text

    def open(self, system: str) -> str:
        """Return what stands before everything. UserError for a system prompt without a place."""
        if not system:
            return self.opening
        if self.system is None:
            raise UserError(
                f"the chat template of this model shows no system prompt ({system!r:.60}); put "
                "these words into the question or the instruction"
            )
        before, after = self.system
        return f"{before}{system.strip() if self.strip_system else system}{after}"


def tiny_template(texts: TinyTemplate, words: PromptConfig) -> PromptTemplate:
    """Return the tiny family's prompt with a run's words; the form begins a line."""
    form = f"\n{words.form}" if words.form else ""
    return PromptTemplate(
        opening=texts.opening,
        system=texts.system,
        image_open=texts.image[0],
        image_close=texts.image[1],
        closing=f"{form}{texts.closing}{words.tags.think[0]}",
        tags=words.tags,
    )


TINY_TEMPLATE = tiny_template(TinyTemplate(), PromptConfig())


def prompt_text(question: str, template: PromptTemplate = TINY_TEMPLATE, system: str = "") -> str:
    """Return the prompt as text, without begin token and images."""
    return f"{template.open(system)}{template.ask(question)}{template.closing}"


def prompt_tokens(
    question: str,
    image_tokens: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    template: PromptTemplate = TINY_TEMPLATE,
    system: str = "",
) -> list[int]:
    """Encode the prompt; `image_tokens` holds, per image, the placeholders of each of its views.

    Raises UserError where there are images but the tokenizer has no image token, where the question
    says `<image>` another number of times, and where it spells a placeholder itself.
    """
    if image_tokens and tokenizer.image_token is None:
        raise UserError(
            f"the record has {len(image_tokens)} images but the tokenizer has no image token; "
            "use a task without images or a vision-language tokenizer"
        )
    texts = [template.open(system)]  # what stands between views is encoded in one piece
    *before, last = split_at_images(template.ask(question), len(image_tokens))
    for words, views in zip(before, image_tokens, strict=True):
        texts[-1] += words
        for place in range(len(views)):
            texts[-1] += view_text(place, len(views), template) + template.image_open
            texts.append(template.image_close)
    texts[-1] += f"{last}{template.closing}"
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


def split_at_images(question: str, images: int) -> list[str]:
    """Return the words before each image and behind the last; all images first without a mark.

    Raises UserError where the question has marks for another number of images. Without images the
    mark is a word as any other.

    >>> split_at_images("Is <image> like <image>?", 2), split_at_images("Which?", 2)
    (['Is ', ' like ', '?'], ['', '', 'Which?'])
    """
    parts = question.split(IMAGE_MARK)
    if not images or len(parts) == 1:
        return [*[""] * images, question]
    if len(parts) != images + 1:
        raise UserError(
            f"the question says {IMAGE_MARK} {len(parts) - 1} times and the record has {images} "
            f"images; say it once for each, or not at all: {question!r:.80}"
        )
    return parts


def view_text(place: int, count: int, template: PromptTemplate) -> str:
    """Return the words before view `place` of an image that is shown in `count` views."""
    if count == 1:
        return ""
    return (template.whole_view, template.crop_views, template.next_crop)[min(place, 2)]


def check_tags(tokenizer: Tokenizer, where: str, tags: Tags = DEFAULT_TAGS) -> None:
    """Raise UserError if a tag that is encoded and decoded comes back as another text.

    Then no answer could ever be read: stops and readers look for the tags' text.
    """
    whole = f"{tags.think[0]}7{thought_text('', tags)}{answer_text('7', tags)}"
    for text in (*tags.all, whole):
        try:
            ids = tokenizer.encode(text)
        except UserError as error:
            raise UserError(
                f"{where} cannot spell {text} ({error}); add the tags {' '.join(tags.all)} to it"
            ) from error
        spelt = b"".join(tokenizer.token_bytes[token] for token in ids)
        if spelt != text.encode() or tokenizer.decode(ids) != text:
            raise UserError(
                f"{where} does not keep {text}: it is encoded as {ids} and read back as "
                f"{tokenizer.decode(ids)!r}; use a tokenizer that keeps it, as text or as a token "
                "of its own"
            )


def check_slots(
    tokenizer: Tokenizer, thought_tokens: int, answer_tokens: int, tags: Tags = DEFAULT_TAGS
) -> None:
    """Raise UserError if the slots of a thought or an answer have no room beside the tags."""
    closing = len(tokenizer.encode(tags.think[1]))
    if thought_tokens <= closing:
        raise UserError(
            f"tree.thought_tokens = {thought_tokens} leaves no room beside the closing tag's "
            f"{closing} tokens; set it to {closing + 1} or more"
        )
    shortest = answer_text("7", tags)
    needed = len(tokenizer.encode(shortest))
    if answer_tokens < needed:
        raise UserError(
            f"tree.answer_tokens = {answer_tokens} cannot hold an answer and its tags: {shortest} "
            f"has {needed} tokens; set it to {needed} or more"
        )


def thought_text(thought: str, tags: Tags = DEFAULT_TAGS) -> str:
    """Return the thought node's text."""
    return f"{thought}{tags.think[1]}"


def answer_text(answer: str, tags: Tags = DEFAULT_TAGS) -> str:
    """Return the answer node's text."""
    return f"{tags.answer[0]}{answer}{tags.answer[1]}"


@dataclass(frozen=True, kw_only=True)
class Response:
    """The joined reading of a thought and its answer."""

    thought: str
    answer: str | None  # None if none can be read
    well_formed: bool  # the answer's part is one `<answer>…</answer>` and nothing before it
    written: str  # all that follows the thought


def read_response(thought: bytes, answer: bytes, tags: Tags = DEFAULT_TAGS) -> Response:
    """Read the two nodes of a path, UTF-8, as their joined text is read.

    Where tokens were cut does not matter: what the token that closes the thought brings beyond the
    tag (`><` for Qwen, which writes `</think><answer>` so) begins the answer, half a character
    included. A thought without a closing tag ends with its node.
    """
    head, _, overshoot = thought.partition(tags.think[1].encode())
    behind = (overshoot + answer).decode(errors="replace")
    return Response(
        thought=head.decode(errors="replace"),
        answer=parse_answer(behind, tags),
        well_formed=is_well_formed(behind, tags),
        written=behind,
    )


def parse_answer(text: str, tags: Tags = DEFAULT_TAGS) -> str | None:
    """Return the answer within what follows a thought, or None where there is none.

    It stands between the first `</answer>` and the `<answer>` before it. Words before that are
    tolerated here and cost the form (`is_well_formed`); so is what follows, since the token that
    closes may carry more. Two openings before the first closing leave open where it begins: None.
    A list that ran out of slots gives its whole entries, and costs the form too.
    """
    before, closing, _ = text.partition(tags.answer[1])
    parts = before.split(tags.answer[0])
    if len(parts) != 2:
        return None
    return parts[1] if closing else whole_entries(parts[1])


def whole_entries(text: str) -> str | None:
    """Close a list of groups that a text begins and does not end behind its last whole group.

    None where no group within a list is whole: the last of plain numbers or words may be cut.

    >>> whole_entries('[{"box": [1, 2]}, {"box": [3'), whole_entries("[1, 2, 3"), whole_entries("7")
    ('[{"box": [1, 2]}]', None, None)
    """
    depth, end = 0, None
    for sign in _STRING_OR_BRACKET.finditer(text):
        if sign[0] in "[{(":
            if depth == 0 and sign[0] != "[":
                return None
            depth += 1
        elif sign[0] in "]})":
            depth -= 1
            if depth <= 0:  # a list of its own is whole
                return None
            end = sign.end() if depth == 1 else end
    return None if end is None else text[:end] + "]"


def is_well_formed(text: str, tags: Tags = DEFAULT_TAGS) -> bool:
    """Return whether a thought is followed by `<answer>…</answer>`, white space before it aside."""
    opened = text.lstrip().startswith(tags.answer[0])
    return opened and tags.answer[1] in text and parse_answer(text, tags) is not None
