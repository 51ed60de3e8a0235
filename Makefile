# make demo: install, build, run the main job.  make test: what CI runs.  make check: the loop while working.
SHELL      := /bin/bash
PYTHON     ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV       := .venv
PY         := $(VENV)/bin/python
CC         := gcc
BUILD      ?= build/release
BUILD_CHECK ?= build/check
SEEDS      ?= 200
TIME       ?= 30
ifeq ($(MAKELEVEL),0) # a make within this one shares its jobs
MAKEFLAGS  += -j$(shell nproc)
endif

WARN       := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
BASE       := -std=c11 -D_GNU_SOURCE -fPIC -Isdk -I. $(WARN) -MMD -MP
CFLAGS     ?= -O2 -g -DNDEBUG
CFLAGS_CHECK ?= -O1 -g -fno-omit-frame-pointer -fsanitize=undefined -fno-sanitize-recover=all
SMALL      := -DJANUS_SLAB_BLOCK_SHIFT=3
DPDK_CFLAGS = $(shell pkg-config --cflags libdpdk)

SDK_SRC    := $(wildcard sdk/wire/*.c sdk/shm/*.c sdk/csb/*.c sdk/tcp/*.c sdk/coro/*.c sdk/app/*.c)
MACHINE    := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
CORO_ASM   := $(wildcard sdk/coro/switch_$(MACHINE).S)
GLUE_PURE  := $(wildcard $(addprefix dpdk_glue/,$(addsuffix .c,classify cut fragments join ledger txcheck services routes reset rows refuse stats)))
GLUE_SRC   := $(filter-out dpdk_glue/_%,$(wildcard dpdk_glue/*.c))
NATIVE     ?= $(patsubst tests/native/%.cdef,%,$(wildcard tests/native/*.cdef))

# The release build joins the files of each library into one object, across which the compiler inlines.  Not the coroutines,
# which switch stacks under the compiler's feet.
LTO        ?= -flto=auto -fno-semantic-interposition
JOIN       = $(CC) -fPIC $(CFLAGS) $(LTO) -r -nostdlib $(if $(LTO),-flinker-output=nolto-rel)
CORO_OBJ   := $(patsubst %.c,$(BUILD)/%.o,$(filter sdk/coro/%,$(SDK_SRC))) $(CORO_ASM:%.S=$(BUILD)/%.o)
JOIN_OBJ   := $(patsubst %.c,$(BUILD)/%.o,$(filter-out sdk/coro/%,$(SDK_SRC)))
GLUE_OBJ   := $(GLUE_SRC:%.c=$(BUILD)/%.o) $(filter $(addprefix $(BUILD)/sdk/,wire/% csb/% shm/%),$(JOIN_OBJ))
CHECK_OBJ  := $(SDK_SRC:%.c=$(BUILD_CHECK)/%.o) $(CORO_ASM:%.S=$(BUILD_CHECK)/%.o) $(GLUE_PURE:%.c=$(BUILD_CHECK)/%.o)

LIBS       := $(BUILD)/libjanus.a
ifneq ($(JANUS_WITHOUT_DPDK),1)
LIBS       += $(BUILD)/libjanus_glue.a
endif

.PHONY: all libs libs-after-deps build native headers packetdrill check test asan sim soak fuzz bench bench-csb paper demo format clean deps deps-of-tests install-sdk

all: build

# --- C ---
libs: $(LIBS)

$(BUILD)/libjanus.a: $(BUILD)/joined_sdk.o $(CORO_OBJ)
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/joined_sdk.o: $(JOIN_OBJ)
	@echo "  join $@" && $(JOIN) $^ -o $@

$(BUILD)/libjanus_glue.a: $(BUILD)/joined_glue.o
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/joined_glue.o: $(GLUE_OBJ)
	@echo "  join $@" && $(JOIN) $^ -o $@

$(BUILD_CHECK)/libjanus.a: $(CHECK_OBJ)
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/dpdk_glue/%.o: dpdk_glue/%.c
	@mkdir -p $(@D) && echo "  cc $<" && $(CC) $(BASE) $(CFLAGS) $(LTO) $(DPDK_CFLAGS) -c $< -o $@

$(CORO_OBJ): LTO :=

$(BUILD)/%.o: %.c
	@mkdir -p $(@D) && echo "  cc $<" && $(CC) $(BASE) $(CFLAGS) $(LTO) -c $< -o $@

$(BUILD_CHECK)/%.o: %.c | build/.deps
	@mkdir -p $(@D) && echo "  cc $< (check)" && $(CC) $(BASE) $(CFLAGS_CHECK) $(SMALL) -c $< -o $@

$(BUILD)/%.o: %.S
	@mkdir -p $(@D) && echo "  as $<" && $(CC) -Isdk -g -MMD -MP -c $< -o $@

$(BUILD_CHECK)/%.o: %.S | build/.deps
	@mkdir -p $(@D) && echo "  as $< (check)" && $(CC) -Isdk -g -MMD -MP -c $< -o $@

-include $(JOIN_OBJ:.o=.d) $(CORO_OBJ:.o=.d) $(GLUE_OBJ:.o=.d) $(CHECK_OBJ:.o=.d)

# What is installed shows janus_* alone: one object for the archive, a version script for the shared one.
VERSION    := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
PREFIX     ?= /usr/local

$(BUILD)/sdk-install/libjanus.a: $(BUILD)/joined_sdk.o $(CORO_OBJ)
	@mkdir -p $(@D) && ld -r -o $(@D)/janus.o $^ && objcopy -w --keep-global-symbol='janus_*' $(@D)/janus.o
	@rm -f $@ && ar rcs $@ $(@D)/janus.o

$(BUILD)/sdk-install/libjanus.so: $(BUILD)/joined_sdk.o $(CORO_OBJ)
	@mkdir -p $(@D) && echo '{ global: janus_*; local: *; };' > $(@D)/janus.map
	@$(CC) -shared -o $@ $^ -pthread -Wl,-z,defs -Wl,-soname,libjanus.so.$(firstword $(subst ., ,$(VERSION))) \
		-Wl,--version-script=$(@D)/janus.map

install-sdk: $(BUILD)/sdk-install/libjanus.a $(BUILD)/sdk-install/libjanus.so
	@tools/install-sdk $(BUILD) $(PREFIX) $(VERSION)

# --- what Python needs ---
deps: build/.deps
build/.deps: tools/install-packages
	@mkdir -p build && tools/install-packages && touch $@

deps-of-tests: | deps
	@tools/install-packages tests

$(VENV)/.ready: pyproject.toml | deps
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "  pip: the project's Python packages" && tools/install-python $(PY) && touch $@

# `libs` itself installs nothing: pip asks for it.
libs-after-deps: | deps
	@$(MAKE) --no-print-directory libs

build: $(VENV)/.ready libs-after-deps
	@MAKEFLAGS= JANUS_WITH_DPDK=1 $(PY) setup.py -q build_ext --inplace -j 2

native: $(NATIVE:%=$(BUILD_CHECK)/native/%.stamp)

$(BUILD_CHECK)/native/%.stamp: tests/native/%.cdef tests/native/%.c $(wildcard tests/native/*.h) $(BUILD_CHECK)/libjanus.a tests/native/build.py | $(VENV)/.ready
	@echo "  cffi tests/native/$*" && $(PY) tests/native/build.py $* $(BUILD_CHECK) "$(CFLAGS_CHECK) $(SMALL)" && touch $@

$(BUILD_CHECK)/sdk.stamp: $(wildcard sdk/janus_tcp/*) $(BUILD_CHECK)/libjanus.a tests/native/build_sdk.py | $(VENV)/.ready
	@echo "  cffi sdk/janus_tcp (check)" && $(PY) tests/native/build_sdk.py $(BUILD_CHECK) "$(CFLAGS_CHECK) $(SMALL)" && touch $@

# --- each header compiles alone, once until it or what it includes changes ---
HEADERS    := $(wildcard sdk/*/*.h dpdk_glue/*.h)
ALONE      = $(CC) -std=c11 -D_GNU_SOURCE -fsyntax-only -Wall -Wextra -Werror -Wno-unused-function -Isdk -I. -MD -MP

headers: $(HEADERS:%=$(BUILD_CHECK)/alone/%.stamp)

$(BUILD_CHECK)/alone/dpdk_glue/%.stamp: ALONE += $(DPDK_CFLAGS)
$(BUILD_CHECK)/alone/sdk/janus_tcp/%.stamp: ALONE += -I$(shell $(PYTHON) -c "print(__import__('sysconfig').get_path('include'))")

$(BUILD_CHECK)/alone/%.stamp: % | build/.deps
	@mkdir -p $(@D) && echo '#include "$<"' | $(ALONE) -MT $@ -MF $(@:.stamp=.d) -x c - && touch $@

-include $(HEADERS:%=$(BUILD_CHECK)/alone/%.d)

# --- the stack as packetdrill loads it ---
PACKETDRILL_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/packetdrill/*.c))

packetdrill: libs-after-deps
	@$(MAKE) --no-print-directory $(BUILD)/libjanus_packetdrill.so

$(BUILD)/libjanus_packetdrill.so: $(PACKETDRILL_OBJ) $(BUILD)/libjanus.a tests/packetdrill/exports.map
	@echo "  ld $@" && $(CC) -shared -Wl,--version-script=tests/packetdrill/exports.map -Wl,-z,defs -o $@ \
		$(PACKETDRILL_OBJ) $(BUILD)/libjanus.a -pthread

-include $(PACKETDRILL_OBJ:.o=.d)

# --- tests ---
check: build native packetdrill headers
	@tools/check $(SEEDS) brief

test: build native packetdrill headers deps-of-tests
	@tools/run-tests

asan:
	@$(MAKE) --no-print-directory native build/asan/sdk.stamp BUILD_CHECK=build/asan \
		CFLAGS_CHECK="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
	@JANUS_NATIVE=build/asan/native PYTHONPATH=build/asan/sdk tools/with-asan $(PY) -m pytest -q -n auto -p no:cacheprovider \
		-m "not slow" tests/unit tests/packet_scripts tests/sim

sim: build native
	@$(PY) -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

soak: build native
	@$(PY) -m tests.sim.soak --seeds $(if $(filter 200,$(SEEDS)),1000000,$(SEEDS))

fuzz: $(VENV)/.ready
	@$(PY) -m tests.fuzz --time $(TIME)

bench: build
	@$(PY) -m bench all

$(VENV)/.bench: $(VENV)/.ready
	@echo "  pip: what draws" && tools/install-python $(PY) bench && touch $@

paper: build $(VENV)/.bench
	@$(PY) -m bench.paper $(if $(QUICK),--quick)

bench-csb: build
	@$(PY) -m bench csb-table

demo: build
	@tools/demo

format: $(VENV)/.ready
	@clang-format -i $$(git ls-files '*.c' '*.h') && $(VENV)/bin/ruff format -q && $(VENV)/bin/ruff check -q --fix

clean:
	@rm -rf build dist *.egg-info sdk/*.egg-info $(VENV) && find . -name '*.so' -path '*/_*' -delete
