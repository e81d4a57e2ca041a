"""`make bench`: figures and their bounds."""

import runpy
from pathlib import Path

import pytest

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bench.py"))


@pytest.mark.parametrize(
    ("figure", "at_least", "holds"),
    [(0.8, True, True), (0.79, True, False), (0.8, False, True), (0.81, False, False)],
)
def test_a_figure_is_printed_next_to_its_bound_and_an_exceeded_bound_is_marked(
    capsys: pytest.CaptureFixture[str], figure: float, *, at_least: bool, holds: bool
) -> None:
    assert BENCH["judge"]("throughput", figure, 0.8, at_least=at_least) is holds
    said = capsys.readouterr().out
    assert f"{figure:.2f}   allowed: at {'least' if at_least else 'most'} 0.8" in said
    assert ("EXCEEDED" in said) is not holds
