"""Options of sampling."""

from dataclasses import dataclass

from gmma.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Sampling distribution of a token."""

    temperature: float = 1.0  # 0 is greedy; log-probs are then at temperature 1
    top_k: int = 0  # keep the k likeliest tokens; 0 keeps all
    top_p: float = 1.0  # keep the fewest likeliest tokens whose probability reaches p; 1 keeps all

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature = {self.temperature}; it must be 0 (greedy) or above")
        if self.top_k < 0:
            raise UserError(f"top_k = {self.top_k}; it must be 0 (all tokens) or above")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p = {self.top_p}; it must lie in (0, 1]")


GREEDY = SamplingConfig(temperature=0.0)
