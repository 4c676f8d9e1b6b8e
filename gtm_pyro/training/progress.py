"""What a run tells while it trains: a progress bar, metrics.jsonl, TensorBoard."""

import threading
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import nn
from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

from gtm_pyro.episodes import Episodes
from gtm_pyro.inference.auxiliary import Auxiliary
from gtm_pyro.reading import Reading
from gtm_pyro.storage.json import plain
from gtm_pyro.storage.progress import interval
from gtm_pyro.storage.run_folder import RunFolder
from gtm_pyro.training.learner import scored_frames


@torch.no_grad()
def elbo_terms(
    model: nn.Module, guide: nn.Module, episodes: Episodes, reading: Reading, auxiliary: Auxiliary | None = None
) -> dict[str, float]:
    """The terms of the loss in nats a frame, from one draw of the guide.

    :returns: log_likelihood: of all observed sites; kl_NAME: of each latent site, log q - log p; auxiliary: what is
        added to the negative ELBO, where something is.
    """
    with pyro.validation_enabled(False):
        guide_trace = poutine.trace(guide).get_trace(episodes, reading)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(episodes, reading)
        guide_trace.compute_log_prob()
        model_trace.compute_log_prob()
    frames = scored_frames(episodes, reading)
    terms = {"log_likelihood": 0.0}
    for name in model_trace.observation_nodes:
        terms["log_likelihood"] += float(model_trace.nodes[name]["log_prob_sum"]) / frames
    for name in model_trace.stochastic_nodes:
        if name in guide_trace.nodes and not site_is_subsample(model_trace.nodes[name]):
            difference = guide_trace.nodes[name]["log_prob_sum"] - model_trace.nodes[name]["log_prob_sum"]
            terms[f"kl_{name}"] = float(difference) / frames
    if auxiliary is not None:
        terms["auxiliary"] = float(auxiliary(model, guide, episodes, reading)) / frames
    return terms


class Progress:
    """Shows and stores the numbers of a run; a context, so that the bar and the writer are closed.

    :param lines: of metrics.jsonl from before a resume.
    :param step: optimiser steps taken before.
    :param total: optimiser steps to take in all.
    """

    def __init__(
        self, folder: RunFolder | None, lines: list[dict[str, Any]], step: int, total: int, show: bool = True
    ) -> None:
        self.folder, self.lines = folder, lines
        # the bar's own clock sees this session only, so its time left is right after a resume as well
        self.bar = tqdm(
            total=total, initial=step, disable=not show, unit="step", mininterval=interval(), dynamic_ncols=True
        )
        self.writer = _summary_writer(folder, step) if folder else None
        self._hook = threading.excepthook
        threading.excepthook = self._told_of_thread

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.writer:
            _quietly(self.writer.close)
        threading.excepthook = self._hook

    def _told_of_thread(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard's writer is a thread, whose end on a full disk is nothing to show a traceback of."""
        ours = type(failure.thread).__module__.startswith("tensorboard.")
        if not (ours and issubclass(failure.exc_type, OSError)):
            self._hook(failure)

    def advance(self, total: int) -> None:
        """One more step; ``total`` grows with every restart."""
        self.bar.total = total
        self.bar.update()

    def log(self, line: Mapping[str, Any], stages: int) -> None:
        """Write one line of metrics; numbers that are not finite become null.

        :raises RunFolderError: metrics.jsonl could not be written.
        """
        clean = plain(dict(line))
        self.lines.append(clean)
        if self.folder:
            self.folder.append_metrics(clean)
        terms = {"loss": line["loss"], "x": line["log_likelihood"]}
        terms |= {name: value for name, value in line.items() if name.startswith("kl_") or name == "auxiliary"}
        self.bar.set_description(f"stage {line['stage']}/{stages}", refresh=False)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self.bar.set_postfix_str(shown, refresh=False)
        if self.writer:
            for name, value in clean.items():
                if name != "step" and value is not None:
                    _quietly(self.writer.add_scalar, name, value, line["step"])


def _summary_writer(folder: RunFolder, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    try:
        return SummaryWriter(str(folder.tensorboard), purge_step=step + 1)
    except (OSError, UnicodeError):  # the latter where the folder's name has letters that Python cannot decode
        return None


def _quietly(call: Any, *args: Any) -> None:
    # the curves are a copy of metrics.jsonl: losing them must not stop a run
    try:
        call(*args)
    except OSError:
        pass
