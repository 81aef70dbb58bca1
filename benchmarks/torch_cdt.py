# SPDX-License-Identifier: Apache-2.0
"""CDT written plainly in PyTorch with OSRL's layers and names, for timing and tests beside ours.

Written from the description in the papers (arXiv 2302.07351, 2505.21852) and OSRL's layer names.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm attention and perceptron with dropout on both branches."""

    def __init__(self, width: int, heads: int, dropout: tuple[float, float], tokens: int):
        super().__init__()
        attention, residual = dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(residual)
        self.attention = nn.MultiheadAttention(width, heads, attention, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(residual),
        )
        self.register_buffer("causal_mask", torch.ones(tokens, tokens).triu(1).bool())

    def forward(self, x: torch.Tensor, padded: torch.Tensor | None) -> torch.Tensor:
        """Tokens `[B, L, D]`, `padded` `[B, L]` true where a token is not to be looked at."""
        y, size = self.norm1(x), x.shape[1]
        mask = self.causal_mask[:size, :size]
        y = self.attention(y, y, y, attn_mask=mask, key_padding_mask=padded, need_weights=False)[0]
        x = x + self.drop(y)
        return x + self.mlp(self.norm2(x))


class Head(nn.Module):
    """Mean and log standard deviation of the action."""

    def __init__(self, width: int, action: int):
        super().__init__()
        self.mu, self.log_std = nn.Linear(width, action), nn.Linear(width, action)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of `[B, K, D]`, `[B, K, A]` each."""
        return self.mu(x), self.log_std(x)


class Network(nn.Module):
    """The transformer; costs-to-go enter as 50 - C."""

    def __init__(
        self,
        obs: int,
        action: int,
        steps: int = 300,
        context: int = 10,
        width: int = 128,
        layers: int = 3,
        heads: int = 8,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.timestep_emb = nn.Embedding(steps + context, width)
        self.state_emb, self.action_emb = nn.Linear(obs, width), nn.Linear(action, width)
        self.cost_emb, self.return_emb = nn.Linear(1, width), nn.Linear(1, width)
        self.emb_norm, self.out_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.emb_drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, (dropout, dropout), 4 * context) for _ in range(layers)
        )
        self.action_head = Head(width, action)
        self.state_pred_head, self.cost_pred_head = nn.Linear(width, obs), nn.Linear(width, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, obs, action, reward_to_go, cost_to_go, time, mask=None):
        """Windows `[B, K, ...]`, `mask` `[B, K]` true at real steps; as OSRL's `forward`.

        Returns `(mean, log_std)`, log-probabilities of no cost and a cost, next observations.
        """
        at = self.timestep_emb(time)
        tokens = [
            self.return_emb(reward_to_go[..., None]),
            self.cost_emb(50 - cost_to_go[..., None]),
            self.state_emb(obs),
            self.action_emb(action),
        ]
        x = torch.stack([token + at for token in tokens], 2).flatten(1, 2)
        padded = None if mask is None else ~mask.bool().repeat_interleave(4, 1)
        x = self.emb_drop(self.emb_norm(x))
        for block in self.blocks:
            x = block(x, padded)
        x = self.out_norm(x).unflatten(1, (-1, 4))
        cost = functional.log_softmax(self.cost_pred_head(x[:, :, 3]), -1)
        return self.action_head(x[:, :, 2]), cost, self.state_pred_head(x[:, :, 3])


class Learner:
    """The network's training step as OSRL does it: AdamW, warm-up, clip, entropy temperature."""

    def __init__(self, network: Network, action: int, rate: float = 1e-4, warmup: int = 500):
        self.network, self.goal = network, -float(action)
        self.optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warmup, 1)
        )
        self.log_temperature = torch.tensor(math.log(0.1), requires_grad=True)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], 1e-4)

    def losses(self, batch, cost_weight: float = 0.02, state_weight: float = 0.0):
        """The loss `[]` of a batch, and the entropy per dimension `[]`."""
        obs, action, reward_to_go, cost_to_go, cost, time, mask = batch
        (mean, log_std), log_p, next_obs = self.network(
            obs, action, reward_to_go, cost_to_go, time, mask
        )
        law = torch.distributions.Normal(mean, log_std.exp())
        entropy = law.entropy()[mask].mean()
        loss = -law.log_prob(action)[mask].mean() - self.log_temperature.exp().detach() * entropy
        label = cost.flatten().long()
        nll = functional.nll_loss(log_p.flatten(0, 1), label, reduction="none")
        loss = loss + cost_weight * (nll * mask.flatten()).mean()
        error = (next_obs[:, :-1] - obs[:, 1:]).square() * mask[:, :-1, None]
        return loss + state_weight * error.mean(), entropy

    def update(self, batch) -> None:
        """One step on a batch of tensors in `Batch`'s order."""
        loss, entropy = self.losses(batch)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 0.25)
        self.optimizer.step()
        self.temperature_optimizer.zero_grad()
        (self.log_temperature.exp() * (entropy - self.goal).detach()).backward()
        self.temperature_optimizer.step()
        self.schedule.step()


@torch.no_grad()
def rollout(network: Network, obs: torch.Tensor, length: int) -> torch.Tensor:
    """Actions `[B, T, A]` of episodes from `[B, S]`, each from the last K steps, as OSRL acts.

    The world is 0.9 s + 0.1 a_0, its reward a_0.
    """
    size, context = len(obs), network.blocks[0].causal_mask.shape[0] // 4
    seen = torch.zeros(size, length, obs.shape[1])
    actions = torch.zeros(size, length, network.action_head.mu.out_features)
    returns, costs = torch.full((size, length + 1), 30.0), torch.full((size, length + 1), 20.0)
    time = torch.arange(length).expand(size, -1)
    for step in range(length):
        seen[:, step] = obs
        rows = slice(max(0, step + 1 - context), step + 1)
        inputs = (x[:, rows] for x in (seen, actions, returns, costs, time))
        mean = network(*inputs)[0][0]
        actions[:, step] = mean[:, -1].clamp(-1, 1)
        reward = actions[:, step, 0]
        returns[:, step + 1] = returns[:, step] - 0.1 * reward
        costs[:, step + 1] = costs[:, step]
        obs = 0.9 * obs + 0.1 * reward[:, None]
    return actions
