"""Options of TRL and what they are here; `docs/coming_from.md` has them side by side."""

from collections.abc import Iterable, Iterator, Sequence

FOREIGN = {  # TRL's; fields of an experiment
    "num_generations": "tree.thoughts and tree.answers, whose product it is",
    "max_prompt_length": "tree.prompt_tokens",
    "max_completion_length": "tree.thought_tokens and tree.answer_tokens",
    "temperature": "sampling.temperature",
    "top_p": "sampling.top_p",
    "top_k": "sampling.top_k",
    "learning_rate": "rl.optimizer.learning_rate, and sft.optimizer.learning_rate",
    "weight_decay": "rl.optimizer.weight_decay",
    "lr_scheduler_type": "rl.optimizer.schedule",
    "warmup_steps": "rl.optimizer.warmup_steps",
    "max_grad_norm": "rl.optimizer.max_grad_norm",
    "max_steps": "rl.steps",
    "num_train_epochs": "rl.steps, for there are no epochs",
    "per_device_train_batch_size": "rl.batch_prompts, which counts prompts over all devices",
    "generation_batch_size": "rl.rollout_prompts, in prompts: it / num_generations",
    "gradient_accumulation_steps": "rl.microbatches",
    "model_name_or_path": "model.directory",
    "lora_r": "model.lora.rank",
    "lora_alpha": "model.lora.alpha",
    "lora_target_modules": "model.lora.patterns",
    "gradient_checkpointing": "model.remat",
    "dataset_name": "task.records.train",
    "reward_funcs": "rewards.terms.0.name module:function",
    "reward_weights": "rewards.terms.0.weight",
    "eval_steps": "evaluation.every_steps",
    "save_steps": "checkpoint.every_steps",
    "save_total_limit": "checkpoint.keep_last",
    "metric_for_best_model": "checkpoint.best_metric",
    "resume_from_checkpoint": "resume, or init_from for parameters alone",
    "output_dir": "name, a folder of runs-dir",
    "log_completions": "samples_every_steps",
    "report_to": "wandb.project",
    "vllm_importance_sampling_clip_max": "objective.importance_cap",
}
_FEW = 4  # fields that are named at most


def meant_lines(arguments: Sequence[str], fields: Iterable[str]) -> Iterator[str]:
    """Yield a line for each option that is no field: TRL's, or the end of a field's path.

    >>> print(*meant_lines(["--rl.beta", "0"], ["rl.steps", "rl.optimizer.beta", "sft.beta"]))
    --rl.beta: did you mean --rl.optimizer.beta?
    """
    known = set(fields)
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
        if not argument.startswith("--") or name in known:
            continue
        first, _, last = name.rpartition(".")
        near = [
            field
            for field in sorted(known)
            if field.endswith(f".{last}") and field.startswith(first.partition(".")[0])
        ]
        if name in FOREIGN:
            meant = FOREIGN[name].replace("_", "-")
            yield f"--{name} is --{meant} here (docs/coming_from.md)"
        elif 0 < len(near) <= _FEW:
            spelt = " or ".join(f"--{field.replace('_', '-')}" for field in near)
            yield f"--{name}: did you mean {spelt}?"
