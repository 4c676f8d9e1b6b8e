"""Posterior and predictions as an ArviZ tree with named dimensions."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch

from gtm_pyro.diagnostics.draws import FRAME, NamedDraws, Sites, array
from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, check_whole, first_line
from gtm_pyro.inference.programs import drawing
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.limits import check_memory

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

logger = logging.getLogger(__name__)

_CONSTANT = {
    "observed_frames": ("episode", "observed_step", *FRAME),
    "actions": ("episode", "step", "action"),
    "poses": ("episode", "step", "pose"),
    "num_observed": (),
}


@torch.no_grad()
def posterior(
    model: Any,
    guide: Any,
    episodes: Episodes,
    num_samples: int = 25,
    *,
    seed: int = 0,
    action_names: Sequence[str] | None = None,
) -> "DataTree":
    """Draws from the guide and from the model's predictions, of sites of any name, in ArviZ's schema.

    ====================== ===================================================================================
    group                  variables; the first four groups have ``chain`` (1) and ``draw`` before these
    ====================== ===================================================================================
    posterior              every latent site, from q(z, s | x, a), given all frames: of the GTM-SM s ``(episode,
                           step, state)`` and z ``(episode, predicted_step, latent)``
    posterior_predictive   every observed site, drawn with its noise: x ``(episode, predicted_step, channel, row,
                           column)``; the attribute ``given`` says from what
    log_likelihood         log p(x_t | z_t) of whole frames, ``(episode, predicted_step)``
    sample_stats           ``lp``, log p(x, z, s | a) of all episodes; ``log_weight`` ``(episode,)``, log p(x, z, s | a)
                           - log q(z, s | x, a), whose mean is the ELBO
    observed_data          x ``(episode, predicted_step, channel, row, column)``
    constant_data          observed_frames, actions, poses where known, num_observed
    ====================== ===================================================================================

    Predictions are made from the first tau frames and all actions where the pair infers a path from these, or imagines
    by itself; otherwise they are replicates given all frames. Dimensions of other sites: ``episode``, ``step`` and
    ``predicted_step`` for plates named ``episodes`` and ``steps``, the names of other plates, and ``NAME_dim_0`` for
    the numbers of a value.

    Draws of a variational posterior are independent, which makes them one chain. Steps are numbered from 1 to T.
    Everything is float32, 0.8 MB of frames for each sample, episode and thousand steps of 8 x 8 pixels: give few
    episodes. A log likelihood is of a frame, not of a pixel, and small beside them: ``loo`` leaves out frames.

    :param num_samples: 25 are the fewest of which ArviZ's ``loo`` estimates a tail.
    :param action_names: one for each number of an action.
    :raises EpisodesError: no predicted step, or names that do not fit the actions.
    :raises ConfigError: fewer than one sample, more than fit into memory, or a guide that was made for other episodes.
    """
    import arviz_base
    from xarray import DataTree

    episodes.check_finite()
    if not episodes.num_predicted:
        raise EpisodesError(
            f"num_observed: expected fewer than the {episodes.num_steps} steps, got {episodes.num_observed}"
        )
    check_whole(1, num_samples=num_samples)
    check_memory("num_samples", num_samples, 4 * episodes.predicted_frames.numel())
    names = list(action_names or (f"action {i}" for i in range(episodes.action_dim)))
    if len(names) != episodes.action_dim:
        raise EpisodesError(f"action_names: expected {episodes.action_dim} names, got {len(names)}")
    with drawing(seed, episodes.device, model, guide):
        sites = Sites(model, guide, episodes)
        inferred = sites.inferred(num_samples)
        predicted, given = sites.predicted(num_samples)
        scores = sites.scores(inferred, num_samples)
    observed = sites.named({name: sites.nodes[name]["value"].unsqueeze(0) for name in sites.observed})
    groups = {
        "posterior": sites.named(inferred),
        "posterior_predictive": sites.named(predicted),
        "log_likelihood": scores.log_likelihood,
        "sample_stats": scores.statistics(),
        "observed_data": {name: NamedDraws(site.dims, site.values[0]) for name, site in observed.items()},
        "constant_data": _constants(episodes),
    }
    coords = _coords(episodes, names)
    tree = DataTree.from_dict(
        {
            group: arviz_base.dict_to_dataset(
                {name: site.values if group.endswith("data") else site.values[None] for name, site in found.items()},
                dims={name: list(site.dims) for name, site in found.items()},
                coords=coords,
                sample_dims=[] if group.endswith("data") else ["chain", "draw"],
            )
            for group, found in groups.items()
            if found
        }
    )
    tree["posterior_predictive"].attrs["given"] = given
    tree.attrs |= {"inference_library": "pyro", "inference_library_version": pyro.__version__, "seed": seed}
    return tree


def save_posterior(tree: "DataTree", path: str | os.PathLike[str]) -> Path:
    """Write a tree as NetCDF, whole or not at all; ``xarray.open_datatree`` reads it, and so do ArviZ's functions.

    :raises RunFolderError: it cannot be written.
    """
    # noise does not shrink, constant frames and one-hot actions do
    packing = {"zlib": True, "complevel": 1}
    packed = {
        f"/{group}": {name: packing for name, variable in tree[group].data_vars.items() if variable.ndim}
        for group in ("observed_data", "constant_data")
        if group in tree.children
    }
    return write_result(path, tree.to_netcdf(engine="h5netcdf", encoding=packed))


def read_groups(path: str | os.PathLike[str], parent: str) -> "dict[str, Dataset]":
    """The groups below ``parent`` of a file that ``save_posterior`` wrote, in memory.

    None where there is no file, or a damaged one.
    """
    tree = _read_tree(Path(path))
    if tree is None or parent not in tree.children:
        return {}
    return {f"{parent}/{name}": child.to_dataset() for name, child in tree[parent].children.items()}


def add_groups(groups: "Mapping[str, Dataset]", path: str | os.PathLike[str], replacing: str) -> Path:
    """Write groups beside those that are in a file, or in a new file where there is none or a damaged one.

    :param groups: by name, ``diagnostics/khat`` for instance.
    :param replacing: a group that is removed first, with all below it.
    :raises RunFolderError: the file cannot be written.
    """
    from xarray import DataTree

    tree = _read_tree(Path(path)) or DataTree()
    if replacing in tree.children:
        del tree[replacing]
    for name, dataset in groups.items():
        tree[name] = DataTree(dataset)
    return save_posterior(tree, path)


def _read_tree(path: Path) -> "DataTree | None":
    from xarray import open_datatree

    if not path.is_file():
        return None
    try:
        with open_datatree(path, engine="h5netcdf") as tree:
            return tree.load().copy()
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # HDF5 knows many ways to be damaged
        logger.warning("%s: expected an ArviZ tree in NetCDF (%s); it is written anew", path, first_line(error))
        return None


def _constants(episodes: Episodes) -> dict[str, NamedDraws]:
    known = {
        "observed_frames": episodes.observed_frames,
        "actions": episodes.actions,
        "num_observed": torch.tensor(episodes.num_observed),
        "poses": episodes.poses,
    }
    return {name: NamedDraws(_CONSTANT[name], array(value)) for name, value in known.items() if value is not None}


def _coords(episodes: Episodes, action_names: list[str]) -> dict[str, Any]:
    """Labels of the dimensions that have some; others are counted from 0."""
    steps, tau = np.arange(1, episodes.num_steps + 1), episodes.num_observed
    coords = {"step": steps, "observed_step": steps[:tau], "predicted_step": steps[tau:], "action": action_names}
    if episodes.poses is not None:
        coords["pose"] = list(episodes.pose_names or range(episodes.poses.shape[-1]))
    return coords
