# SPDX-License-Identifier: Apache-2.0
"""NAS-Bench-201's supernet and GDAS's search step in plain PyTorch, for timing beside ours.

The step is AutoDL-Projects' (`exps/NAS-Bench-201-algos/GDAS.py`): a weight half with SGD and an
architecture half with Adam, each on an architecture of its own, of which only the sampled
operations run. The two architectures are arguments here, so that ours can be fed the same.
"""

import torch
from torch import nn
from torch.nn import functional

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


class ConvNorm(nn.Sequential):
    """ReLU, convolution, batch norm."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, affine: bool = False):
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out, affine=affine),
        )


def operation(name: str, channels: int) -> nn.Module:
    """A candidate of NAS-Bench-201 at stride 1."""
    return {
        "skip_connect": nn.Identity,
        "nor_conv_1x1": lambda: ConvNorm(channels, channels, 1),
        "nor_conv_3x3": lambda: ConvNorm(channels, channels, 3),
        "avg_pool_3x3": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    }[name]()


class Cell(nn.Module):
    """Four nodes; an edge is its sampled operation times its gate."""

    def __init__(self, names, channels: int):
        super().__init__()
        self.edges = nn.ModuleList(
            nn.ModuleList(operation(name, channels) for name in names) for _ in EDGES
        )

    def forward(self, x, gates, choice):
        """`gates` `[6, K]` and the operations' indices; a mixture where `choice` is None."""
        nodes = [x]
        for node in range(1, 4):
            parts = []
            for e, (start, end) in enumerate(EDGES):
                if end != node:
                    continue
                edge, gate = self.edges[e], gates[e]
                if choice is None:
                    parts.append(
                        sum(g * op(nodes[start]) for g, op in zip(gate, edge, strict=True))
                    )
                else:
                    # The others' gates, zeros, carry a gradient all the same.
                    rest = gate.sum() - gate[choice[e]]
                    parts.append(gate[choice[e]] * edge[choice[e]](nodes[start]) + rest)
            nodes.append(sum(parts[1:], parts[0]))
        return nodes[-1]


class Block(nn.Module):
    """Residual block of stride 2."""

    def __init__(self, into: int, out: int):
        super().__init__()
        self.first = ConvNorm(into, out, 3, 2, affine=True)
        self.second = ConvNorm(out, out, 3, affine=True)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(into, out, 1, bias=False))

    def forward(self, x):
        """`[B, C, H, W]` to `[B, 2 C, H / 2, W / 2]`."""
        return self.shortcut(x) + self.second(self.first(x))


class Supernet(nn.Module):
    """Stem, three stages of cells, head."""

    def __init__(self, names, channels: int, cells: int, classes: int = 10, depth: int = 3):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(depth, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.stages, self.blocks = nn.ModuleList(), nn.ModuleList()
        for stage in range(3):
            width = channels << stage
            if stage:
                self.blocks.append(Block(width // 2, width))
            self.stages.append(nn.ModuleList(Cell(names, width) for _ in range(cells)))
        self.norm, self.linear = nn.BatchNorm2d(width), nn.Linear(width, classes)

    def forward(self, x, gates, choice):
        """Logits `[B, L]` of images `[B, 3, H, W]`."""
        x = self.stem(x)
        for stage, cells in enumerate(self.stages):
            if stage:
                x = self.blocks[stage - 1](x)
            for cell in cells:
                x = cell(x, gates, choice)
        return self.linear(functional.relu(self.norm(x)).mean((2, 3)))


class Learner:
    """Alternates weight and architecture steps with the settings that ours has."""

    def __init__(self, names, channels: int, cells: int, batch: int, size: int, total: int):
        torch.manual_seed(0)
        self.net = Supernet(names, channels, cells)
        self.theta = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(names)))
        self.weights = list(self.net.parameters())
        self.sgd = torch.optim.SGD(self.weights, 0.1, 0.9, weight_decay=5e-4, nesterov=True)
        self.adam = torch.optim.Adam([self.theta], 3e-4, betas=(0.5, 0.999))
        self.schedules = [
            torch.optim.lr_scheduler.CosineAnnealingLR(opt, total) for opt in (self.sgd, self.adam)
        ]
        self.batches = [
            (torch.randn(batch, 3, size, size), torch.randint(10, (batch,))) for _ in range(2)
        ]

    def gates(self, choice, temperature: float = 5.0):
        """The straight-through gates of a hard Gumbel sample, as if it had drawn `choice`."""
        noise = -torch.empty_like(self.theta).exponential_().log()
        soft = ((self.theta.log_softmax(-1) + noise) / temperature).softmax(-1)
        hard = functional.one_hot(torch.as_tensor(choice), soft.shape[-1]).to(soft.dtype)
        return hard - soft.detach() + soft

    def step(self, weight_choice, theta_choice, lean: bool) -> None:
        """One search step.

        Args:
          weight_choice: the operations of the weight half.
          theta_choice: those of the architecture half.
          lean: the architecture half asks for theta's gradient only, not for the weights' as well.
        """
        images, labels = self.batches[0]
        self.sgd.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(
            self.net(images, self.gates(weight_choice).detach(), weight_choice), labels
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.sgd.step()
        images, labels = self.batches[1]
        loss = functional.cross_entropy(
            self.net(images, self.gates(theta_choice), theta_choice), labels
        )
        self.adam.zero_grad(set_to_none=True)
        if lean:
            (self.theta.grad,) = torch.autograd.grad(loss, [self.theta])
        else:
            self.sgd.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_([self.theta], 1.0)
        self.adam.step()
        for schedule in self.schedules:
            schedule.step()
