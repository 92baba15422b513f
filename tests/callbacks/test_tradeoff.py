"""What evaluations cost beside training, from the shipped configuration."""

from pathlib import Path

import yaml

from callbacks.evaluation import evaluation_share


def test_full_size_evaluations_cost_at_most_three_percent() -> None:
    """From configs/frozen.yaml itself; a control shows that the figure moves with the interval."""
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "frozen.yaml").read_text())
    total = config["trainer"]["max_steps"] * config["data"]["init_args"]["batch_size"]

    grounding, fidelity = config["grounding"], config["fidelity"]
    guided = 2  # with and without the prompt

    def share(faster: int = 1) -> float:
        passes = (
            (grounding, grounding["samples"] * grounding["timesteps"]),
            (fidelity, fidelity["samples"] * fidelity["sampling"]["steps"] * guided),
        )
        return sum(evaluation_share(number, one["every_n_images"] // faster, total) for one, number in passes)

    print(f"evaluations of configs/frozen.yaml: {100 * share():.2f} % of the computing of training")
    assert 0.005 < share() <= 0.03
    assert share(faster=3) > 0.03
