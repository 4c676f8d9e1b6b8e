"""posterior.nc in the usual calls of ArviZ 0.23 and 1, and for pairs of any sites."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import arviz
import arviz_plots
import arviz_stats
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pytest
import torch
import xarray
from own_pairs import PAIRS
from toy_pairs import draw, toys

from gtm_pyro.diagnostics.draws import FROM_ACTIONS, FROM_FRAMES
from gtm_pyro.diagnostics.posterior import add_groups, posterior, save_posterior
from gtm_pyro.episodes import Episodes
from gtm_pyro.guides import AutoGuide, DeadReckoning
from gtm_pyro.models import LinearGaussian
from gtm_pyro.reading import Reading

SAMPLES = 25
FRAME = {"channel": 3, "row": 8, "column": 8}


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()
    plt.close("all")


def linear_gaussian() -> tuple[LinearGaussian, Episodes]:
    torch.manual_seed(0)
    model = LinearGaussian(reading=Reading())
    return model, model.simulate(torch.eye(5)[torch.randint(5, (3, 4))], 2)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what a diagnosis adds."""
    model, episodes = linear_gaussian()
    path = tmp_path_factory.mktemp("run") / "posterior.nc"
    save_posterior(posterior(model, DeadReckoning(model), episodes, SAMPLES), path)
    return add_groups({"diagnostics/khat": xarray.Dataset({"khat": ("episode", np.zeros(3))})}, path, "diagnostics")


OLD: dict[str, Callable[[Any], Any]] = {
    "summary": arviz.summary,
    "plot_trace": lambda data: arviz.plot_trace(data, compact=True),
    "plot_forest": arviz.plot_forest,
    "plot_ppc": arviz.plot_ppc,
    "loo": arviz.loo,
}
NEW: dict[str, Callable[[Any], Any]] = {
    "summary": arviz_stats.summary,
    "plot_trace": lambda data: arviz_plots.plot_trace(data, var_names=["s"], coords={"step": [1, 4]}),
    "plot_forest": arviz_plots.plot_forest,
    "plot_ppc_dist": lambda data: arviz_plots.plot_ppc_dist(data, num_samples=SAMPLES),
    "loo": arviz_stats.loo,
}


@pytest.mark.skipif(not arviz.__version__.startswith("0."), reason="InferenceData is ArviZ 0's")
@pytest.mark.parametrize("call", OLD)
def test_arviz_0_takes_the_file_as_it_is(path: Path, call: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a group that it does not know, and of few samples
        data = arviz.from_netcdf(path)
        result = OLD[call](data)
    assert result is not None
    if call == "loo":
        assert result.n_data_points == 3 * 2


@pytest.mark.parametrize("call", NEW)
def test_arviz_1_takes_the_file_as_it_is(path: Path, call: str) -> None:
    with warnings.catch_warnings(), xarray.open_datatree(path) as data:
        warnings.simplefilter("ignore")
        result = NEW[call](data)
    if call == "loo":
        assert result.n_data_points == 3 * 2
    if call == "summary":
        assert len(result) == 3 * (4 * 2 + 2 * 4)


def _sizes(tree: Any) -> dict[str, dict[str, int]]:
    groups = ("posterior", "posterior_predictive", "log_likelihood", "observed_data")
    return {f"{g}/{name}": dict(array.sizes) for g in groups for name, array in tree[g].data_vars.items()}


@pytest.mark.parametrize("kind", PAIRS)
def test_sites_of_any_name_are_exported(kind: str) -> None:
    torch.manual_seed(0)
    model_class, guide_class = PAIRS[kind]
    model, episodes = model_class(), draw()
    tree = posterior(model, guide_class(model), episodes, 2)
    draws, steps = {"chain": 1, "draw": 2, "episode": 4}, {"predicted_step": 2}
    latent = {"place": {**draws, "step": 5, "place_dim_1": 2}} if kind.startswith("a path") else {}
    latent = latent or {"code": {**draws, **steps, "code_dim_0": 4}}
    assert _sizes(tree) == {
        **{f"posterior/{name}": sizes for name, sizes in latent.items()},
        "posterior_predictive/frame": {**draws, **steps, **FRAME},
        "log_likelihood/frame": {**draws, **steps},
        "observed_data/frame": {"episode": 4, **steps, **FRAME},
    }
    given = FROM_FRAMES if kind == "a plain autoencoder" else FROM_ACTIONS
    assert tree["posterior_predictive"].attrs["given"] == given


def test_a_pair_without_steps_is_exported() -> None:
    draws = {"chain": 1, "draw": 3, "episode": 4}
    assert _sizes(posterior(*toys(), draw(), 3)) == {
        "posterior/z": draws,
        "posterior_predictive/x": draws,
        "log_likelihood/x": draws,
        "observed_data/x": {"episode": 4},
    }


@pytest.mark.parametrize("kind", ["AutoNormal", "AutoDelta", "AutoMultivariateNormal"])
def test_automatic_guides_are_exported_without_their_own_variables(kind: Any) -> None:
    model, episodes = linear_gaussian()
    tree = posterior(model, AutoGuide(model, kind), episodes, 3)
    assert set(tree["posterior"].data_vars) == {"s", "z"}
    assert tree["posterior_predictive"].attrs["given"] == FROM_FRAMES


def test_predictions_of_a_linear_model_have_its_moments() -> None:
    """Path and frames are as wide as the exact predictive distribution says; 5 standard errors of 150 draws."""
    model, episodes = linear_gaussian()
    one = episodes[:1]
    x = posterior(model, DeadReckoning(model), one, 150)["posterior_predictive"]["x"].values[0, :, 0]
    with torch.no_grad():
        path = model.path(one.actions)
        s = path.sample((20000,)).squeeze(-3)[:, 0, 2:]
        exact = model.decoder(model.prior(s).sample()).sample()
    error = exact.std(0) / 150**0.5
    assert (torch.from_numpy(x.mean(0)) - exact.mean(0)).abs().div(error).max() < 5
    assert np.abs(x.std(0) / exact.std(0).numpy() - 1).max() < 5 / 300**0.5
