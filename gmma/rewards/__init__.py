"""Rewards: plain text in, one number per answer out. Nothing here imports JAX.

Every function of `REWARDS` has one signature:

    reward(answers, *, thoughts, **columns) -> list[float | None]

one entry per answer in each argument; `None` means "could not be scored" (the reference is
unreadable), never "wrong": a wrong or malformed answer is 0. Columns by keyword and the list of
values are as in TRL; answers and thoughts stand where TRL has prompts and completions.
"""

from collections.abc import Callable

from gmma.named import Named

REWARDS: Named[Callable[..., list[float | None]]] = Named(
    "reward",
    {
        "affordance_points": "gmma.rewards.points:affordance_points_reward",
        "anls": "gmma.rewards.anls:anls_reward",
        "answer_form": "gmma.rewards.answer_form:answer_form_reward",
        "boxes": "gmma.rewards.sets:boxes_reward",
        "box_iou": "gmma.rewards.boxes:box_iou_reward",
        "choice": "gmma.rewards.choice:choice_reward",
        "code": "gmma.rewards.code:code_reward",
        "code_all_passed": "gmma.rewards.code:code_all_passed_reward",
        "demand": "gmma.rewards.demand:demand_reward",
        "detection": "gmma.rewards.detection:detection_reward",
        "detection_ap": "gmma.rewards.detection:detection_ap_reward",
        "exact": "gmma.rewards.exact:exact_reward",
        "format": "gmma.rewards.format:format_reward",
        "manipulation": "gmma.rewards.manipulation:manipulation_reward",
        "manipulation_contact": "gmma.rewards.manipulation:manipulation_contact_reward",
        "math": "gmma.rewards.mathematics:math_reward",
        "points": "gmma.rewards.sets:points_reward",
        "soft_overlong": "gmma.rewards.length:soft_overlong_reward",
        "trajectory": "gmma.rewards.trajectory:trajectory_reward",
        "vqa": "gmma.rewards.vqa:vqa_reward",
    },
)
