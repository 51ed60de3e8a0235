"""What operators want of an app beside its weights: the automatic mode, its base, and what comes back unconfirmed.

It outlives janusd (state.py).  Automatic and Control read and write it; who changes it saves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Wishes:
    """Of one app. configured: what janusd.toml said when on was set.

    undo: weights that come back unless a change is confirmed; empty: there is none.
    """

    configured: bool = False
    on: bool = False
    base: dict[int, float] = field(default_factory=dict)
    undo: dict[int, float] = field(default_factory=dict)

    def configure(self, automatic: bool) -> None:
        """The operator's word by janusctl holds until another one is written into janusd.toml."""
        if self.configured != automatic:
            self.configured = self.on = automatic
