"""Maps from what is known to the mean and the scale of a normal."""

import torch
from torch import Tensor, nn

from gtm_pyro.errors import check_whole


class GaussianMap(nn.Module):
    """Two numbers for each latent, of an input: a linear map of it, and of one hidden layer made of it.

    It begins as a standard normal; where the input begins with latents, those that a memory read for instance, as one
    about their mean: a latent that was read then counts from the first step on, and what to read has a gradient.

    :param input_dim: length of the input.
    :param latent_dim: length of z.
    :param hidden_dim: units of the hidden layer.
    :param num_latents: how many latents the input begins with.
    """

    def __init__(self, input_dim: int, latent_dim: int, hidden_dim: int = 64, num_latents: int = 0) -> None:
        super().__init__()
        check_whole(1, input_dim=input_dim, latent_dim=latent_dim, hidden_dim=hidden_dim)
        self.hidden = nn.Linear(input_dim, hidden_dim)
        self.output = nn.Linear(input_dim + hidden_dim, 2 * latent_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        if num_latents:
            with torch.no_grad():
                mean = torch.eye(latent_dim).repeat(1, num_latents) / num_latents
                self.output.weight[:latent_dim, : num_latents * latent_dim] = mean

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For a mean and for the logarithm of a standard deviation, each ``(..., latent_dim)``."""
        hidden = nn.functional.elu(self.hidden(x))
        loc, log_scale = self.output(torch.cat([x, hidden], -1)).chunk(2, -1)
        return loc, log_scale
