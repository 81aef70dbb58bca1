# SPDX-License-Identifier: Apache-2.0
"""M2TD3's update written plainly in PyTorch, for timing beside ours (papers: arXiv 2211.03413)."""

import torch
from torch import nn
from torch.nn import functional


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, outputs)
    )


class Learner:
    """Hard M2TD3 with the paper's values, on random transitions in preallocated tensors."""

    def __init__(self, obs: int, action: int, omega: int, stored: int, threads: int):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.stored, self.limit, self.k = stored, 3.0, 5
        self.data = [
            torch.randn(stored, n) for n in (obs, action, 1, obs, omega)
        ]  # obs, action, reward, next obs, omega in [-1, 1]
        self.data[4].clamp_(-1, 1)
        self.actor, self.target_actor = _mlp(obs, action), _mlp(obs, action)
        size = obs + action + omega
        self.critics = nn.ModuleList(_mlp(size, 1) for _ in range(2))
        self.targets = nn.ModuleList(_mlp(size, 1) for _ in range(2))
        self.target_actor.load_state_dict(self.actor.state_dict())
        self.targets.load_state_dict(self.critics.state_dict())
        self.z = [torch.randn(omega, requires_grad=True) for _ in range(self.k)]
        self.probs = torch.full((self.k,), 1 / self.k)
        self.actor_opt = torch.optim.Adam(self.actor.parameters(), 3e-4)
        self.critic_opt = torch.optim.Adam(self.critics.parameters(), 3e-4)
        self.z_opts = [torch.optim.Adam([z], 3e-4) for z in self.z]

    def _pi(self, net: nn.Module, obs: torch.Tensor) -> torch.Tensor:
        return self.limit * torch.tanh(net(obs))

    def _sample(self) -> list[torch.Tensor]:
        index = torch.randint(0, self.stored, (100,))
        return [x[index] for x in self.data]

    def _critic_step(self) -> torch.Tensor:
        obs, action, reward, next_obs, omega = self._sample()
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5) * self.limit
            a = (self._pi(self.target_actor, next_obs) + noise).clamp(-self.limit, self.limit)
            w = (omega + (0.2 * torch.randn_like(omega)).clamp(-0.5, 0.5)).clamp(-1, 1)
            x = torch.cat([next_obs, a, w], 1)
            target = reward + 0.99 * torch.minimum(self.targets[0](x), self.targets[1](x))
        x = torch.cat([obs, action, omega], 1)
        loss = sum(functional.mse_loss(critic(x), target) for critic in self.critics)
        self.critic_opt.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_opt.step()
        return obs

    def _actor_step(self, obs: torch.Tensor) -> None:
        action = self._pi(self.actor, obs)
        with torch.no_grad():
            omegas = 2 * torch.sigmoid(torch.stack(self.z)) - 1
            rows = [torch.cat([obs, action, w.expand(len(obs), -1)], 1) for w in omegas]
            values = self.critics[0](torch.cat(rows)).view(self.k, -1).mean(1)
            worst = int(values.argmin())
        omega = 2 * torch.sigmoid(self.z[worst]) - 1
        value = self.critics[0](torch.cat([obs, action, omega.expand(len(obs), -1)], 1)).mean()
        params = list(self.actor.parameters())
        *grads, grad_z = torch.autograd.grad(value, [*params, self.z[worst]])
        for p, g in zip(params, grads, strict=True):
            p.grad = -g
        self.z[worst].grad = grad_z
        self.actor_opt.step()
        self.z_opts[worst].step()
        self.probs.mul_(1 - 1e-3)[worst] += 1e-3

    def update(self) -> None:
        """Two critic steps, then actor, worst candidate and targets."""
        self._critic_step()
        obs = self._critic_step()
        self._actor_step(obs)
        with torch.no_grad():
            for net, target in ((self.actor, self.target_actor), (self.critics, self.targets)):
                for p, t in zip(net.parameters(), target.parameters(), strict=True):
                    t.lerp_(p, 5e-3)
