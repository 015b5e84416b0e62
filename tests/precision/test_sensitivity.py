import itertools

from edgeseg.precision.sensitivity import LayerCost, most_harmful_first


def cost(layer: str, loss: float, error: float | None) -> LayerCost:
    return LayerCost(layer=layer, loss=loss, score_error=error, macs_share=0.1)


def test_what_is_lost_counts_first_and_the_error_of_the_scores_among_equals() -> None:
    expected = [
        cost("loses most", 0.02, 0.001),
        cost("equal, larger error", 0.001, 0.3),
        cost("equal, smaller error", 0.001004, 0.2),  # more by less than the step
        cost("equal, no scores", 0.001, None),
        cost("gains", -0.01, 0.9),
    ]
    for costs in itertools.permutations(expected):
        assert most_harmful_first(costs) == tuple(expected)
