"""Posterior and predictions as an ArviZ tree with named dimensions."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from gtm_pyro.episodes import Episodes
from gtm_pyro.errors import EpisodesError, RunFolderError
from gtm_pyro.inference.programs import EvaluatedGuide, EvaluatedModel, check_can_be_evaluated, drawing
from gtm_pyro.reading import Reading
from gtm_pyro.storage.atomic import write_result
from gtm_pyro.storage.limits import check_memory

if TYPE_CHECKING:  # a second to import, and only this file needs it
    from xarray import Dataset, DataTree

_FRAME = ["channel", "row", "column"]
_DIMS = {
    "s": ["episode", "step", "state"],
    "z": ["episode", "predicted_step", "latent"],
    "x": ["episode", "predicted_step", *_FRAME],
    "observed_frames": ["episode", "observed_step", *_FRAME],
    "actions": ["episode", "step", "action"],
    "poses": ["episode", "step", "pose"],
    "num_observed": [],
}


@torch.no_grad()
def posterior(
    model: EvaluatedModel,
    guide: EvaluatedGuide,
    episodes: Episodes,
    num_samples: int = 20,
    *,
    seed: int = 0,
    action_names: Sequence[str] | None = None,
) -> "DataTree":
    """Draws from the guide and from the model's predictions, as ``arviz_base`` and ``arviz_stats`` take them.

    ====================== ===================================================================================
    group                  variables
    ====================== ===================================================================================
    posterior              s ``(sample, episode, step, state)``, z ``(sample, episode, predicted_step, latent)``:
                           q(z, s | x, a), given all frames
    posterior_predictive   x ``(sample, episode, predicted_step, channel, row, column)``, drawn with its noise: the
                           guide saw the first tau frames, the rest comes from actions alone
    observed_data          x ``(episode, predicted_step, channel, row, column)``
    constant_data          observed_frames, actions, poses where known, num_observed
    ====================== ===================================================================================

    Draws of a variational posterior are no chains: there is one dimension ``sample``, as in ArviZ's converter for
    NumPyro's SVI. Steps are numbered from 1 to T. Everything is float32, 0.8 MB of frames for each sample, episode and
    thousand steps of 8 x 8 pixels: give few episodes.

    :param action_names: one for each number of an action.
    :raises EpisodesError: no predicted step, or names that do not fit the actions.
    :raises ValueError: fewer than one sample.
    :raises ConfigError: the model or the guide does not have what evaluation asks for, or more samples than fit into
        memory.
    """
    import arviz_base

    check_can_be_evaluated(model, guide)
    episodes.check_finite()
    if not episodes.num_predicted:
        raise EpisodesError(
            f"num_observed: expected fewer than the {episodes.num_steps} steps, got {episodes.num_observed}"
        )
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
    check_memory("num_samples", num_samples, 4 * episodes.predicted_frames.numel())
    names = list(action_names or (f"action {i}" for i in range(episodes.action_dim)))
    if len(names) != episodes.action_dim:
        raise EpisodesError(f"action_names: expected {episodes.action_dim} names, got {len(names)}")
    with drawing(seed, episodes.device, model, guide):
        inferred = _stack([_inferred(guide, episodes) for _ in range(num_samples)])
        predicted = _stack([_predicted(model, guide, episodes) for _ in range(num_samples)])
    constant = {
        "observed_frames": episodes.observed_frames,
        "actions": episodes.actions,
        "num_observed": torch.tensor(episodes.num_observed),
    }
    if episodes.poses is not None:
        constant["poses"] = episodes.poses
    steps, tau = np.arange(1, episodes.num_steps + 1), episodes.num_observed
    sizes = dict(zip(_FRAME, episodes.frame_shape, strict=True)) | {"sample": num_samples, "episode": len(episodes)}
    sizes |= {"state": inferred["s"].shape[-1], "latent": inferred["z"].shape[-1]}
    coords: dict[Any, Any] = {name: np.arange(size) for name, size in sizes.items()}
    coords |= {"step": steps, "observed_step": steps[:tau], "predicted_step": steps[tau:], "action": names}
    if episodes.poses is not None:
        coords["pose"] = list(episodes.pose_names or range(episodes.poses.shape[-1]))
    tree: DataTree = arviz_base.from_dict(
        {
            "posterior": inferred,
            "posterior_predictive": predicted,
            "observed_data": {"x": _array(episodes.predicted_frames)},
            "constant_data": {name: _array(value) for name, value in constant.items()},
        },
        sample_dims=["sample"],
        coords=coords,
        dims=_DIMS,
    )
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
    """The groups below ``parent`` of a file that ``save_posterior`` wrote, in memory; none where there is no file.

    :raises RunFolderError: the file cannot be read.
    """
    tree = _read_tree(Path(path))
    if tree is None or parent not in tree.children:
        return {}
    return {f"{parent}/{name}": child.to_dataset() for name, child in tree[parent].children.items()}


def add_groups(groups: "Mapping[str, Dataset]", path: str | os.PathLike[str], replacing: str) -> Path:
    """Write groups beside those that are in a file, or in a new file.

    :param groups: by name, ``diagnostics/khat`` for instance.
    :param replacing: a group that is removed first, with all below it.
    :raises RunFolderError: the file cannot be read or written.
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
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: expected an ArviZ tree in NetCDF ({error})") from error


def _inferred(guide: EvaluatedGuide, episodes: Episodes) -> dict[str, Tensor]:
    nodes: Any = poutine.trace(guide).get_trace(episodes, Reading()).nodes
    return {"s": nodes["s"]["value"].squeeze(-3), "z": nodes["z"]["value"]}


def _predicted(model: EvaluatedModel, guide: EvaluatedGuide, episodes: Episodes) -> dict[str, Tensor]:
    """The model's own x along a path that the guide began and the actions continue."""
    observed = episodes.observed
    s = guide.path(observed).sample().squeeze(-3)
    rollout = model.imagine(
        s[:, -1], model.remember(s, observed.frames), episodes.predicted_actions, past=observed.actions
    )
    s = torch.cat([s, rollout.states], 1)
    # s is held from outside, for uncondition frees every site that is held inside it
    program = poutine.condition(poutine.uncondition(model), {"s": s.unsqueeze(-3)})
    nodes: Any = poutine.trace(program).get_trace(episodes, Reading()).nodes
    return {"x": nodes["x"]["value"]}


def _stack(draws: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    return {name: np.stack([_array(draw[name]) for draw in draws]) for name in draws[0]}


def _array(tensor: Tensor) -> np.ndarray:
    array = tensor.detach().cpu().numpy()
    return array.astype(np.float32) if array.dtype.kind == "f" else array
