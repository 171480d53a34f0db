"""Rewards: plain text in, one number per answer out. Nothing here imports JAX.

Every function of `REWARDS` has one signature:

    reward(answers, *, thoughts, **columns) -> list[float | None]

one entry per answer in each argument; `None` means "could not be scored" (the reference is
unreadable), never "wrong": a wrong or malformed answer is 0. Columns by keyword and the list of
values are as in TRL; answers and thoughts stand where TRL has prompts and completions.
"""

from collections.abc import Callable

from gmma.rewards.anls import anls_reward
from gmma.rewards.answer_form import answer_form_reward
from gmma.rewards.boxes import box_iou_reward
from gmma.rewards.code import code_all_passed_reward, code_reward
from gmma.rewards.demand import demand_reward
from gmma.rewards.detection import detection_ap_reward, detection_reward
from gmma.rewards.exact import exact_reward
from gmma.rewards.format import format_reward
from gmma.rewards.length import soft_overlong_reward
from gmma.rewards.manipulation import manipulation_contact_reward, manipulation_reward
from gmma.rewards.mathematics import math_reward
from gmma.rewards.points import affordance_points_reward
from gmma.rewards.trajectory import trajectory_reward

REWARDS: dict[str, Callable[..., list[float | None]]] = {
    "affordance_points": affordance_points_reward,
    "anls": anls_reward,
    "answer_form": answer_form_reward,
    "box_iou": box_iou_reward,
    "code": code_reward,
    "code_all_passed": code_all_passed_reward,
    "demand": demand_reward,
    "detection": detection_reward,
    "detection_ap": detection_ap_reward,
    "exact": exact_reward,
    "format": format_reward,
    "manipulation": manipulation_reward,
    "manipulation_contact": manipulation_contact_reward,
    "math": math_reward,
    "soft_overlong": soft_overlong_reward,
    "trajectory": trajectory_reward,
}
