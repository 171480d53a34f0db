"""Rewards of other signatures in less usual forms, and what goes wrong in them."""

import asyncio
import functools
import os
import time

REWARD_TYPE = "sequential"


def one_input(reward_input):
    """EasyR1's form for one answer, told by its parameter's name."""
    return {"overall": float(reward_input["response_length"]), "format": 0.0}


def by_its_module(given):
    """EasyR1's form for one answer, told by REWARD_TYPE."""
    return one_input(given)


def without_overall(reward_inputs):
    return [{"accuracy": 1.0} for _ in reward_inputs]


def one_for_all(reward_inputs):
    return {"overall": 1.0}


def of_verl(data_source, solution_str, ground_truth):
    """No extra_info; fails on one answer."""
    if "6 = 5" in solution_str:
        raise ValueError("no sum")
    return float(data_source == "")


def kinds_alone(completions, task):
    """TRL's, without **kwargs: the length of a column that gmma renames."""
    return [len(kind) for kind in task]


async def slow_verl(data_source, solution_str, ground_truth, extra_info):
    """Waits: one after another the answers of a call would take 0.6 s; fails on one."""
    await asyncio.sleep(0.2)
    return of_verl(data_source, solution_str, ground_truth)


def truth_of_verl(data_source, solution_str, ground_truth, extra_info):
    return float(ground_truth)


def through_a_helper(completions, **kwargs):
    """Messages, which only a helper opens: its own code does not tell."""
    return [float(len(_opened(completion))) for completion in completions]


def _opened(completion):
    return completion[0]["content"]


def names_images(completions, images, **kwargs):
    return [float(own[0].size[0] + own[0].getpixel((0, 0))[0]) for own in images]


def no_images_asked(completions, **kwargs):
    assert "images" not in kwargs
    return [1.0] * len(completions)


def names_columns(completions, label, log_metric):
    log_metric("seen", len(completions))
    return [float(value) for value in label]


def ours(answers, *, thoughts, question, images, id, step, steps, **columns):
    """Everything that is told of a record and of the run."""
    assert "completion_ids" not in columns
    rows = zip(question, images, id, strict=True)
    return [
        float(q.split()[-2]) + i[0].shape[1] + int(n.split("/")[1]) + step[0] / steps[0]
        for q, i, n in rows
    ]


def counts_its_batch(answers, *, thoughts, **columns):
    return [float(len(answers))] * len(answers)


def breaks_its_batch(answers, *, thoughts, response, **columns):
    """One answer makes its whole call raise, hang or die."""
    for text in response:
        if text == "raise":
            raise ValueError(text)
        while text == "hang":
            time.sleep(1)
        if text == "die":
            os._exit(1)
    return [1.0] * len(answers)


class Judge:
    """A reward with settings of its own."""

    def __init__(self, worth):
        self.worth = worth

    def __call__(self, completions, **kwargs):
        return [self.worth * ("<answer>" in one[0]["content"]) for one in completions]


judge = Judge(2.0)
partly = functools.partial(names_columns, log_metric=lambda name, value: None)
