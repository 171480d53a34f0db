"""Masked equals subset, whatever stands where the mask does not hold."""

import functools
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import laws
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmma.masked import masked_count, masked_mean, masked_sum

SIZE = (4, 6)


@functools.cache
def reductions(axis: int | None) -> Callable[..., Any]:
    def reduce(values: Any, mask: Any) -> Any:
        return (
            masked_sum(values, mask, axis),
            masked_count(mask, values.dtype, axis),
            masked_mean(values, mask, axis),
        )

    return laws.compiled(reduce)


@pytest.mark.parametrize("axis", [None, 1])
@laws.examples(25)
@given(
    hnp.arrays(np.float32, SIZE, elements=st.floats(-100, 100, width=32)),
    hnp.arrays(bool, SIZE),
    st.sampled_from([np.nan, np.inf, 7.0]),
)
def test_masked_equals_subset(
    axis: int | None, values: np.ndarray, mask: np.ndarray, garbage: float
) -> None:
    total, count, mean = reductions(axis)(np.where(mask, values, garbage).astype(np.float32), mask)
    rows = (
        [(values.ravel(), mask.ravel())] if axis is None else list(zip(values, mask, strict=True))
    )
    kept = [row[held].astype(float) for row, held in rows]
    np.testing.assert_allclose(np.ravel(total), [k.sum() for k in kept], rtol=1e-5, atol=1e-3)
    assert np.ravel(count).tolist() == [len(k) for k in kept]
    expected = [k.mean() if len(k) else 0 for k in kept]
    np.testing.assert_allclose(np.ravel(mean), expected, rtol=1e-5, atol=1e-4)
