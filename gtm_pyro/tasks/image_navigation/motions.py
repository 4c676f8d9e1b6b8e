"""Which motion the arguments of ``ImageNavigation`` ask for."""

from collections.abc import Sequence

from gtm_pyro.errors import ConfigError
from gtm_pyro.tasks.base import check_choice, check_number
from gtm_pyro.tasks.image_navigation.continuous_motion import ContinuousMotion
from gtm_pyro.tasks.image_navigation.grid_motion import GridMotion


def make_motion(
    name: str, size: int, walls: bool, mean_repeats: float, slip: float, noise: float, bias: Sequence[float]
) -> GridMotion | ContinuousMotion:
    """The motion of that name; the other arguments are those of ``ImageNavigation``, ``size`` the cells on a side.

    :raises ConfigError: one is out of its range, or does not go with the motion.
    """
    check_choice(("grid", "continuous"), motion=name)
    if check_number("mean_repeats", mean_repeats) < 0:
        raise ConfigError(f"mean_repeats: expected a number of at least 0, got {mean_repeats}")
    if not 0 <= check_number("slip", slip) < 1:
        raise ConfigError(f"slip: expected at least 0 and below 1, got {slip}")
    if check_number("action_noise", noise) < 0:
        raise ConfigError(f"action_noise: expected a number of at least 0, got {noise}")
    if isinstance(bias, str) or not isinstance(bias, Sequence) or len(bias) != 2:
        raise ConfigError(f"action_bias: expected two numbers of cells a step, got {bias!r}")
    x, y = (float(check_number(f"action_bias[{i}]", value)) for i, value in enumerate(bias))
    if name == "grid":
        for field, value, given in (("action_noise", noise, noise), ("action_bias", bias, x or y)):
            if given:
                raise ConfigError(f"{field}: expected none with motion='grid', got {value}; use motion='continuous'")
        return GridMotion(size, walls, float(mean_repeats), float(slip))
    if not walls:
        raise ConfigError("walls: expected true with motion='continuous', got false")
    return ContinuousMotion(size, float(mean_repeats), float(slip), float(noise), (x, y))
