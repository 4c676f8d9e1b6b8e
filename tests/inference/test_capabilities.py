"""What a pair can do: the protocols that a user reads have the members that are looked for."""

from typing import Any

import pytest

from gtm_pyro.inference import capabilities
from gtm_pyro.inference.capabilities import Capability


@pytest.mark.parametrize(
    ("capability", "protocol"),
    [
        (Capability.PATH, capabilities.InfersPath),
        (Capability.MEMORY, capabilities.Remembers),
        (Capability.IMAGINES, capabilities.Predicts),
        (Capability.RECONSTRUCTS, capabilities.Reconstructs),
    ],
)
def test_protocols_have_the_members_that_are_looked_for(capability: Capability, protocol: Any) -> None:
    _, members = capabilities.MEMBERS[capability]
    public = {name for name in vars(protocol) if not name.startswith("_")}
    assert public == {name.partition(".")[0] for name in members}
