"""Each check against known answers, on the tractable twin: it passes the exact posterior and no wrong one.

Where the guide and the model are exact, p-values are uniform; each is asked to be over 0.001, so that a test with n of
them raises a false alarm in at most n thousandths of all seeds.
"""

import numpy as np
import pyro
import pytest
import torch
from exact_guides import Exact, twin, walks
from oracle_cases import Copies, HardWalls

from gtm_pyro.diagnostics import CHECKS, diagnose
from gtm_pyro.diagnostics.coverage import credible_levels
from gtm_pyro.diagnostics.densities import draw_paths, site_log_probs
from gtm_pyro.diagnostics.pareto import pareto_khat
from gtm_pyro.diagnostics.pit import uniform_rank
from gtm_pyro.diagnostics.predictive import frame_quantities
from gtm_pyro.diagnostics.simulation import simulate
from gtm_pyro.diagnostics.uniformity import (
    adjusted_p,
    bars_p,
    binomial_band,
    ecdf_band,
    joint_p,
    kolmogorov_smirnov_p,
    rank_p,
)
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models import GTMSM, LinearGaussian
from gtm_pyro.reading import Reading


def numbers(check: str, episodes: Episodes | None = None, model: LinearGaussian | None = None, **guide):
    model = model or twin()
    found = diagnose(model, Exact(model, **guide), episodes or walks(model), checks=[check], seed=2)
    return found.numbers, found.advice[check]


def test_khat_is_small_for_the_posterior_alone():
    exact, advice = numbers("khat")
    assert exact["khat_max"] < 0.5 and exact["khat_share_above_0.7"] == 0 and "own posterior" in advice
    narrow, advice = numbers("khat", width=0.4)
    assert narrow["khat_median"] > 0.7 and "in most episodes" in advice
    prior, _ = numbers("khat", prior=True)
    assert prior["khat_median"] > 0.7 and prior["khat_share_above_0.7"] > 0.9


def test_the_ratio_is_the_posterior_ratio_whatever_z_is():
    """log p(s, z, x) - log q(s, z | x) of the exact guide is the evidence: for every path, for every z."""
    model = twin()
    episodes = walks(model, batch=2).observed
    guide, reading = Exact(model), Reading("earlier")
    with torch.no_grad():
        held = {"s": guide.path(episodes).sample((5,)), "z": torch.randn(2, 9, 4)}
        parts = [site_log_probs(program, episodes, reading, held) for program in (model, guide)]
        ratio = sum(parts[0].values()) - sum(parts[1].values())
        expected = model.log_evidence(episodes, reading)
    assert ratio.shape == (5, 2)
    torch.testing.assert_close(ratio, expected.expand(5, 2), atol=2e-3, rtol=0)


def test_khat_of_known_tails():
    """Of Pareto ratios of shape k, 1000 draws; the estimate's standard error is below 0.15."""
    generator = np.random.default_rng(0)
    for k in (0.3, 1.0, 2.0):
        assert pareto_khat(k * generator.exponential(size=1000)) == pytest.approx(k, abs=0.4)
    assert pareto_khat(np.full(200, -3.0)) == 0
    # what a sum of many float32 log densities is off by
    assert pareto_khat(1e-2 * generator.normal(size=200)) == 0
    # ratios that underflow: the normal's tail of a scale of 1000 nats
    assert pareto_khat(1000 * generator.normal(size=200)) > 100


def test_coverage_of_exact_narrow_and_wide_posteriors():
    """Exact: two joint p-values over 0.005, which 1% of all seeds do not reach."""
    model = twin()
    episodes = walks(model, batch=60)
    exact, advice = numbers("coverage", episodes)
    assert abs(exact["coverage_90"] - 0.9) < 5 * exact["coverage_90_standard_error"] < 0.1
    assert abs(exact["coverage_50"] - 0.5) < 0.1 and abs(exact["coverage_90_predicted"] - 0.9) < 0.12
    assert min(exact["coverage_p"], exact["coverage_p_predicted"]) > 0.005
    assert "can be believed" in advice
    narrow, advice = numbers("coverage", episodes, width=0.3)
    assert narrow["coverage_90"] < 0.5 and narrow["coverage_beyond_all_draws"] > 0.2 and "too sure" in advice
    wide, advice = numbers("coverage", episodes, width=2.0)
    assert wide["coverage_90"] > 0.97 and "less sure" in advice


def test_the_credible_level_is_uniform_for_exact_draws():
    torch.manual_seed(0)
    factor = torch.tensor([[2.0, 0.0], [1.5, 0.1]]).double()
    draws, truth = (torch.randn(*shape, 2).double() @ factor.mT for shape in ((400, 500), (500,)))
    levels, distance, radius = credible_levels(draws, truth)
    assert levels.shape == (401, 500) and kolmogorov_smirnov_p(levels[0].numpy()) > 0.001
    torch.testing.assert_close(distance, (truth - draws.mean(0)).norm(dim=-1))
    assert float(radius.median()) == pytest.approx(float((4.605 * factor.square().sum() / 2).sqrt()), rel=0.1)
    # draws that all agree
    assert credible_levels(torch.zeros(9, 1, 2).double(), torch.ones(1, 2).double())[0][0] == 1
    # and with the truth as well: any level is as good
    known = credible_levels(torch.zeros(9, 2000, 1).double(), torch.zeros(2000, 1).double())[0][0]
    assert float(known.mean()) == pytest.approx(0.5, abs=0.05)
    # of few draws too: with their own mean and covariance, truths would lie further out
    few = torch.randn(20, 20000, 2).double()
    level = credible_levels(few[1:], few[0])[0][0]
    assert float(level.mean()) == pytest.approx(0.5, abs=0.01)


def test_sbc_passes_the_exact_posterior_and_no_wrong_one():
    """Exact: one joint p-value over 0.001."""
    exact, advice = numbers("sbc")
    assert exact["sbc_p_min"] > 0.001 and "is calibrated" in advice
    for wrong in ({"shift": 0.5}, {"width": 0.3}):
        found, advice = numbers("sbc", **wrong)
        assert found["sbc_p_path"] < 1e-6 and "not calibrated" in advice
    prior, advice = numbers("sbc", prior=True)
    # the prior is calibrated in every coordinate; only a quantity that sees the frames tells
    assert prior["sbc_p_path"] > 0.001 and prior["sbc_p_frames_given_path"] < 1e-6
    assert "better than the guide's draws do" in advice


def test_simulated_steps_read_what_was_drawn_before():
    """A growing memory, by a model whose decoder copies z: each z_t is an entry that was written before, or N(0, I)."""
    torch.manual_seed(0)
    copies = Copies((3, 4, 4), 1e-3)
    model = GTMSM(HardWalls(), SpatialMemory(1), encoder=copies, decoder=copies, initial_scale=1e-6)
    actions = torch.eye(5)[torch.randint(5, (6, 12))]
    made = simulate(model, actions, (3, 4, 4))
    assert made.episodes.num_observed == 12 and made.s.shape == (6, 12, 2) and made.latents["z"].shape == (6, 12, 48)
    assert float(made.latents["z"][:, 0].std()) == pytest.approx(1, abs=0.2)  # the first reads nothing
    noise = made.episodes.frames.flatten(2) - made.latents["z"]
    assert float(noise.std()) == pytest.approx(0.1, rel=0.1)  # of the decoder
    for t in range(1, 12):
        nearest = (made.s[:, t, None] - made.s[:, :t]).square().sum(-1).argmin(-1)
        read = made.episodes.frames.flatten(2)[torch.arange(6), nearest]
        assert float((made.latents["z"][:, t] - read).abs().max()) < 0.01


def test_pit_is_uniform_for_the_true_noise_alone():
    """Exact: one p-value over 0.001. Wrong: the decoder's noise a third and three times of what it was."""
    model = twin()
    episodes = walks(model, batch=16, steps=40, num_observed=10)
    exact, advice = numbers("pit", episodes, model)
    assert exact["pit_p"] > 0.001 and "as p(x | z) says" in advice
    assert exact["pit_pixels"] == 16 * 25 * 4 and exact["pit_noise_ratio"] == pytest.approx(1, abs=0.07)
    scale = float(model.frame_scale)
    for factor, word in ((1 / 3, "too narrow"), (3.0, "too wide")):
        model.frame_scale.fill_(factor * scale)
        model.memory_scale.fill_(factor * 0.3)
        wrong, advice = numbers("pit", episodes, model)
        assert wrong["pit_ks_p"] < 1e-3 and word in advice and (wrong["pit_noise_ratio"] > 1) == (factor < 1)


def test_ranks_are_uniform_even_of_ties():
    """Exact: two p-values over 0.001, of a density and of a mass function."""
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    for family in (torch.distributions.Normal(0.0, 1.0), torch.distributions.Bernoulli(0.3)):
        rank = uniform_rank(family.sample((2000,)), family.sample((99, 2000)), generator)
        assert rank.shape == (2000,) and kolmogorov_smirnov_p(rank) > 0.001
    assert uniform_rank(torch.tensor([9.0]), torch.zeros(99, 1), generator) >= 0.99


def test_predictive_p_values_tell_a_wrong_noise():
    """Exact: a joint p-value over the least that 99 replicates allow, 0.01, but in 1% of all seeds."""
    model = twin()
    episodes = walks(model)
    exact, _ = numbers("ppc", episodes, model)
    assert exact["ppc_p"] == min(v for k, v in exact.items() if k.startswith("ppc_p_")) > 0.01
    model.frame_scale.mul_(5)
    wrong, advice = numbers("ppc", episodes, model)
    assert wrong["ppc_p_neighbour_difference"] == 0.01 and "grainier" in advice
    assert "p = 0.01, the least that 99 draws can give" in advice
    assert wrong["ppc_replicated_neighbour_difference"] > 1.3 * wrong["ppc_observed_neighbour_difference"]


def test_frame_quantities_by_hand():
    frame = torch.tensor([[0.0, 0.4], [0.2, 0.6]]).reshape(1, 1, 1, 2, 2)
    memorised = torch.stack([frame[:, 0] + 0.1, frame[:, 0] + 0.5], 1)
    mean, contrast, difference, error = frame_quantities(frame, memorised)[0].tolist()
    assert (mean, difference, error) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.01, abs=1e-5))
    assert contrast == pytest.approx(float(frame.std()))


def test_intervals_at_visited_and_at_unvisited_places():
    """The twin knows every place alike: both hold 90%, within five standard errors or so, and are equally wide."""
    model = twin(memory_scale=0.2, frame_scale=0.2)
    episodes = walks(model, batch=16, steps=40, num_observed=20)
    found, _ = numbers("unseen", episodes, model)
    for name in ("visited", "unvisited"):
        assert found[f"interval_coverage_{name}"] == pytest.approx(0.9, abs=0.06)
        assert found[f"interval_coverage_p_{name}"] > 0.01
    assert 0.7 < found["interval_width_ratio"] < 1.5
    # frames of new places now look as nothing that was seen
    cells = torch.floor(episodes.poses + 0.5)
    new = ~(cells[:, 20:, None] == cells[:, None, :20]).all(-1).any(-1)
    frames = episodes.frames.clone()
    frames[:, 20:][new] += 5 * torch.randn_like(frames[:, 20:][new])
    moved = Episodes(frames, episodes.actions, 20, episodes.poses, validate=False)
    wrong, advice = numbers("unseen", moved, model)
    assert wrong["interval_coverage_unvisited"] < 0.5 < wrong["interval_coverage_visited"]
    assert "believes to know what it has not seen" in advice


def test_paths_go_on_as_the_transition_says():
    model = twin()
    episodes = walks(model, batch=3)
    with torch.no_grad():
        s = draw_paths(model, Exact(model, width=1e-3), episodes, 500)
    assert s.shape == (500, 3, 14, 2)
    spread = s.std(0)[:, :, 0]
    assert float(spread[:, 8].max()) < 1e-2
    expected = 0.3 * torch.arange(1, 6).sqrt()
    torch.testing.assert_close(spread[:, 9:].mean(0), expected, rtol=0.1, atol=0)
    drift = (s[:, :, 9:] - s[:, :, 8:13]).mean(0)
    torch.testing.assert_close(drift, model.transition.moves(episodes.actions[:, 9:]), atol=0.1, rtol=0)


def test_uniformity_tests_keep_their_false_alarm_rates():
    """1000 uniform samples: at a rate of 5% at most 80 alarms, but for 2e-5."""
    generator = np.random.default_rng(0)
    ranks = generator.integers(32, size=(1000, 100))
    assert sum(rank_p(row, 32, 8) < 0.05 for row in ranks) <= 80
    low, high = binomial_band(100, 8, 0.05)
    counts = np.array([np.bincount(row // 4, minlength=8) for row in ranks])
    assert ((counts < low) | (counts > high)).any(1).sum() <= 80
    # the verdict says what the figure shows
    outside = ((counts < low) | (counts > high)).any(1)
    assert [bars_p(row) < 0.05 for row in counts] == outside.tolist()
    values = np.sort(generator.uniform(size=(1000, 100)))
    grid = np.arange(1, 101) / 100
    off = np.maximum(np.abs(grid - values), np.abs(grid - 0.01 - values)).max(1)
    assert 10 < (off > ecdf_band(100, 0.05)).sum() <= 80
    assert rank_p(generator.integers(24, size=100), 32, 8) < 1e-3
    with pytest.raises(ValueError, match="bins: expected a divisor of 32, got 5"):
        rank_p(ranks[0], 32, 5)
    assert joint_p([0.02, 0.5, float("nan")]) == 0.04 and joint_p([0.9, 0.8]) == 1


def test_adjusted_p_values_are_as_good_as_one():
    """Three quantities that depend on each other, 99 replicates: at 5%, 50 of 1000 alarms, at most 85 but for 1e-6."""
    generator = np.random.default_rng(0)
    values = generator.standard_t(3, size=(1000, 100, 3)) + generator.normal(size=(1000, 100, 1))
    least = np.array([adjusted_p(every[0], every[1:]).min() for every in values])
    assert 20 <= (least <= 0.05 + 1e-9).sum() <= 85 and least.min() >= 0.01
    far = adjusted_p(np.array([0.0, 50.0]), np.stack([np.arange(1.0, 100), np.arange(1.0, 100)], 1))
    assert far[0] < far[1] == 1
    assert adjusted_p(np.array([500.0, 1.0]), np.ones((99, 2))).tolist() == [0.01, 1.0]


def test_the_seed_decides_and_nothing_global_changes():
    model = twin()
    episodes, guide = walks(model, batch=2), Exact(model)
    pyro.clear_param_store()
    before = torch.get_rng_state()
    first = diagnose(model, guide, episodes, seed=1, checks=["khat", "ppc"]).numbers
    again = diagnose(model, guide, episodes, seed=1, checks=["ppc", "khat"]).numbers
    other = diagnose(model, guide, episodes, seed=3, checks=["khat"]).numbers
    assert first == again and other["khat_gap"] != first["khat_gap"]
    assert torch.equal(torch.get_rng_state(), before) and not list(pyro.get_param_store().keys())


def test_without_truth_the_rest_is_checked():
    model = twin()
    known = walks(model, batch=2)
    episodes = Episodes(known.frames, known.actions, known.num_observed, validate=False)
    found = diagnose(model, Exact(model), episodes, num_draws=100, num_simulations=40)
    assert set(found.findings) == set(CHECKS) - {"coverage", "unseen"}
    missing = "poses: expected true poses in the data for coverage, this data has none"
    assert found.advice["coverage"] == missing and set(found.skipped) == {"coverage", "unseen"}
    with pytest.raises(EpisodesError, match=missing):
        diagnose(model, Exact(model), episodes, checks=["coverage"])
