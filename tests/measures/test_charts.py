"""Numbers as the report's section on realizability writes them."""

from __future__ import annotations

from leap_lab.measures.charts import digits, policy, signed


def test_measured_numbers() -> None:
    values = (0.0, 0.00004, 0.0042, 0.099, 0.0996, 1.0, -9.68, 12.34, 99.96, 1234.5)
    wanted = "0|< 0.001|0.004|0.099|0.10|1.00|−9.68|12.3|100|1234"
    assert [digits(value) for value in values] == wanted.split("|")
    assert (signed(0.5), signed(-0.5), signed(0)) == ("+0.50", "−0.50", "0")
    assert (policy("pi_12"), policy("expert")) == ("π₁₂", "expert")
