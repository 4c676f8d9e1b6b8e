"""The ArviZ tree: its groups, its named dimensions, where its draws come from, and its file."""

import arviz_stats
import numpy as np
import pyro
import pytest
import torch
import xarray

from gtm_pyro.diagnostics.densities import site_log_probs
from gtm_pyro.diagnostics.posterior import add_groups, posterior, read_groups, save_posterior
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, RunFolderError
from gtm_pyro.evaluation.bounds import log_weights
from gtm_pyro.guides.dead_reckoning import DeadReckoning
from gtm_pyro.models.gtm_sm import GTMSM
from gtm_pyro.networks.frames import FrameDecoder, FrameEncoder
from gtm_pyro.reading import Reading
from gtm_pyro.transitions import Translation

BATCH, TAU, STEPS, SAMPLES = 2, 9, 14, 6


@pytest.fixture(autouse=True)
def empty_param_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def episodes(seed: int = 0, poses: bool = True) -> Episodes:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(BATCH, STEPS, 3, 8, 8, generator=generator)
    actions = torch.eye(5)[torch.randint(5, (BATCH, STEPS), generator=generator)]
    return Episodes(frames, actions, TAU, torch.zeros(BATCH, STEPS, 2) if poses else None)


def programs(scale: float = 0.1):
    torch.manual_seed(0)
    encoder, decoder = FrameEncoder(4), FrameDecoder(4, scale=scale)
    model = GTMSM(Translation(5, scale=0.05), encoder=encoder, decoder=decoder)
    return model, DeadReckoning(model)


def test_groups_are_of_the_arviz_schema_and_dimensions_are_named():
    tree = posterior(*programs(), episodes(), SAMPLES, action_names=("up", "down", "left", "right", "stay"))
    drawn = {"posterior", "posterior_predictive", "log_likelihood", "sample_stats"}
    assert set(tree.children) == drawn | {"observed_data", "constant_data"}
    draws = {"chain": 1, "draw": SAMPLES}
    frame = {"channel": 3, "row": 8, "column": 8}
    sizes = {
        "posterior/s": {**draws, "episode": BATCH, "step": STEPS, "state": 2},
        "posterior/z": {**draws, "episode": BATCH, "predicted_step": STEPS - TAU, "latent": 4},
        "posterior_predictive/x": {**draws, "episode": BATCH, "predicted_step": STEPS - TAU, **frame},
        "log_likelihood/x": {**draws, "episode": BATCH, "predicted_step": STEPS - TAU},
        "sample_stats/lp": draws,
        "sample_stats/log_weight": {**draws, "episode": BATCH},
        "observed_data/x": {"episode": BATCH, "predicted_step": STEPS - TAU, **frame},
        "constant_data/observed_frames": {"episode": BATCH, "observed_step": TAU, **frame},
        "constant_data/actions": {"episode": BATCH, "step": STEPS, "action": 5},
        "constant_data/poses": {"episode": BATCH, "step": STEPS, "pose": 2},
        "constant_data/num_observed": {},
    }
    found = {f"{name}/{var}": dict(data.sizes) for name in tree.children for var, data in tree[name].data_vars.items()}
    assert found == sizes
    for group in tree.children.values():
        assert set(group.dims) == set(group.coords)
        assert group.attrs["creation_library"] == "ArviZ"
    assert tree["posterior"]["step"].values.tolist() == list(range(1, STEPS + 1))
    assert tree["posterior"]["predicted_step"].values.tolist() == list(range(TAU + 1, STEPS + 1))
    assert tree["constant_data"]["action"].values.tolist() == ["up", "down", "left", "right", "stay"]
    assert tree["posterior_predictive"]["x"].dtype == np.float32
    assert "poses" not in posterior(*programs(), episodes(poses=False), 1)["constant_data"]


def test_densities_are_those_of_the_draws():
    """From z and the frames alone; and their sums are what the bound is the mean of."""
    data = episodes()
    model, guide = programs()
    tree = posterior(model, guide, data, SAMPLES)
    z = torch.from_numpy(tree["posterior"]["z"].values[0])
    with torch.no_grad():
        of_frames = model.decoder(z).log_prob(data.predicted_frames)
    np.testing.assert_allclose(tree["log_likelihood"]["x"].values[0], of_frames, rtol=1e-5)
    weights = tree["sample_stats"]["log_weight"]
    expected = log_weights(model, guide, data, 100).total.double()
    error = (expected.var(0) / 100 + torch.from_numpy(weights.var(("chain", "draw")).values) / SAMPLES).sqrt()
    off = (torch.from_numpy(weights.mean(("chain", "draw")).values) - expected.mean(0)) / error
    assert off.abs().max() < 5
    s = torch.from_numpy(tree["posterior"]["s"].values[0]).unsqueeze(-3)
    with torch.no_grad():
        parts = site_log_probs(model, data, Reading(), {"s": s, "z": z})
    joint = sum(part.reshape(SAMPLES, -1).double().sum(1) for part in parts.values())
    np.testing.assert_allclose(tree["sample_stats"]["lp"].values[0], joint, rtol=1e-6)


def test_observed_data_and_constants_are_those_given():
    data = episodes()
    tree = posterior(*programs(), data, 1)
    np.testing.assert_array_equal(tree["observed_data"]["x"], data.predicted_frames)
    np.testing.assert_array_equal(tree["constant_data"]["observed_frames"], data.observed_frames)
    np.testing.assert_array_equal(tree["constant_data"]["actions"], data.actions)
    assert int(tree["constant_data"]["num_observed"]) == TAU


def test_z_is_the_guide_s():
    """False-alarm rate: 40 means, each within 5 standard errors of a normal, 2e-5 in all."""
    data = episodes()
    model, guide = programs()
    z = posterior(model, guide, data, 60)["posterior"]["z"].sel(chain=0)
    with torch.no_grad():
        expected = model.encoder(data.predicted_frames)
    error = (z.mean("draw").values - expected.mean.numpy()) / expected.stddev.numpy() * 60**0.5
    assert np.abs(error).max() < 5
    assert error.std() > 0.3  # draws, not means


class Peeking(DeadReckoning):
    """Nothing moves if the last frame that the guide is given is dark."""

    def path(self, episodes):
        bright = episodes.frames[:, -1].mean((1, 2, 3)) > 0.2
        return self.model.path(5 * episodes.actions * bright.reshape(-1, 1, 1))


def test_predictions_see_no_predicted_frame_and_the_posterior_does():
    data = episodes()
    model, _ = programs()
    frames = data.frames.clone()
    frames[:, TAU:] *= 0.1
    other = Episodes(frames, data.actions, TAU, data.poses)
    first, second = (posterior(model, Peeking(model), given, 3) for given in (data, other))
    np.testing.assert_array_equal(first["posterior_predictive"]["x"], second["posterior_predictive"]["x"])
    assert np.abs(first["posterior"]["z"] - second["posterior"]["z"]).max() > 1e-3
    # they do follow the guide's path: with the same noise, another guide predicts other frames
    plain = posterior(model, DeadReckoning(model), data, 3)
    assert (plain["posterior_predictive"]["x"] != first["posterior_predictive"]["x"]).any()


def test_predictions_are_drawn_with_the_noise_of_the_likelihood():
    """x - E[x | z] has standard deviation 0.3 in 3,840 pixels a draw; the bound is 8 standard errors wide."""
    noisy, plain = (posterior(*programs(scale), episodes(), 20)["posterior_predictive"]["x"] for scale in (0.3, 1e-6))
    spread = noisy.std("draw").values
    assert abs(np.sqrt((spread**2).mean() * 20 / 19) - 0.3) < 0.01
    assert plain.std("draw").values.mean() < 0.1


def test_the_file_opens_and_arviz_summarises_it(tmp_path):
    tree = posterior(*programs(), episodes(), SAMPLES)
    path = save_posterior(tree, tmp_path / "run" / "posterior.nc")
    assert [p.name for p in path.parent.iterdir()] == ["posterior.nc"]
    with xarray.open_datatree(path, engine="h5netcdf") as opened:
        for name in tree.children:
            xarray.testing.assert_equal(opened[name].to_dataset(), tree[name].to_dataset())
        summary = arviz_stats.summary(opened, var_names=["s"], kind="stats")
        assert len(summary) == BATCH * STEPS * 2
        assert opened.attrs["inference_library"] == "pyro"


def test_the_seed_decides_and_nothing_global_changes():
    model, guide = programs()
    before = torch.get_rng_state()
    first, again = (posterior(model, guide, episodes(), 2, seed=1)["posterior"]["s"] for _ in range(2))
    other = posterior(model, guide, episodes(), 2, seed=2)["posterior"]["s"]
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(pyro.get_param_store().keys())
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first.isel(draw=0) != first.isel(draw=1)).any()


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(EpisodesError, match="action_names: expected 5 names, got 2"):
        posterior(*programs(), episodes(), 1, action_names=("up", "down"))
    with pytest.raises(EpisodesError, match="num_observed: expected fewer than the 9 steps, got 9"):
        posterior(*programs(), episodes().observed, 1)
    with pytest.raises(ValueError, match="num_samples: expected a whole number of at least 1, got 0"):
        posterior(*programs(), episodes(), 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="posterior.nc: could not be written"):
        save_posterior(posterior(*programs(), episodes(), 1), tmp_path / "file" / "posterior.nc")


def test_files_of_earlier_versions_take_a_diagnosis(tmp_path):
    """They had one dimension ``sample`` and neither likelihoods nor statistics."""
    earlier = {
        "posterior": xarray.Dataset({"s": (("sample", "episode", "step", "state"), np.zeros((3, 1, 4, 2)))}),
        "diagnostics/khat": xarray.Dataset({"khat": ("episode", np.ones(1))}, attrs={"khat_max": 1.0}),
    }
    path = tmp_path / "posterior.nc"
    save_posterior(xarray.DataTree.from_dict(earlier), path)
    groups = read_groups(path, "diagnostics")
    assert list(groups) == ["diagnostics/khat"] and groups["diagnostics/khat"].attrs["khat_max"] == 1
    add_groups({**groups, "diagnostics/pit": xarray.Dataset({"pit": ("pixel", np.ones(2))})}, path, "diagnostics")
    assert list(read_groups(path, "diagnostics")) == ["diagnostics/khat", "diagnostics/pit"]
    with xarray.open_datatree(path) as tree:
        assert tree["posterior"]["s"].dims == ("sample", "episode", "step", "state")
