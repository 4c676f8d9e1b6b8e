"""Every check of conformance can fail."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from broken_guides import (
    Auxiliary,
    BoundedZ,
    Counts,
    DefaultDevice,
    Detached,
    DrawsAreAllOne,
    DrawsTooWide,
    DriftsWithCalls,
    Fails,
    Guide,
    InfiniteGradient,
    LacksZ,
    LeaksAcrossEpisodes,
    LeaksAcrossParticles,
    NotANumber,
    NotReparameterised,
    NotSaved,
    OffByAConstant,
    OffByMuch,
    OneArgument,
    OneSiteMore,
    OtherArguments,
    OtherPlate,
    OwnNoise,
    PathInBatch,
    PlainTensor,
    PositiveZ,
    RemembersEpisodes,
    SharedPath,
    ShortZ,
    SinglePrecisionSite,
    TiedCopies,
    UnusedParameter,
    Warns,
    WrongGradient,
    WrongShape,
    z_as,
)
from conformance_cases import GUIDES, MODELS, gtm_sm, linear_gaussian
from torch import Tensor, nn

import gtm_pyro.testing as testing
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import ConfigError, GTMPyroError
from gtm_pyro.guides import DeadReckoning
from gtm_pyro.memory import Retrieved
from gtm_pyro.reading import Reading
from gtm_pyro.testing import ConformanceError, NotApplicable, PairConformance, check_pair, check_programs

Pair = tuple[Any, Any, Episodes]


class NoMean(nn.Module):
    """It trains, and then there is nothing to show."""

    def forward(self, read: Retrieved) -> Any:
        near = dist.Normal(read.values["loc"][..., 0, :], read.values["scale"][..., 0, :]).to_event(1)
        return dist.TransformedDistribution(near, [dist.transforms.AffineTransform(0.0, 2.0)])


def no_mean(_: Any) -> Pair:
    model, episodes = gtm_sm()
    model.prior = NoMean()
    return model, DeadReckoning(model), episodes


MakesBroken = Callable[[Any], Any]
BROKEN: list[tuple[Callable[..., None], MakesBroken, str]] = [
    (testing.check_signature, OtherArguments, r"signature: guide: .*\(episodes, reading=None\), got \(episodes, mode="),
    (testing.check_signature, OneArgument, r"signature: guide: expected to be called as \(episodes, reading=None\)"),
    (testing.check_sites, LacksZ, "sites: site 'z': expected in the guide as in the model, got only s"),
    (testing.check_sites, OneSiteMore, "site 'speed': expected one of the model's latent sites .s, z. in the guide"),
    (testing.check_sites, ShortZ, r"site 'z': expected event shape \(4,\) as in the model, got \(3,\)"),
    (testing.check_sites, PathInBatch, r"site 's': expected event shape \(6, 2\) as in the model, got \(3, 6, 2\)"),
    (
        testing.check_sites,
        PositiveZ,
        r"site 'z': expected support Real as in the model, got GreaterThan\(lower_bound=0",
    ),
    (testing.check_sites, BoundedZ, "site 'z': expected support Real as in the model, got Interval"),
    (testing.check_sites, Fails, "sites: guide: expected a program that runs, got KeyError"),
    (
        testing.check_plates,
        OtherPlate,
        "plate 'steps' of site 'z': expected size 6 at dim -1 as in the model, got none",
    ),
    (testing.check_warnings, Warns, r"warnings: expected none, got UserWarning \(a step is thrown away\)"),
    (testing.check_warnings, LacksZ, "warnings: expected none, got UserWarning .Found vars in model but not guide"),
    (
        testing.check_log_probs,
        z_as(NotANumber),
        "site 'z' of the guide: expected a finite log_prob of its value, got nan",
    ),
    (testing.check_log_probs, z_as(WrongShape), r"expected the pair to run|expected log_prob of shape \(3, 6\)"),
    (testing.check_densities, z_as(OffByAConstant), "site 'z' of the guide, element .*integrates to 1, got 0.6"),
    (testing.check_densities, z_as(DrawsTooWide), "site 'z' of the guide, element .*expected d"),
    (testing.check_densities, z_as(DrawsAreAllOne), "site 'z' of the guide: expected draws that differ"),
    (testing.check_finite_gradients, UnusedParameter, "guide.spare: expected a gradient, got none"),
    (
        testing.check_finite_gradients,
        InfiniteGradient,
        r"guide.shift: expected a finite gradient, got -?(inf|nan) at \[0\]",
    ),
    (testing.check_finite_gradients, z_as(NotANumber), r"expected a finite loss, got nan"),
    (
        testing.check_gradients,
        WrongGradient,
        "gradients: guide.shift: expected the derivative .* by central differences",
    ),
    (testing.check_gradients, z_as(Detached), "gradients: .*: expected the derivative .* by central differences"),
    (testing.check_repeatable, Counts, "repeatable: guide.calls: expected the modules' attributes unchanged by a call"),
    (testing.check_repeatable, OwnNoise, "expected the same loss under the same seed|apart from episodes seen before"),
    (testing.check_repeatable, DriftsWithCalls, "expected a loss apart from episodes seen before"),
    (testing.check_repeatable, RemembersEpisodes, "expected a loss apart from episodes seen before"),
    (testing.check_particles, DriftsWithCalls, "particles: expected the mean loss .* of particles run alone"),
    (testing.check_vectorized_particles, SharedPath, "site 's': expected particles drawn apart, got the same"),
    (
        testing.check_vectorized_particles,
        LeaksAcrossParticles,
        "site 'z' of the guide: expected log_prob .* scored alone",
    ),
    (
        testing.check_batches,
        LeaksAcrossEpisodes,
        "batches: log probability of site 'z' of the guide: expected .* for episode 0 alone as in the batch, got",
    ),
    (testing.check_saving, PlainTensor, "guide.offset: expected a parameter or a buffer, got a plain tensor"),
    (testing.check_saving, TiedCopies, "saving: expected no tie to the other pair"),
    (
        testing.check_float64,
        SinglePrecisionSite,
        "float64: (value|log_prob) of site 's' of the guide: expected torch.float64",
    ),
    (testing.check_devices, DefaultDevice, r"devices: .*broken_guides.py:\d+: expected device= of the parameters"),
    (testing.check_bound, z_as(OffByMuch), r"bound: episode 0: expected an ELBO of at most log p\(x . a\) = -"),
    (testing.check_bound, z_as(NotANumber), "bound: episode 0: expected a finite ELBO, got nan"),
    (testing.check_evaluation, no_mean, r"evaluation: evaluate: .*prior: expected a distribution that knows its mean"),
]


def broken(make: MakesBroken) -> Pair:
    """Of the twin and a guide of it; or a whole pair."""
    model, episodes = linear_gaussian()
    made = make(model)
    return made if isinstance(made, tuple) else (model, made, episodes)


@pytest.mark.parametrize(("check", "guide", "message"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_every_check_can_fail(check: Callable[..., None], guide: MakesBroken, message: str) -> None:
    with pytest.raises(ConformanceError, match=message) as caught:
        check(*broken(guide))
    assert isinstance(caught.value, AssertionError) and isinstance(caught.value, GTMPyroError)
    assert "\n" not in str(caught.value)


def test_every_check_has_a_pair_that_breaks_it() -> None:
    public = {name for name in testing.__all__ if name.startswith("check_")} - {"check_pair", "check_programs"}
    assert public == {check.__name__ for check, _, _ in BROKEN}
    tests = {name.removeprefix("test_") for name in vars(PairConformance) if name.startswith("test_")}
    assert tests == {name.removeprefix("check_") for name in public}


def test_the_sound_guide_passes_and_says_what_did_not_apply() -> None:
    outcome = check_pair(*broken(Guide), make=lambda: broken(Guide))
    assert set(outcome) == {check.__name__ for check, _, _ in BROKEN}
    assert set(outcome.values()) == {"passed"}
    check_pair(*broken(Auxiliary), leave_out=["check_densities"])
    outcome = check_pair(*broken(z_as(NotReparameterised)), leave_out=["check_densities"])
    assert outcome["check_gradients"] == "gradients: site 'z' is not reparameterised"
    assert outcome["check_finite_gradients"] == "passed" and "check_densities" not in outcome


def test_one_call_names_every_failure() -> None:
    with pytest.raises(ConformanceError) as caught:
        check_pair(*broken(PlainTensor), leave_out=["check_densities"])
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["float64", "saving"] or "saving" in lines[-1]
    with pytest.raises(ConformanceError) as caught:
        check_pair(*broken(LacksZ))
    assert str(caught.value) == "sites: site 'z': expected in the guide as in the model, got only s"


def test_a_saved_state_is_loaded_into_a_new_pair() -> None:
    testing.check_saving(*broken(NotSaved))  # a deep copy knows it
    with pytest.raises(ConformanceError, match="saving: expected the loss .* after loading the saved state"):
        testing.check_saving(*broken(NotSaved), make=lambda: broken(NotSaved))


def test_unused_parameters_can_be_allowed() -> None:
    testing.check_finite_gradients(*broken(UnusedParameter), unused=["guide.spare"])


def test_a_search_can_be_held_constant() -> None:
    class Searches(Guide):
        def found(self, episodes: Episodes) -> Tensor:
            return 3 * self.shift.detach()

        def s(self, episodes: Episodes) -> Any:
            path = super().s(episodes)
            path.initial = dist.Normal(self.shift + self.found(episodes), 1.0).to_event(1).expand(path.batch_shape)
            return path

    with pytest.raises(ConformanceError, match="guide.shift"):
        testing.check_gradients(*broken(Searches))
    testing.check_gradients(*broken(Searches), constants=["found"])


def test_a_plain_function_is_a_guide() -> None:
    model, episodes = linear_gaussian()
    sound = Guide(model)

    def guide(episodes: Episodes, reading: Reading | None = None) -> None:
        sound(episodes, reading)

    outcome = check_pair(model, guide, episodes)
    assert outcome["check_sites"] == outcome["check_bound"] == outcome["check_repeatable"] == "passed"
    assert outcome["check_float64"] == "float64: expected modules, the guide is a function"


def test_skips_are_skips_to_pytest() -> None:
    import unittest

    assert issubclass(NotApplicable, unittest.SkipTest)


def test_nothing_global_is_left_behind() -> None:
    pair = broken(Guide)
    pyro.clear_param_store()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_pair(*pair, leave_out=["check_bound"])
    assert torch.equal(torch.rand(3), expected) and not list(pyro.get_param_store())


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (LacksZ, "site 'z': expected in the guide as in the model, got only s"),
        (OneSiteMore, r"site 'speed': expected one of the model's latent sites \(s, z\) in the guide; there it is not"),
        (ShortZ, r"site 'z': expected event shape \(4,\) as in the model, got \(3,\)"),
        (PositiveZ, "site 'z': expected support Real as in the model, got GreaterThan"),
        (OtherPlate, "plate 'steps' of site 'z': expected size 6 at dim -1 as in the model, got none"),
        (Fails, r"guide: expected a program that runs, got KeyError \('place'\)"),
    ],
)
def test_programs_are_checked_before_training(guide: MakesBroken, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        check_programs(*broken(guide))
    assert "\n" not in str(caught.value)


def test_sound_programs_pass_at_the_price_of_one_run() -> None:
    calls = []

    class Counted(Guide):
        def s(self, episodes: Episodes) -> Any:
            calls.append(1)
            return super().s(episodes)

    check_programs(*broken(Counted))
    assert len(calls) == 1
    for model_name in MODELS:
        model, episodes = MODELS[model_name]()
        for guide in GUIDES.values():
            check_programs(model, guide(model), episodes, Reading())


def test_a_user_who_forgets_make_is_told() -> None:
    with pytest.raises(NotImplementedError, match="expected a method make that returns"):
        PairConformance().test_sites()
