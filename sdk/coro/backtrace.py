"""Backtraces of waiting coroutines, for gdb: source this file, then `coro-bt SCHED CORO OWNER`.

SCHED is a struct coro_sched *, CORO a struct coro *, OWNER what the coroutine was started with.  The coroutine's
stack is written where it belongs and the registers are set as its wait will return; after the backtrace
everything is as before.  Needs a live process (a core file cannot be written to) that stopped outside of coroutines
or in one; with separate stacks nothing is written but registers."""

import struct

import gdb  # type: ignore[import-not-found]

# As switch_*.S pushes them: word of the image by register, the word with the address to go on at, words in all.
LAYOUTS = {
    "i386:x86-64": (
        {"r15": 1, "r14": 2, "r13": 3, "r12": 4, "rbp": 5, "rbx": 6, "rip": 7},
        "rsp",
        8,
    ),
    "aarch64": (
        {"x30": 1, "pc": 1, **{f"x{19 + i}": 2 + i for i in range(11)}},
        "sp",
        22,
    ),
}
UNIT = 32


def words_of(address: int, count: int) -> list[int]:
    """So many words of the process."""
    return list(struct.unpack(f"<{count}Q", gdb.selected_inferior().read_memory(address, count * 8)))


def template_words(sched: gdb.Value, coro: gdb.Value, owner: int) -> list[int]:
    """The template's image turned to the owner, patched if need be."""
    template = sched["templates"]["at"][int(coro["words"])]
    room = int(template["image"].type.sizeof) // 8
    words = words_of(int(template["image"].address), room)
    moves, delta = int(template["moves"]), owner - int(template["owner"])
    words = [(w + delta) % 2**64 if moves >> i & 1 else w for i, w in enumerate(words)]
    if state_of(coro) == "CORO_PATCHED":
        patch = int(sched["images"]["base"]) + int(coro["image"]) * UNIT
        (differs,) = words_of(patch, 1)
        for number, i in enumerate([i for i in range(room) if differs >> i & 1]):
            (words[i],) = words_of(patch + 8 + number * 8, 1)
    return words[room - int(template["words"]) :]


def state_of(coro: gdb.Value) -> str:
    """The name of enum coro_state's value."""
    names = {field.enumval: field.name for field in gdb.lookup_type("enum coro_state").fields()}
    return str(names[int(coro["state"])])


def image_of(sched: gdb.Value, coro: gdb.Value, owner: int) -> tuple[int, list[int]]:
    """Where the stack pointer was, and the words from there to the top."""
    state, top = state_of(coro), int(sched["run_stack"]["top"])
    if state == "CORO_NEW":
        raise gdb.GdbError("this coroutine has not started, or has ended")
    if state == "CORO_SEPARATE":
        stack = sched["stacks"]["at"][int(coro["image"])]
        sp = int(stack["sp"])
        return sp, words_of(sp, (int(stack["top"]) - sp) // 8)
    if state == "CORO_KEPT":
        count = int(coro["words"])
        slot = int(sched["images"]["base"]) + int(coro["image"]) * UNIT
        words = words_of(slot + (count + 3) // 4 * UNIT - count * 8, count)
    else:
        words = template_words(sched, coro, owner)
    return top - len(words) * 8, words


class CoroBacktrace(gdb.Command):  # type: ignore[misc]
    """coro-bt SCHED CORO OWNER: the backtrace of a coroutine that waits."""

    def __init__(self) -> None:
        super().__init__("coro-bt", gdb.COMMAND_STACK, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """What gdb calls."""
        given = gdb.string_to_argv(argument)
        if len(given) != 3:
            raise gdb.GdbError("usage: coro-bt SCHED CORO OWNER")
        sched, coro = (gdb.parse_and_eval(word).dereference() for word in given[:2])
        owner = int(gdb.parse_and_eval(given[2]))
        gdb.execute("select-frame 0")
        registers, stack_pointer, pushed = LAYOUTS[gdb.selected_frame().architecture().name()]
        sp, words = image_of(sched, coro, owner)
        inferior = gdb.selected_inferior()
        before = bytes(inferior.read_memory(sp, len(words) * 8))
        values = {name: int(gdb.parse_and_eval(f"(long)${name}")) for name in (*registers, stack_pointer)}
        try:
            inferior.write_memory(sp, struct.pack(f"<{len(words)}Q", *words))
            gdb.execute(f"set ${stack_pointer} = {sp + pushed * 8}")
            for name, word in registers.items():
                gdb.execute(f"set ${name} = {words[word]}")
            gdb.execute("backtrace")
        finally:
            inferior.write_memory(sp, before)
            for name, value in values.items():
                gdb.execute(f"set ${name} = {value}")


CoroBacktrace()
