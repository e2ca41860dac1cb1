"""What arrivals are sorted and looked up by is what numpy's own functions give."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from node.network.arrivals import is_in, unique

FEW = st.lists(st.integers(-3, 12), max_size=12)


@settings(derandomize=True)
@given(FEW)
def test_each_value_is_given_once_and_in_order_as_by_numpy(values: list[int]) -> None:
    some = np.array(values, np.int64)
    assert unique(some).tolist() == np.unique(some).tolist()
    assert some.tolist() == values


@settings(derandomize=True)
@given(FEW, FEW)
def test_which_values_are_among_others_is_told_as_by_numpy(
    values: list[int], others: list[int]
) -> None:
    some, among = np.array(values, np.int64), np.array(others, np.int64)
    found = is_in(some, among)
    assert found.dtype == np.bool_
    assert found.tolist() == np.isin(some, among).tolist()
