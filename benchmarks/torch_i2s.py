# SPDX-License-Identifier: Apache-2.0
"""The published image-to-semantics networks in PyTorch: layers, losses and optimizer as ours."""

import torch
from torch import nn

_ENCODER = ((3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 2), (32, 32, 1), (32, 64, 2))
_DECODER = ((64, 1), (32, 2), (32, 1), (32, 2), (16, 1))


class VaeLearner:
    """Encoder, transposed decoder and Adam at 1e-3."""

    def __init__(self, latent: int):
        body: list[nn.Module] = []
        for inside, out, stride in _ENCODER:
            body += [nn.Conv2d(inside, out, 3, stride), nn.ReLU()]
        self.body = nn.Sequential(*body, nn.Flatten())
        self.mean, self.logvar = nn.Linear(64, latent), nn.Linear(64, latent)
        layers: list[nn.Module] = []
        inside = latent
        for out, stride in _DECODER:
            layers += [nn.ConvTranspose2d(inside, out, 4, stride), nn.ReLU()]
            inside = out
        self.decoder = nn.Sequential(*layers, nn.ConvTranspose2d(inside, 3, 4, 2), nn.Sigmoid())
        modules = (self.body, self.mean, self.logvar, self.decoder)
        parameters = [p for module in modules for p in module.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def update(self, images: torch.Tensor) -> float:
        """One step on `[B, 3, 64, 64]` in [0, 1]."""
        hidden = self.body(images)
        mean, logvar = self.mean(hidden), self.logvar(hidden)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        errors = ((self.decoder(z[:, :, None, None]) - images) ** 2).sum((1, 2, 3)).mean()
        kl = 0.5 * (mean**2 + logvar.exp() - logvar - 1).sum(1).mean()
        loss = 50 * errors + kl
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


class HeadsLearner:
    """A shared first layer, then a perceptron of width 64 for each dimension; Adam at 5e-4."""

    def __init__(self, latent: int, size: int, width: int = 64):
        grouped = [
            layer
            for _ in range(2)
            for layer in (nn.Conv1d(size * width, size * width, 1, groups=size), nn.ReLU())
        ]
        self.network = nn.Sequential(
            nn.Linear(latent, size * width),
            nn.ReLU(),
            nn.Unflatten(1, (size * width, 1)),
            *grouped,
            nn.Conv1d(size * width, size, 1, groups=size),
            nn.Flatten(),
        )
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=5e-4)

    def update(self, z: torch.Tensor, wanted: torch.Tensor) -> float:
        """One step on latents `[B, Z]` and normalised semantics `[B, S]`."""
        loss = ((self.network(z) - wanted) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
