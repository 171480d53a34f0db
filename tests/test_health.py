"""When a run that could only compute nothing ends by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from gmma import cli
from gmma.config import StopConfig
from gmma.errors import UserError
from gmma.hardware.preemption import NotFinite, Preempted, Unscored
from gmma.records.health import Health, check_health, first_not_finite, is_ill

STOP = StopConfig(not_finite_steps=2, unscored_steps=3)
WELL = {"phase": "rl", "step": 7, "loss": -0.1, "grad_norm": 2.0, "frac_groups_dropped": 0.0}
NAN, INF = WELL | {"loss": np.nan}, WELL | {"grad_norm": np.inf}
BARE = WELL | {"frac_groups_dropped": 1.0, "rewards/judge/timeout": 32.0, "rewards/judge/crash": 0}


@pytest.mark.parametrize(
    ("records", "ends"),
    [
        ([WELL] * 9, None),
        ([NAN, WELL, INF, WELL, NAN], None),
        ([WELL, NAN, INF], NotFinite),
        ([BARE, BARE, WELL, BARE, BARE], None),
        ([BARE, BARE, BARE], Unscored),
        ([{"phase": "sft", "step": 1, "loss": 1.0, "grad_norm": 1.0}] * 9, None),
    ],
)
def test_so_many_ill_steps_in_a_row_end_a_run(records, ends):
    health = Health()
    for record in records:
        assert not is_ill(health, STOP)
        health = health.with_record(record)
    assert is_ill(health, STOP) == (ends is not None)
    if ends is None:
        check_health(health, STOP, records[-1], 4)
    else:
        with pytest.raises(ends, match=r"rl step 7: .*checkpoint 4"):
            check_health(health, STOP, records[-1], 4)


def test_what_did_not_count_is_named():
    with pytest.raises(Unscored, match=r"Of this step: rewards/judge/timeout = 32\. "):
        check_health(Health(unscored=3), STOP, BARE, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_array_with_a_value_that_is_not_finite_is_named(bad):
    state = {"a": jnp.arange(3), "b": {"c": jnp.ones((2, 3)), "d": jnp.bfloat16(1)}}
    assert first_not_finite(state) is None
    state["b"]["c"] = state["b"]["c"].at[1, 2].set(bad)
    assert first_not_finite(state) == "b/c"


def test_limits_are_1_or_more():
    for name in ("not_finite_steps", "unscored_steps"):
        with pytest.raises(UserError, match=rf"stop\.{name} = 0; it must be 1 or more"):
            StopConfig(**{name: 0})


@pytest.mark.parametrize(("end", "code"), [(Preempted, 75), (NotFinite, 70), (Unscored, 69)])
def test_every_end_has_an_exit_code_of_its_own(monkeypatch, capsys, end, code):
    def command(arguments):
        raise end("why")

    monkeypatch.setitem(cli.COMMANDS, "train", command)
    with pytest.raises(SystemExit) as raised:
        cli.main(["train"])
    assert raised.value.code == code
    assert capsys.readouterr().err == "gmma train: why\n"
