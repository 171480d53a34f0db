"""Streams that resume exactly, prompts and demonstrations that fit or say why not."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmma.errors import UserError
from gmma.images.processor import fixed_size_processor, unit_images
from gmma.run.data import batch_demonstrations, batch_prompts, example_batches, position_generator
from gmma.tasks.task import Demonstration
from gmma.text.tokenizer import Tokenizer
from gmma.types import Example


def byte_tokenizer() -> Tokenizer:
    return Tokenizer(
        encode=lambda text: list(text.encode()),
        decode=lambda ids: bytes(ids).decode(),
        token_bytes=tuple(bytes([i]) for i in range(256)),
        vocab_size=260,
        pad=256,
        bos=None,
        stop_tokens=(258,),
        image_token=259,
    )


def example(index: int, *, question: str = "q", side: int = 4) -> Example:
    image = np.full((side, side, 3), 255 * (index % 2), np.uint8)
    return Example(question=question, images=(image,), columns={}, id=f"train/{index}")


class Numbered:
    """`size` examples that know their index."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Example:
        return example(index)


def taken(stream, count):
    return [
        (batch.positions, tuple(e.id for e in batch.examples))
        for batch in itertools.islice(stream, count)
    ]


@settings(max_examples=12, deadline=None)
@given(
    size=st.integers(1, 9),
    batch=st.integers(1, 6),
    before=st.integers(0, 7),
    seed=st.integers(0, 2**31 - 1),
)
def test_resumed_equals_uninterrupted(size, batch, before, seed):
    whole = taken(example_batches(Numbered(size), batch=batch, seed=seed), before + 6)
    first = example_batches(Numbered(size), batch=batch, seed=seed)
    taken(first, before)
    state = json.loads(json.dumps(first.get_state()))
    second = example_batches(Numbered(size), batch=batch, seed=seed)
    second.set_state(state)
    assert taken(second, 6) == whole[before:]
    second.set_state(state)  # and back again
    assert taken(second, 6) == whole[before:]


def test_every_epoch_is_a_permutation_of_its_own():
    drawn = taken(example_batches(Numbered(12), batch=4, seed=0), 6)
    epochs = [[i for _, ids in drawn[k : k + 3] for i in ids] for k in (0, 3)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(f"train/{i}" for i in range(12))] * 2
    assert epochs[0] != epochs[1]
    assert drawn != taken(example_batches(Numbered(12), batch=4, seed=1), 6)
    assert [p for positions, _ in drawn for p in positions] == list(range(24))


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_hosts_together_read_the_batch_of_one(hosts):
    whole = taken(example_batches(Numbered(7), batch=6, seed=5), 4)
    parts = [
        taken(example_batches(Numbered(7), batch=6, seed=5, host_index=h, host_count=hosts), 4)
        for h in range(hosts)
    ]
    for step, (positions, ids) in enumerate(whole):
        assert sum((part[step][0] for part in parts), ()) == positions
        assert sum((part[step][1] for part in parts), ()) == ids


def test_rows_that_do_not_divide_among_hosts():
    with pytest.raises(UserError, match="batch 6 does not divide among 4 hosts"):
        example_batches(Numbered(7), batch=6, seed=0, host_count=4)
    with pytest.raises(UserError, match="host index 2"):
        example_batches(Numbered(7), batch=6, seed=0, host_index=2, host_count=2)


def test_noise_belongs_to_the_position():
    draws = {(s, p): position_generator(s, p).random() for s in (0, 1) for p in (0, 1)}
    assert len(set(draws.values())) == 4
    assert position_generator(1, 1).random() == draws[1, 1]


def test_prompts_are_left_aligned_with_images_first():
    batch = batch_prompts(
        [example(0), example(1, question="why")],
        byte_tokenizer(),
        prompt_slots=14,
        processor=fixed_size_processor(2),
    )
    assert batch.tokens.shape == (2, 14)
    assert batch.tokens.dtype == np.int32
    assert batch.tokens[0].tolist() == [259, 259, *b"q<think>", *[256] * 4]
    assert batch.tokens[1].tolist() == [259, 259, *b"why<think>", *[256] * 2]
    assert batch.lengths.tolist() == [10, 12]
    assert batch.images.shape == (2, 1, 4, 4, 3)
    assert batch.images.dtype == np.float32
    assert batch.images[0].max() == 0.0
    assert batch.images[1].min() == 1.0


def test_a_prompt_too_long_names_record_length_slots_and_fix():
    with pytest.raises(
        UserError, match=r"train/3 has 10 tokens \(2 of images: 2 of .* 9 .*at least 10"
    ):
        batch_prompts(
            [example(3)], byte_tokenizer(), prompt_slots=9, processor=fixed_size_processor(2)
        )


def test_images_of_two_sizes_are_refused():
    with pytest.raises(UserError, match=r"train/1 .*\(5, 5, 3\)"):
        unit_images([example(0), example(1, side=5)])


def test_a_row_with_fewer_images_is_filled_up_with_black_ones():
    none = Example(question="q", images=(), columns={}, id="text/0")
    two = Example(question="q", images=example(1).images * 2, columns={}, id="train/9")
    found = unit_images([none, example(1), two], 2)
    assert found.shape == (3, 2, 4, 4, 3)
    assert [image.max() for row in found for image in row] == [0, 0, 1, 0, 1, 1]
    assert unit_images([none], 1, 6).shape == (1, 1, 6, 6, 3)
    assert unit_images([none], 0, 6) is None
    with pytest.raises(UserError, match=r"train/9 has 2 images .* takes 1; set model.images to 2"):
        unit_images([none, two], 1)
    with pytest.raises(UserError, match="train/1 has 1 images and the model takes 0"):
        unit_images([example(1)], 0)


def test_prompts_with_and_without_an_image_share_a_batch():
    text = Example(question="q", images=(), columns={}, id="text/0")
    batch = batch_prompts(
        [text, example(1)],
        byte_tokenizer(),
        prompt_slots=12,
        processor=fixed_size_processor(2, 4),
    )
    assert batch.tokens[0].tolist() == [*b"q<think>", *[256] * 4]
    assert batch.lengths.tolist() == [8, 10]
    assert batch.images.shape == (2, 1, 4, 4, 3)


def test_demonstrations_are_trees_of_one_thought_and_one_answer():
    shown = [Demonstration(thought="ab", answer="1"), Demonstration(thought="", answer="22")]
    rollout = batch_demonstrations(
        [example(0), example(1)], shown, byte_tokenizer(), thought_slots=11, answer_slots=20
    )
    assert rollout.thoughts.shape == (2, 1, 11)
    assert rollout.answers.shape == (2, 1, 1, 20)
    assert rollout.thoughts[0, 0].tolist() == [*b"ab</think>", 256]
    assert rollout.answers[1, 0, 0].tolist() == [*b"<answer>22</answer>", 256]
    assert rollout.thought_lengths.tolist() == rollout.thought_sampled.tolist() == [[10], [8]]
    assert rollout.answer_lengths.tolist() == [[[18]], [[19]]]
    assert rollout.closed.all()
    assert rollout.finished.all()
    assert rollout.thought_logprobs.shape == rollout.thoughts.shape
    assert not rollout.answer_logprobs.any()


@pytest.mark.parametrize(
    ("thought_slots", "answer_slots", "complaint"),
    [(9, 20, "thought of record train/4 has 10"), (10, 17, "answer of record train/4 has 18")],
)
def test_a_demonstration_too_long_names_its_record(thought_slots, answer_slots, complaint):
    shown = Demonstration(thought="ab", answer="1")
    with pytest.raises(UserError, match=complaint):
        batch_demonstrations(
            [example(4)],
            [shown],
            byte_tokenizer(),
            thought_slots=thought_slots,
            answer_slots=answer_slots,
        )
