"""PPO learns to balance a pole; the coefficients of the shaped reward are params.

The agent is trained on the shaped reward and evaluated by the plain one: `mean_reward` is the
number of steps with the pole up, 500 at most, the mean of `evaluation.episodes` episodes.

```
python examples/ppo_cartpole.py          # alone, with the params below
trialbus study phase=foundation          # search the agent's params, see docs/phases.md
```
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import trialbus
from trialbus.callbacks import CallbackFactory

DEFAULTS = {
    "agent.lr": 1e-3,
    "agent.gamma": 0.98,
    "agent.gae_lambda": 0.9,  # 0 trusts the critic, 1 the collected rewards
    "agent.clip": 0.2,  # bound of an update's change to the probability of an action
    "agent.entropy": 0.01,  # weight of the entropy bonus
    "agent.epochs": 4,  # passes over the experience of an update
    "agent.width": 64,  # of both hidden layers
    "reward.angle": 0.0,  # subtracted from each step's 1 when the pole is about to fall
    "reward.position": 0.0,  # when the cart is about to leave the track
    "reward.effort": 0.0,  # when the push changes direction
}
ENVS, STEPS, BATCH = 8, 32, 64  # one update learns from 8 environments * 32 steps, in batches
CHECKPOINT_EVERY = 10  # evaluations
WORST = torch.tensor([2.4, 0.2095])  # position and angle at which an episode ends


class Agent(nn.Module):
    """Actor, which scores both actions, and critic, which estimates the return."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.actor, self.critic = (
            nn.Sequential(
                nn.Linear(4, width),
                nn.Tanh(),
                nn.Linear(width, width),
                nn.Tanh(),
                nn.Linear(width, n),
            )
            for n in (2, 1)
        )


@dataclass
class Experience:
    """Experience for an update; every tensor is `(STEPS, ENVS)`, `observations` a step longer."""

    observations: list[Tensor] = field(default_factory=list[Tensor])
    actions: list[Tensor] = field(default_factory=list[Tensor])
    rewards: list[Tensor] = field(default_factory=list[Tensor])
    terminated: list[Tensor] = field(default_factory=list[Tensor])
    done: list[Tensor] = field(default_factory=list[Tensor])
    real: list[Tensor] = field(
        default_factory=list[Tensor]
    )  # False for steps that reset an environment


class Collector:
    """Collector of experience with shaped rewards from several environments at once."""

    def __init__(self, params: Mapping[str, Any], seed: int) -> None:
        self._env = gymnasium.make_vec(
            "CartPole-v1", num_envs=ENVS, vectorization_mode="vector_entry_point"
        )
        self._observation = torch.as_tensor(self._env.reset(seed=seed)[0])
        self._done = torch.zeros(ENVS, dtype=torch.bool)
        self._last_actions = torch.zeros(ENVS, dtype=torch.int64)
        self._costs = torch.tensor([params["reward.position"], params["reward.angle"]])
        self._effort = params["reward.effort"]

    @torch.no_grad()
    def collect(self, agent: Agent) -> Experience:
        experience = Experience()
        for _ in range(STEPS):
            actions = Categorical(logits=agent.actor(self._observation)).sample()
            experience.observations.append(self._observation)
            experience.actions.append(actions)
            experience.real.append(~self._done)
            observation, reward, terminated, truncated, _ = self._env.step(actions.numpy())
            self._observation, terminated = (
                torch.as_tensor(observation),
                torch.as_tensor(terminated),
            )
            self._done = terminated | torch.as_tensor(truncated)
            danger = (self._observation[:, [0, 2]].abs() / WORST) @ self._costs
            effort = self._effort * (actions != self._last_actions)
            experience.rewards.append(torch.as_tensor(reward) - danger - effort)
            experience.terminated.append(terminated)
            experience.done.append(self._done)
            self._last_actions = actions
        experience.observations.append(self._observation)
        return experience


def update(
    agent: Agent,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    params: Mapping[str, Any],
) -> None:
    """Raise the probability of actions with a better return than estimated, a little.

    Source:
        Schulman et al., "Proximal Policy Optimization Algorithms" (2017), equations 7 and 11.
    """
    observations, actions = torch.stack(experience.observations), torch.stack(experience.actions)
    with torch.no_grad():
        values = agent.critic(observations).squeeze(-1)
        old = Categorical(logits=agent.actor(observations[:-1])).log_prob(actions)
        advantages, advantage = torch.zeros(STEPS, ENVS), torch.zeros(ENVS)
        for t in reversed(range(STEPS)):
            future = params["agent.gamma"] * values[t + 1] * ~experience.terminated[t]
            later = advantage * params["agent.gamma"] * params["agent.gae_lambda"]
            advantage = experience.rewards[t] + future - values[t] + later * ~experience.done[t]
            advantages[t] = advantage
    real = torch.stack(experience.real)
    x, chosen, old, gain = observations[:-1][real], actions[real], old[real], advantages[real]
    returns = gain + values[:-1][real]
    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
    for _ in range(params["agent.epochs"]):
        for batch in torch.randperm(len(x)).split(BATCH):
            policy = Categorical(logits=agent.actor(x[batch]))
            ratio = (policy.log_prob(chosen[batch]) - old[batch]).exp()
            clipped = ratio.clamp(1 - params["agent.clip"], 1 + params["agent.clip"])
            actor_loss = -torch.min(ratio * gain[batch], clipped * gain[batch]).mean()
            critic_loss = (agent.critic(x[batch]).squeeze(-1) - returns[batch]).square().mean()
            bonus = params["agent.entropy"] * policy.entropy().mean()
            optimizer.zero_grad()
            (actor_loss + 0.5 * critic_loss - bonus).backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


@torch.no_grad()
def evaluate(agent: Agent, episodes: int, seed: int) -> dict[str, float]:
    """Return statistics of the plain reward of episodes with the most likely actions."""
    env = gymnasium.make_vec(
        "CartPole-v1", num_envs=episodes, vectorization_mode="vector_entry_point"
    )
    observation, over, total = env.reset(seed=seed)[0], np.zeros(episodes, bool), np.zeros(episodes)
    while not over.all():
        actions = agent.actor(torch.as_tensor(observation)).argmax(1).numpy()
        observation, reward, terminated, truncated, _ = env.step(actions)
        total += reward * ~over
        over |= terminated | truncated
    return {
        "mean_reward": total.mean().item(),
        "std_reward": total.std().item(),
        "min_reward": total.min().item(),
    }


def train(trial: trialbus.Trial) -> None:
    trial.set_defaults(defaults=DEFAULTS, budget=40)
    torch.set_num_threads(1)
    torch.manual_seed(trial.seed)
    agent = Agent(trial.params["agent.width"])
    optimizer = torch.optim.Adam(agent.parameters(), lr=trial.params["agent.lr"])
    checkpoint = trial.checkpoint.latest()  # of an interrupted attempt
    if checkpoint:
        saved = torch.load(checkpoint.path)
        agent.load_state_dict(saved["agent"])
        optimizer.load_state_dict(saved["optimizer"])
    collector = Collector(trial.params, trial.seed % 2**31)
    interval, episodes = trial.evaluation.interval or 2, trial.evaluation.episodes or 20
    # The callbacks of the study's config, `report_interval` for example; they raise TrialPruned.
    with CallbackFactory(trial.config.nested().get("callbacks")).build(trial) as callbacks:
        for evaluation in range(checkpoint.step + 1 if checkpoint else 0, trial.budget):
            for i in range(interval):
                update(agent, optimizer, collector.collect(agent), trial.params)
                callbacks.on_update(evaluation * interval + i, {})
            metrics = evaluate(agent, episodes, seed=evaluation)
            callbacks.report(evaluation, metrics)
            if evaluation % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
                with trial.checkpoint.save(evaluation, metrics["mean_reward"]) as path:
                    saved = {"agent": agent.state_dict(), "optimizer": optimizer.state_dict()}
                    torch.save(saved, path)


if __name__ == "__main__":
    with trialbus.attach() as trial:
        train(trial)
