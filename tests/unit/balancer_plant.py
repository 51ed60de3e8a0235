"""What the automatic mode governs, as a model: threads with connections that come by weight and end by themselves.

Steps of 10 ms.  Arrivals are Poisson and divided by the weights in force.  Connections live as the churn model
says: "exponential"; "fixed", all alike; "mixed", nine short ones for one that lives ten times longer.  Each
asks for work at one rate while it lives, and the work costs each thread its own time.  Elephants ask for a
constant part of their thread and never end.  A thread that has more to do than time falls behind: each of its
connections waits for its answers and so ends later, its ring fills, and far behind it drops.
"""

import math
import random
from collections import deque
from dataclasses import dataclass, field

from janusd.autoweights import Sample

STEP_S = 0.01
DROPS_BELOW = 0.5  # of the work that is asked for is done
CHURN = {
    "exponential": ((1.0, 1.0),),
    "fixed": ((1.0, 1.0),),
    "mixed": ((0.9, 10 / 19), (0.1, 100 / 19)),  # (part of the arrivals, lifetime in mean lifetimes)
}


@dataclass
class PlantThread:
    cost: float  # busy seconds per second of a connection's life
    elephants: float = 0.0  # part of its time
    live: list[float] = field(default_factory=list)  # connections of each class
    cohorts: deque[tuple[float, float]] = field(
        default_factory=deque
    )  # "fixed": when, in lived_s, and how many
    lived_s: float = 0.0  # time as far as it could keep up
    pace: float = 1.0  # work done to work asked for
    busy_s: float = 0.0
    asked_s: float = 0.0
    served: float = 0.0
    drops: int = 0

    def connections(self) -> float:
        return sum(self.live) + sum(many for _, many in self.cohorts)


class Plant:
    def __init__(
        self,
        costs: list[float],
        *,
        seed: int,
        arrivals_per_s: float = 6000.0,
        lifetime_s: float = 0.5,
        churn: str = "exponential",
        load: float = 0.5,
        elephants: dict[int, float] | None = None,
    ) -> None:
        """load: part of the time that a thread of cost 1 is busy with its even part of the connections."""
        self.random = random.Random(seed)
        self.arrivals_per_s, self.lifetime_s, self.churn = arrivals_per_s, lifetime_s, churn
        unit = load * len(costs) / (arrivals_per_s * lifetime_s)
        self.threads = [
            PlantThread(cost * unit, (elephants or {}).get(tid, 0.0), [0.0] * len(CHURN[churn]))
            for tid, cost in enumerate(costs)
        ]
        self.now_s = 0.0
        self.weights = dict.fromkeys(range(len(costs)), 1.0)

    def run(self, seconds: float) -> list[float]:
        """Let time pass.  What each thread was asked for meanwhile, in parts of its time."""
        before = [t.asked_s for t in self.threads]
        for _ in range(round(seconds / STEP_S)):
            self._step()
        return [(t.asked_s - was) / seconds for t, was in zip(self.threads, before, strict=True)]

    def samples(self) -> dict[int, Sample]:
        return {
            tid: Sample(
                busy_s=t.busy_s,
                served=int(t.served),
                drops=t.drops,
                queue=1 - t.pace,
                connections=int(t.connections()),
            )
            for tid, t in enumerate(self.threads)
        }

    def _poisson(self, mean: float) -> float:
        return max(0.0, self.random.gauss(mean, math.sqrt(mean))) if mean > 0 else 0.0

    def _step(self) -> None:
        self.now_s += STEP_S
        total = sum(self.weights.values())
        for tid, thread in enumerate(self.threads):
            arrived = self._poisson(self.arrivals_per_s * STEP_S * self.weights[tid] / total)
            self._work(thread)
            if self.churn == "fixed":
                self._live_fixed(thread, arrived)
            else:
                self._live(thread, arrived)

    def _work(self, thread: PlantThread) -> None:
        asked = self._poisson(thread.connections()) * thread.cost * STEP_S + thread.elephants * STEP_S
        done = min(asked, STEP_S)
        thread.asked_s += asked
        thread.busy_s += done
        thread.pace = done / asked if asked > 0 else 1.0
        thread.drops += thread.pace < DROPS_BELOW

    def _live(self, thread: PlantThread, arrived: float) -> None:
        for number, (part, lifetime) in enumerate(CHURN[self.churn]):
            ended = self._poisson(thread.live[number] * STEP_S / (lifetime * self.lifetime_s) * thread.pace)
            ended = min(ended, thread.live[number])
            thread.live[number] += arrived * part - ended
            thread.served += ended

    def _live_fixed(self, thread: PlantThread, arrived: float) -> None:
        thread.lived_s += STEP_S * thread.pace
        thread.cohorts.append((thread.lived_s, arrived))
        while thread.cohorts[0][0] + self.lifetime_s <= thread.lived_s:
            thread.served += thread.cohorts.popleft()[1]
