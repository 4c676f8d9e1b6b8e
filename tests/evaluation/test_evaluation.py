"""Measures against known answers (an oracle that knows the world) and against brute force (a poor model)."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch
from oracle_cases import MOVES, SIDE, TO_STATE, Copies, HardWalls
from pyro.infer import RenyiELBO, Trace_ELBO

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, RunFolderError
from gtm_pyro.evaluation.bounds import LogWeights, log_weights
from gtm_pyro.evaluation.evaluation import evaluate
from gtm_pyro.evaluation.measures import MEASURES
from gtm_pyro.evaluation.views import visited_and_retrieved
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.memory import SpatialMemory
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.tasks.image_navigation.walks import crops, walled_positions
from gtm_pyro.transitions import Translation


@pytest.fixture(autouse=True)
def empty_param_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def walk(seed=0, batch=6, observed=40, predicted=48, dtype=torch.float32) -> Episodes:
    """Walks on a 5 x 5 grid of crops that share no pixel, so that every cell looks different."""
    generator = torch.Generator().manual_seed(seed)
    steps = observed + predicted
    actions = torch.randint(5, (batch, steps), generator=generator)
    actions[:, 0] = 4
    start = torch.full((batch, 2), SIDE // 2)
    positions = walled_positions(start, MOVES[actions], SIDE)
    worlds = torch.rand(batch, 3, 4 * SIDE, 4 * SIDE, generator=generator)
    frames = crops(worlds, positions, 4, 4)
    one_hot = torch.nn.functional.one_hot(actions, 5)
    return Episodes(frames.to(dtype), one_hot.to(dtype), observed, positions.to(dtype), worlds.to(dtype))


def oracle(scale=1e-6):
    copies = Copies((3, 4, 4), 1e-3)
    model = GTMSM(HardWalls(scale), SpatialMemory(1), encoder=copies, decoder=copies, initial_scale=1e-6)
    return model, DeadReckoning(model)


def poor(seed=0, num_neighbors=5):
    """Untrained networks and a transition that knows no wall, so that all measures are away from their ideals."""
    torch.manual_seed(seed)
    transition = Translation(5, scale=0.05)
    transition.displacement.data = (MOVES.float() @ TO_STATE.mT).mT
    encoder, decoder = FrameEncoder(4, (3, 4, 4)), FrameDecoder(4, (3, 4, 4))
    model = GTMSM(transition, SpatialMemory(num_neighbors), encoder=encoder, decoder=decoder)
    return model, DeadReckoning(model)


def without_poses(episodes):
    return Episodes(episodes.frames, episodes.actions, episodes.num_observed)


def test_an_oracle_is_perfect_where_it_has_been():
    episodes = walk()
    result = evaluate(*oracle(), episodes)
    metrics = result.metrics
    assert metrics["retrieval_accuracy"] == metrics["retrieval_accuracy_last_32"] == 1
    assert metrics["mse_visited"] == metrics["reconstruction_mse"] == 0
    assert metrics["mse_visited_sampled"] == pytest.approx(1e-6, rel=0.05)  # the variance of z
    assert metrics["mse_unvisited"] > 0.05
    for name in ("localisation_rmse", "localisation_rmse_similarity", "localisation_rmse_last_32"):
        assert metrics[name] < 1e-3
    torch.testing.assert_close(result.aligned_states, episodes.poses, atol=1e-3, rtol=0)
    assert 0.5 < metrics["visited_share"] < 1
    assert (metrics["num_episodes"], metrics["num_observed"], metrics["num_predicted"]) == (6, 40, 48)


@torch.no_grad()
def test_every_measure_of_a_poor_model_equals_a_loop_over_steps():
    episodes = walk(1)
    model, guide = poor()
    result = evaluate(model, guide, episodes, chunk_size=4)
    tau, total = 40, 88
    kinds: dict[str, list[float]] = {measure.name: [] for measure in MEASURES}
    for b in range(6):
        mean_frame = episodes.frames[b, :tau].mean(0)
        been = {tuple(pose.tolist()) for pose in episodes.poses[b, :tau]}
        for t in range(tau, total):
            true, h = episodes.frames[b, t], t - tau
            error = float((result.predicted_frames[b, h] - true).square().mean())
            floor = model.decoder.frames(model.encoder.statistics(true)["loc"])
            floor_error, mean_error = float((floor - true).square().mean()), float((mean_frame - true).square().mean())
            visited = tuple(episodes.poses[b, t].tolist()) in been
            # of the five nearest entries, the heaviest of those that agree with most weight
            square, near = (result.states[b, :tau] - result.states[b, t]).square().sum(-1).topk(5, largest=False)
            q = model.encoder.statistics(episodes.frames[b, near])
            variance = q["scale"].square().unsqueeze(1) + q["scale"].square()
            overlap = ((q["loc"].unsqueeze(1) - q["loc"]).square() / variance).sum(-1).mul(-0.5).exp()
            share = overlap / (square + model.prior.delta)
            shown = near[share[share.sum(1).argmax()].argmax()]
            assert result.entries[b, h] == shown
            decoded = model.decoder.frames(model.encoder.statistics(episodes.frames[b, shown])["loc"])
            torch.testing.assert_close(result.predicted_frames[b, h], decoded, atol=1e-5, rtol=1e-4)
            kinds["mse"].append(error)
            kinds["reconstruction_mse_all"].append(floor_error)
            kinds["mean_frame_mse_all"].append(mean_error)
            kinds["visited_share"].append(visited)
            kinds["mse_visited" if visited else "mse_unvisited"].append(error)
            if visited:
                right = bool((episodes.poses[b, shown] == episodes.poses[b, t]).all())
                kinds["reconstruction_mse"].append(floor_error)
                kinds["mean_frame_mse"].append(mean_error)
                kinds["retrieval_accuracy"].append(right)
                if t >= total - 32:
                    kinds["retrieval_accuracy_last_32"].append(right)
    checked = {name: np.mean(values) for name, values in kinds.items() if values}
    assert len(checked) == 10
    for name, value in checked.items():
        assert result.metrics[name] == pytest.approx(value, rel=1e-4), name
    assert 0.05 < result.metrics["retrieval_accuracy"] < 0.95
    error = (result.aligned_states - episodes.poses).square().sum(-1)
    assert result.metrics["localisation_rmse"] == pytest.approx(float(error.mean().sqrt()), rel=1e-4)
    assert result.metrics["localisation_rmse_last_32"] == pytest.approx(float(error[:, -32:].mean().sqrt()), rel=1e-4)
    assert result.metrics["localisation_rmse_similarity"] >= result.metrics["localisation_rmse"]


def test_arrays_by_horizon_average_to_the_numbers():
    result = evaluate(*poor(), walk(2), iwae_particles=0)
    counts = result.visited.sum(0).double().numpy()
    for name in ("mse_visited", "reconstruction_mse", "retrieval_accuracy", "mse", "mse_unvisited"):
        weights = {"mse": np.full_like(counts, 6), "mse_unvisited": 6 - counts}.get(name, counts)
        values = np.where(weights > 0, result.by_horizon[name], 0)
        assert values.shape == (48,)
        assert (values * weights).sum() / weights.sum() == pytest.approx(result.metrics[name]), name
    assert result.by_horizon["visited_share"] == pytest.approx(counts / 6)
    assert "iwae" not in result.metrics and math.isfinite(result.metrics["elbo"])


def test_visited_and_retrieved_by_hand():
    observed = 3.0 * torch.tensor([[[0, 0], [1, 0], [0, 0]]])
    predicted = torch.tensor([[[0, 0], [3, 0.0], [0, 3], [3, 0]]])
    visited, retrieved = visited_and_retrieved(observed, predicted, torch.tensor([[2, 0, 1, 1]]), 3.0)
    assert visited.tolist() == [[True, True, False, True]]
    assert retrieved.tolist() == [[True, False, False, True]]
    _, retrieved = visited_and_retrieved(observed, predicted, torch.tensor([[-1, 1, -1, 1]]), 3.0)  # -1
    assert retrieved.tolist() == [[False, True, False, True]]
    # off the grid: half a cell, whichever cell that is in
    near = torch.tensor([[[1.6, 0.0], [-1.4, 0], [3.0, 1.4], [3.0, 1.6]]])
    visited, _ = visited_and_retrieved(observed, near, torch.zeros(1, 4, dtype=torch.int64), 3.0)
    assert visited.tolist() == [[True, True, True, False]]


def test_a_place_is_half_a_cell_wide():
    episodes = walk()
    poses = episodes.poses * 100 + torch.rand_like(episodes.poses) * 30 - 15
    scaled = Episodes(episodes.frames, episodes.actions, episodes.num_observed, poses)
    same = evaluate(*oracle(), scaled, cell_size=100.0, iwae_particles=0)
    assert same.metrics["retrieval_accuracy"] == 1 and same.metrics["mse_visited"] == 0
    # at a cell of one unit hardly a pose comes twice
    assert evaluate(*oracle(), scaled, cell_size=1.0, iwae_particles=0).metrics["visited_share"] < 0.2


@pytest.mark.parametrize("motion", ["grid", "continuous"])
def test_the_unit_of_poses_changes_no_share_and_errors_in_proportion(motion):
    """Poses in metres, with cells of 0.25, in a frame of their own."""
    episodes = walk()
    poses = episodes.poses.double()
    if motion == "continuous":
        poses = poses + 0.2 * torch.rand(poses.shape, dtype=torch.float64)
    results = []
    for unit, offset in ((1.0, 0.0), (0.25, 0.0), (0.25, 7.125), (1e-3, 0.0), (1e3, 3e3)):
        moved = Episodes(episodes.frames, episodes.actions, episodes.num_observed, (unit * poses + offset).float())
        results.append(evaluate(*poor(), moved, iwae_particles=0).metrics)
        results[-1]["unit"] = unit
    first = results[0]
    assert 0.3 < first["visited_share"] < 0.9 and first["cell_size"] == (
        pytest.approx(1.0) if motion == "grid" else first["cell_size"]
    )
    scaled = ("cell_size", *(name for name in first if name.startswith("localisation")))
    for metrics in results[1:]:
        assert metrics.keys() == first.keys()
        for name in first.keys() - {"unit"}:
            factor = metrics["unit"] if name in scaled else 1.0
            assert metrics[name] == pytest.approx(factor * first[name], rel=1e-3), (name, metrics["unit"])


class Peeking(DeadReckoning):
    """States depend on every frame that the guide is given."""

    def path(self, episodes):
        path = self.model.path(episodes.actions)
        shift = episodes.frames.mean((1, 2, 3, 4)).reshape(-1, 1, 1)
        path.initial = pyro.distributions.Normal(shift.expand(-1, 1, 2), 1e-3).to_event(1)
        return path


def test_predictions_do_not_see_predicted_frames():
    episodes = walk()
    model, _ = poor()
    peeking = Peeking(model)
    changed = episodes.frames.clone()
    changed[:, episodes.num_observed :] = torch.rand_like(changed[:, episodes.num_observed :])
    other = Episodes(changed, episodes.actions, episodes.num_observed, episodes.poses)
    first, second = (evaluate(model, peeking, e, iwae_particles=0) for e in (episodes, other))
    torch.testing.assert_close(first.predicted_frames, second.predicted_frames, rtol=0, atol=0)
    torch.testing.assert_close(first.states, second.states, rtol=0, atol=0)
    assert first.metrics["mse"] != second.metrics["mse"]


def test_without_poses_only_measures_of_frames_and_bounds_are_known(tmp_path):
    result = evaluate(*poor(), without_poses(walk()))
    assert result.metrics.keys() == {
        "mse", "mse_first_8", "mse_last_32", "mean_frame_mse_all", "last_frame_mse", "closest_copy_mse",
        "reconstruction_mse_all", "elbo", "iwae", "kl_per_step", "regret", "regret_by_chance", "familiar_error",
        "familiar_share", "num_episodes", "num_observed", "num_predicted",
    }  # fmt: skip
    assert result.affine is result.similarity is result.visited is result.aligned_states is None
    result.save(tmp_path / "evaluation.json")
    saved = json.loads((tmp_path / "evaluation.json").read_text())
    assert saved == result.metrics and list(saved) == [m.name for m in MEASURES if m.name in saved]


def test_states_of_another_dimension_than_the_poses_have_no_similarity():
    transition = Translation(5, state_dim=3)
    model = GTMSM(transition, encoder=FrameEncoder(4, (3, 4, 4)), decoder=FrameDecoder(4, (3, 4, 4)))
    result = evaluate(model, DeadReckoning(model), walk(), iwae_particles=0)
    assert "localisation_rmse_similarity" not in result.metrics
    assert math.isfinite(result.metrics["localisation_rmse"])


def test_the_same_seed_gives_the_same_numbers_and_nothing_global_changes():
    episodes = walk()
    model, guide = poor()
    before = torch.get_rng_state()
    first = evaluate(model, guide, episodes, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store().keys())
    assert model.training and guide.training
    torch.manual_seed(99)
    assert evaluate(model, guide, episodes, seed=3).metrics == first.metrics
    assert evaluate(model, guide, episodes, seed=4).metrics["mse"] != first.metrics["mse"]


def test_another_model_in_the_parameter_store_is_not_taken_for_this_one():
    episodes = walk()
    model, guide = poor()
    alone = evaluate(model, guide, episodes).metrics
    svi = pyro.infer.SVI(*poor(seed=1), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(episodes)
    names = set(pyro.get_param_store().keys())
    assert evaluate(model, guide, episodes).metrics == alone
    assert names and set(pyro.get_param_store().keys()) == names


def test_elbo_and_iwae_are_pyro_s_own():
    episodes = walk(dtype=torch.float64)[:1]
    model, guide = (program.double() for program in poor())
    with torch.no_grad(), pyro.get_param_store().scope():
        torch.manual_seed(5)
        elbo = -Trace_ELBO(num_particles=4).loss(model, guide, episodes)
        torch.manual_seed(5)
        # alpha = 0 is the importance-weighted bound
        iwae = -RenyiELBO(alpha=0, num_particles=4).loss(model, guide, episodes)
    torch.manual_seed(5)
    weights = log_weights(model, guide, episodes, 4)
    assert weights.total.shape == weights.kl.shape == (4, 1)
    assert not list(pyro.get_param_store().keys())
    assert weights.total.mean().item() == pytest.approx(elbo, rel=1e-9)
    assert (weights.total.mean(0) + weights.iwae_gain()).item() == pytest.approx(iwae, rel=1e-9)


def test_the_bound_of_a_gaussian_is_exact_when_the_guide_is_the_posterior():
    def model(episodes, reading):
        with pyro.plate("episodes", 3, dim=-2), pyro.plate("steps", 7, dim=-1):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
            pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)

    def guide(episodes, reading):
        with pyro.plate("episodes", 3, dim=-2), pyro.plate("steps", 7, dim=-1):
            pyro.sample("z", pyro.distributions.Normal(x / 2, 0.5**0.5))

    torch.manual_seed(0)
    x = torch.randn(3, 7)
    exact = pyro.distributions.Normal(0.0, 2**0.5).log_prob(x).sum(-1)
    weights = log_weights(model, guide, SimpleNamespace(batch_size=3), 5)
    torch.testing.assert_close(weights.total, exact.expand(5, 3))
    torch.testing.assert_close(weights.iwae_gain(), torch.zeros(3), atol=1e-5, rtol=0)


def test_importance_weights_gain_what_the_formula_says():
    total = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    gain = LogWeights(total, torch.zeros_like(total)).iwae_gain()
    expected = math.log((math.e + math.e**3) / 2) - 2
    torch.testing.assert_close(gain, torch.tensor([expected, 0.0]))


def test_episodes_with_nothing_to_predict_are_refused():
    with pytest.raises(EpisodesError, match="num_observed: expected fewer than the 40 steps, got 40"):
        evaluate(*oracle(), walk().observed)


def test_files_are_written_whole_and_a_bad_path_is_named(tmp_path):
    result = evaluate(*oracle(), walk(), iwae_particles=0)
    result.save(tmp_path / "new" / "evaluation.json")
    assert json.loads((tmp_path / "new" / "evaluation.json").read_text())["retrieval_accuracy"] == 1
    result.save_by_horizon(tmp_path / "by_horizon.npz")
    with np.load(tmp_path / "by_horizon.npz") as arrays:
        assert arrays["mse_visited"].shape == (48,)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["by_horizon.npz", "evaluation.json"]
    with pytest.raises(RunFolderError, match="evaluation.json"):
        result.save(tmp_path / "by_horizon.npz" / "evaluation.json")
