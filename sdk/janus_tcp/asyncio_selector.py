"""Where an asyncio loop waits: here it polls Janus, in turn with the kernel's descriptors."""

import selectors
from typing import Any

from janus_tcp.asyncio_types import Poller

KERNEL_TURNS = 16  # while Janus is busy and only the loop's own wake-up descriptor is registered
OWN_DESCRIPTORS = 1

Events = list[tuple[selectors.SelectorKey, int]]


class JanusSelector(selectors.EpollSelector):
    """select() is one batch of the stack: packets in, callbacks, packets out; then the kernel's events."""

    def __init__(self) -> None:
        super().__init__()
        self.stacks: list[Poller] = []
        self._turns = 0

    def add_stack(self, stack: Poller) -> None:
        """Poll this one too."""
        self.stacks.append(stack)
        if stack.fileno() >= 0:
            self._epoll().register(stack.fileno(), selectors.select.EPOLLIN)  # type: ignore[attr-defined]

    def remove_stack(self, stack: Poller) -> None:
        """No more."""
        self.stacks.remove(stack)
        if stack.fileno() >= 0:
            self._epoll().unregister(stack.fileno())

    def _epoll(self) -> Any:
        """The epoll object itself: the doorbell is no key, it only ends a sleep."""
        return self._selector  # type: ignore[attr-defined]

    def select(self, timeout: float | None = None) -> Events:
        """Call the callbacks of whatever has arrived on Janus; return what is ready in the kernel."""
        if not self.stacks:
            return super().select(timeout)
        if self._poll() or (timeout is not None and timeout <= 0):
            self._turns += 1
            if self._turns % KERNEL_TURNS == 0 or len(self.get_map()) > OWN_DESCRIPTORS:
                return super().select(0)
            return []
        seconds = min(stack.arm(timeout) for stack in self.stacks)
        try:
            events = self._sleep(seconds)
        finally:
            for stack in self.stacks:
                stack.disarm()
        self._poll()
        return events

    def _poll(self) -> int:
        work = 0
        for stack in self.stacks:
            work += stack.poll()
        return work

    def _sleep(self, seconds: float) -> Events:
        return super().select(seconds)


__all__ = ["Events", "JanusSelector"]
