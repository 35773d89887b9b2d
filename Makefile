# kumofs. `make help` lists the targets; `make deps` installs what they need on Debian 12 or newer.
#
# Parts link one way: base <- wire <- core <- io <- daemons, ctl. Each of the first four is a static
# archive of lib/NAME/*.c; a folder without sources is left out. Objects go to $(BUILD), so that two
# builds can stand side by side: make BUILD=/tmp/x.

VERSION := 0.1.0

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules

# --- what the user may set ------------------------------------------------------------------------

SANITIZE ?=
BUILD    ?= $(if $(SANITIZE),build-san,build)
CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
CLANG    ?= clang
CFLAGS   ?= -O2 -g
WERROR   ?= -Werror
V        ?=

DESTDIR    ?=
PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
DOCDIR     ?= $(PREFIX)/share/doc/kumofs
UNITDIR    ?= $(PREFIX)/lib/systemd/system
SYSCONFDIR ?= /etc

SEED        ?=
SEED_FROM   ?= 1
SEEDS       ?= 1000
SIMFLAGS    ?=
CHECK_SEEDS ?= 1000
MINUTES     ?= 1
FUZZ        ?=
FUZZFLAGS   ?=
FILES       ?=
CYCLES      ?= 300
CRASHFLAGS  ?=
BENCHFLAGS  ?=

# --- flags ----------------------------------------------------------------------------------------

Q    := $(if $(V),,@)
say   = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2);)
JOBS := $(shell nproc 2>/dev/null || echo 2)

cc_option = $(shell $(CC) -Werror $(1) -x c -c -o /dev/null /dev/null 2>/dev/null && echo $(1))

WARNINGS := -Wall -Wextra $(WERROR) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wpointer-arith -Wundef -Wformat=2 -Wwrite-strings
COMMON   := -std=gnu17 -D_GNU_SOURCE -DKUMO_VERSION='"$(VERSION)"' -Ilib \
            -ffile-prefix-map=$(CURDIR)=. -fno-omit-frame-pointer

# Fortify needs optimization, gets in the way of the sanitizers, and may be set by a distribution.
FORTIFY  := $(if $(SANITIZE)$(filter -O0 -Og,$(CFLAGS))$(findstring _FORTIFY_SOURCE,$(CPPFLAGS) $(CFLAGS)),,\
            -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
HARDEN   := -fstack-protector-strong -fPIE $(call cc_option,-fstack-clash-protection) $(FORTIFY)
SAN      := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all)

ALL_CFLAGS  = $(COMMON) $(WARNINGS) $(HARDEN) $(SAN) $(CPPFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now $(SAN) $(CFLAGS) $(LDFLAGS)

# Asked for once, and only by a rule that needs it: `make deps` and `make clean` do without.
pkg = $(or $(shell pkg-config $(1)),$(if $(findstring --libs,$(1)),$(error pkg-config $(1) failed: run `make deps`)))
lazy = $(eval $(1) := $(2))$($(1))

IO_PKGS      := libevent libevent_pthreads libsystemd tokyocabinet libuv liblz4 openssl inih
IO_CFLAGS     = $(call lazy,IO_CFLAGS,$(call pkg,--cflags $(IO_PKGS)))
# The static libraft.a, and by hand what it needs: raft.pc names neither libuv nor lz4.
IO_LIBS       = $(call lazy,IO_LIBS,-l:libraft.a $(call pkg,--libs $(IO_PKGS)) -pthread)
XXH_LIBS      = $(call lazy,XXH_LIBS,$(call pkg,--libs libxxhash))
CTL_LIBS      = $(call lazy,CTL_LIBS,$(call pkg,--libs readline jansson))
CMOCKA_LIBS   = $(call lazy,CMOCKA_LIBS,$(call pkg,--libs cmocka))
MSGPACK_PKG   = $(shell pkg-config --exists msgpack-c && echo msgpack-c || echo msgpack)
MSGPACK_LIBS  = $(call lazy,MSGPACK_LIBS,$(call pkg,--libs $(MSGPACK_PKG)))
MSGPACK_CFLAGS = $(call lazy,MSGPACK_CFLAGS,$(call pkg,--cflags $(MSGPACK_PKG)))

# --- what there is --------------------------------------------------------------------------------

LIBS    := base wire core io
DAEMONS := manager server gateway

objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

$(foreach l,$(LIBS),$(eval $(l)_SRC := $(sort $(wildcard lib/$(l)/*.c))))
$(foreach d,$(DAEMONS),$(eval $(d)_SRC := $(sort $(wildcard daemons/$(d)/*.c))))
CTL_SRC  := $(sort $(wildcard ctl/*.c))
LIN_SRC  := $(sort $(filter-out tests/lin/main.c,$(wildcard tests/lin/*.c)))
SIM_SRC  := $(sort $(wildcard tests/sim/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))

archives = $(foreach l,$(1),$(if $($(l)_SRC),$(BUILD)/lib$(l).a))
PURE     := $(call archives,core wire base)
EVERY    := $(call archives,io core wire base)
LIN      := $(if $(LIN_SRC),$(BUILD)/liblin.a)

PROGRAMS := $(foreach d,$(DAEMONS),$(if $($(d)_SRC),$(BUILD)/kumo-$(d))) $(if $(CTL_SRC),$(BUILD)/kumoctl)
SIM      := $(if $(SIM_SRC),$(BUILD)/kumo-sim)
UNITS    := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SRC))

.PHONY: all programs tests
all: programs
programs: $(EVERY) $(PROGRAMS)
tests: $(LIN) $(SIM) $(UNITS)

# --- rules ----------------------------------------------------------------------------------------

# Objects are made again when the flags change, archives and programs when the set of sources does.
.PHONY: FORCE
define stamp
@mkdir -p $(@D)
@printf '%s\n' '$(subst ','\'',$(1))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(1))' >$@
endef
$(BUILD)/flags: FORCE
	$(call stamp,$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS))
$(BUILD)/sources: FORCE
	$(call stamp,$(foreach l,$(LIBS),$($(l)_SRC)) $(foreach d,$(DAEMONS),$($(d)_SRC)) $(CTL_SRC) $(LIN_SRC) $(SIM_SRC) $(BENCH_STORE_SRC) $(STORE_SRC))

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/lib/io/%.o $(BUILD)/obj/daemons/%.o $(BUILD)/obj/ctl/%.o $(BUILD)/obj/tests/unit/test_io_%.o: \
    EXTRA_CFLAGS = $(IO_CFLAGS)
$(BUILD)/obj/tests/%.o: EXTRA_CFLAGS = -Itests
$(BUILD)/obj/tests/unit/test_io_%.o: EXTRA_CFLAGS = -Itests $(IO_CFLAGS)
$(BUILD)/obj/tests/unit/test_wire_%.o: EXTRA_CFLAGS = -Itests $(MSGPACK_CFLAGS)

# $(1): archive, $(2): its sources
define archive_rule
$(BUILD)/lib$(1).a: $(call objects,$(2)) $(BUILD)/sources
	$$(call say,AR,$$@)rm -f $$@; $$(AR) rcD $$@ $$(filter %.o,$$^)
endef
$(foreach l,$(LIBS),$(eval $(call archive_rule,$(l),$($(l)_SRC))))
$(eval $(call archive_rule,lin,$(LIN_SRC)))

# $(1): program, $(2): sources, $(3): archives, $(4): libraries
define program_rule
$(BUILD)/$(1): $(call objects,$(2)) $(3) $(BUILD)/sources
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) $(4)
endef
$(foreach d,$(DAEMONS),$(eval $(call program_rule,kumo-$(d),$($(d)_SRC),$(EVERY),$$(IO_LIBS) $$(XXH_LIBS))))
$(eval $(call program_rule,kumoctl,$(CTL_SRC),$(EVERY),$$(CTL_LIBS) $$(IO_LIBS) $$(XXH_LIBS)))
# Functions of the core that the simulator's planted bugs stand before (tests/sim/wraps.c).
SIM_WRAPS := lease_promised_until lease_holds lease_granted replica_serve replica_view replica_seal \
             replica_enter learner_acked stream_prepare session_record compaction_gone \
             catchup_source_next
$(eval $(call program_rule,kumo-sim,$(SIM_SRC),$(LIN) $(PURE),$(SIM_WRAPS:%=-Wl$$(comma)--wrap=%) $$(XXH_LIBS)))

# Unit tests. Only those named test_io_* see lib/io: the others prove that the rest works without it.
unit_archives = $(if $(filter test_io_%,$(1)),$(EVERY),$(if $(filter test_lin%,$(1)),$(LIN)) $(PURE))
unit_libs     = $(if $(filter test_io_%,$(1)),$$(IO_LIBS),$(if $(filter test_wire_%,$(1)),$$(MSGPACK_LIBS)))
unit_sources  = tests/unit/$(1).c $(if $(filter test_io_records,$(1)),$(RECORD_SRC))
RECORD_SRC   := ctl/record_file.c ctl/record_json.c ctl/record_keys.c
$(foreach t,$(notdir $(UNITS)),$(eval $(call program_rule,tests/$(t),$(call unit_sources,$(t)),$(call \
    unit_archives,$(t)),$(if $(filter test_io_records,$(t)),$$(CTL_LIBS)) $(call \
    unit_libs,$(t)) $$(XXH_LIBS) $$(CMOCKA_LIBS))))

# Tests of the store: the server's own code over a shim under its file calls (tests/store/shim.h).
comma         := ,
STORE_TESTS   := $(basename $(notdir $(wildcard tests/store/power.c tests/store/faults.c tests/store/flips.c)))
STORE_SRC     := $(filter-out $(STORE_TESTS:%=tests/store/%.c),$(sort $(wildcard tests/store/*.c))) \
                 $(filter-out daemons/server/main.c daemons/server/manager_link.c daemons/server/offline%,$(server_SRC))
STORE_WRAPPED := open openat close write pwrite ftruncate truncate fsync fdatasync rename renameat2 \
                 unlink unlinkat mkdir mmap malloc calloc realloc
STORE         := $(STORE_TESTS:%=$(BUILD)/tests/store/%)
tests: $(STORE)
$(BUILD)/obj/tests/store/%.o: EXTRA_CFLAGS = -Itests $(IO_CFLAGS)
$(foreach t,$(STORE_TESTS),$(eval $(call program_rule,tests/store/$(t),tests/store/$(t).c $(STORE_SRC),$(EVERY),\
    $(STORE_WRAPPED:%=-Wl$(comma)--wrap=%) $$(IO_LIBS) $$(XXH_LIBS))))

# Tests with real processes under faults: what they need beside Python.
NEMESIS_DIR  := tests/cluster/nemesis
NEMESIS      := $(addprefix $(BUILD)/tests/nemesis/,relay load judge)
tests: $(NEMESIS) $(BUILD)/tests/nemesis/fail_fsync.so $(BUILD)/tests/failover-load
$(BUILD)/tests/nemesis/%.so: $(NEMESIS_DIR)/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(filter-out -fPIE,$(COMMON) $(WARNINGS) $(CPPFLAGS) $(CFLAGS)) -fPIC -shared -o $@ $<
$(eval $(call program_rule,tests/nemesis/relay,$(addprefix $(NEMESIS_DIR)/,relay.c relay_session.c),$(call archives,base)))
$(eval $(call program_rule,tests/nemesis/load,$(addprefix $(NEMESIS_DIR)/,load.c mc.c notes.c),$(LIN) $(PURE),-pthread))
$(eval $(call program_rule,tests/nemesis/judge,$(addprefix $(NEMESIS_DIR)/,judge.c notes.c),$(LIN) $(PURE)))

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# --- the bench of the store: kumo-server but for its connections, which the bench defines ---------

BENCH_STORE_SRC := $(sort $(wildcard tests/bench/store_*.c))
BENCH_STORE     := $(if $(BENCH_STORE_SRC),$(BUILD)/tests/bench-store)
$(BUILD)/obj/tests/bench/store_%.o: EXTRA_CFLAGS = -Itests -Idaemons/server $(IO_CFLAGS)
$(eval $(call program_rule,tests/bench-store,$(BENCH_STORE_SRC) $(filter-out \
    $(addprefix daemons/server/,main.c clients.c manager_link.c),$(server_SRC)),$(EVERY),$$(IO_LIBS) $$(XXH_LIBS)))

# What TLS costs: CPU of connections with and without the cluster key.
BENCH_TLS := $(BUILD)/tests/bench-tls
$(BUILD)/obj/tests/bench/tls.o: EXTRA_CFLAGS = -Itests $(IO_CFLAGS)
$(eval $(call program_rule,tests/bench-tls,tests/bench/tls.c,$(EVERY),$$(IO_LIBS) $$(XXH_LIBS)))
.PHONY: bench-tls
bench-tls: $(BENCH_TLS)
	@$(BENCH_TLS) $(BENCHFLAGS)

.PHONY: bench-store
bench-store: $(BENCH_STORE)
	$(Q)$(BENCH_STORE) $(BENCHFLAGS)

# --- the bench of failures: real processes, driven by tests/bench/failover ------------------------

$(eval $(call program_rule,tests/failover-load,tests/bench/failover_load.c $(NEMESIS_DIR)/mc.c,$(LIN) $(PURE),-pthread))

.PHONY: bench-failover
bench-failover: programs tests $(BUILD)/tests/failover-load
	$(Q)./tests/bench/failover $(BENCHFLAGS)

# --- fuzzers: base, wire and core once more, by clang with libFuzzer ------------------------------

FUZZERS     := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
FUZZ_CFLAGS  = $(COMMON) -Wall -Wextra -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_OBJ    := $(patsubst %.c,$(BUILD)/fuzz/obj/%.o,$(base_SRC) $(wire_SRC) $(core_SRC))
FUZZ_NAMES   = $(patsubst fuzz_%,%,$(notdir $(FUZZERS)))

$(BUILD)/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CLANG,$<)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

$(BUILD)/fuzz/libfuzzed.a: $(FUZZ_OBJ) $(BUILD)/sources
	$(call say,AR,$@)rm -f $@; $(AR) rcD $@ $(filter %.o,$^)

$(FUZZERS): $(BUILD)/fuzz/%: $(BUILD)/fuzz/obj/tests/fuzz/%.o $(BUILD)/fuzz/libfuzzed.a
	$(call say,LD,$@)$(CLANG) $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $^ $(XXH_LIBS)

# Makes the corpora of segment, checkpoint and manifest anew, after a change of their formats:
# make_corpus tests/fuzz/corpus
$(BUILD)/fuzz/make_corpus: $(BUILD)/fuzz/obj/tests/fuzz/make_corpus.o $(BUILD)/fuzz/libfuzzed.a
	$(call say,LD,$@)$(CLANG) $(FUZZ_CFLAGS) -o $@ $^ $(XXH_LIBS)

.PHONY: fuzz fuzzers
fuzzers: $(FUZZERS) $(BUILD)/fuzz/make_corpus
fuzz: $(if $(FUZZ),$(BUILD)/fuzz/fuzz_$(FUZZ),$(FUZZERS))
	@failed=0; for name in $(or $(FUZZ),$(FUZZ_NAMES)); do \
	    own=$(BUILD)/fuzz/corpus/$$name; log=$(BUILD)/fuzz/$$name.log; seeds=; \
	    if [ -d tests/fuzz/corpus/$$name ]; then seeds=tests/fuzz/corpus/$$name; fi; \
	    mkdir -p $$own; \
	    if $(BUILD)/fuzz/fuzz_$$name -max_total_time=$$(($(MINUTES) * 60)) -print_final_stats=1 \
	        -artifact_prefix=$(BUILD)/fuzz/$$name- $(FUZZFLAGS) $$own $$seeds >$$log 2>&1; then \
	        echo "fuzz $$name: ok, $$(sed -n 's/^stat::number_of_executed_units: *//p' $$log) runs"; \
	    else \
	        failed=1; tail -n 40 $$log; echo "fuzz $$name: FAILED, see $$log"; \
	    fi; \
	done; exit $$failed

# --- tests ----------------------------------------------------------------------------------------

.PHONY: deps check unit sim tidy format up down
deps:
	@./tests/deps build test

export KUMO_BUILD := $(abspath $(BUILD))
export SIMFLAGS

SCRIPTS = $(shell find tests/cluster tests/clients tests/model -maxdepth 1 -name 'test_*' -type f -executable 2>/dev/null | sort)

# In two steps, since what is installed decides how the rest is built.
check:
	@./tests/deps build test
	@$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS)) all tests
	@./tests/run -j $(JOBS) $(UNITS) $(STORE) $(if $(SIM),--sim $(SIM) 1 $(CHECK_SEEDS)) ./tests/tidy/check -- $(SCRIPTS)

unit: $(UNITS)
	@./tests/run -j $(JOBS) $(UNITS)

sim: $(SIM)
	$(if $(SIM),,$(error there is no simulator: tests/sim has no sources))
	$(Q)$(if $(SEED),$(SIM) --seed $(SEED) $(SIMFLAGS),./tests/run -j $(JOBS) --sim $(SIM) $(SEED_FROM) $(SEEDS))

# Seeds that nobody ran before, on all cores, for MINUTES; ends with failure if one failed.
.PHONY: sim-nightly
sim-nightly: $(SIM)
	$(Q)./tests/sim/nightly $(SIM) $(MINUTES) $(JOBS) $(SIMFLAGS)

tidy: $(EVERY)
	@./tests/tidy/check

format:
	@./tests/tidy/format $(FILES)

.PHONY: nemesis
nemesis: programs tests
	@MINUTES=$(MINUTES) $(if $(SEED),SEED=$(SEED)) ./tests/cluster/test_nemesis

.PHONY: crash
crash: programs
	@./tests/crash/crash --cycles $(CYCLES) $(if $(SEED),--seed $(SEED)) $(CRASHFLAGS)

.PHONY: model
model:
	@./tests/model/run

up: deps
	@$(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS)) all
	@./tests/up

down:
	@./tests/down

# --- install --------------------------------------------------------------------------------------

.PHONY: install
install: programs
	$(Q)for program in $(filter %/kumoctl,$(PROGRAMS)); do \
	    install -D -m 755 $$program $(DESTDIR)$(BINDIR)/$${program##*/} || exit 1; done
	$(Q)for program in $(filter-out %/kumoctl,$(PROGRAMS)); do \
	    install -D -m 755 $$program $(DESTDIR)$(SBINDIR)/$${program##*/} || exit 1; done
	$(Q)for unit in $(wildcard units/*.*); do \
	    install -d $(DESTDIR)$(UNITDIR) && \
	    sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@BINDIR@|$(BINDIR)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' \
	        $$unit >$(DESTDIR)$(UNITDIR)/$${unit##*/} && \
	    chmod 644 $(DESTDIR)$(UNITDIR)/$${unit##*/} || exit 1; done
	$(Q)for conf in $(wildcard conf/*.conf); do \
	    [ -e $(DESTDIR)$(SYSCONFDIR)/kumofs/$${conf##*/} ] || \
	    install -D -m 644 $$conf $(DESTDIR)$(SYSCONFDIR)/kumofs/$${conf##*/} || exit 1; done
	$(Q)for doc in $(wildcard README.md CHANGELOG.md LICENSE docs/*.md); do \
	    install -D -m 644 $$doc $(DESTDIR)$(DOCDIR)/$${doc##*/} || exit 1; done

.PHONY: clean help
clean:
	rm -rf $(BUILD)

help:
	@echo 'make                        build the programs into $$(BUILD), by default "build"'
	@echo 'make deps                   install what the build and the tests need (root or sudo)'
	@echo 'make check                  deps, build, every test; ends with "N passed, N failed"'
	@echo '     CHECK_SEEDS=1000       how many seeds the simulator runs in it'
	@echo 'make unit                   the unit tests alone'
	@echo 'make sim SEED=n             replay one seed of the simulator'
	@echo 'make sim SEED_FROM=n SEEDS=k   run k seeds, on all cores; SIMFLAGS="..." is passed on'
	@echo 'make sim-nightly MINUTES=n  other seeds on all cores for n minutes; tells all that fail'
	@echo 'make fuzz MINUTES=n [FUZZ=name]   run each fuzzer, or one, for n minutes'
	@echo 'make crash CYCLES=n [SEED=n] [CRASHFLAGS="--sync os"]   kill -9 under load, n times, against a model'
	@echo 'make nemesis MINUTES=n [SEED=n]   real processes, faults drawn from a seed, every history judged'
	@echo 'make model                  the model of replication, all configurations (minutes to an hour; spin)'
	@echo 'make bench-store [BENCHFLAGS=--quick]   figures of the store; prints, never judges'
	@echo 'make bench-tls [BENCHFLAGS=ROUNDS]   what the cluster key costs'
	@echo 'make bench-failover [BENCHFLAGS=--quick]   how long clients wait when something fails'
	@echo 'make tidy                   includes, symbols, format, sizes, words; make format [FILES=...] mends the format'
	@echo 'make up, make down          start and stop a cluster on this machine'
	@echo 'make install DESTDIR= PREFIX=/usr/local'
	@echo 'make clean'
	@echo 'SANITIZE=address,undefined  with any of them: a build in build-san'
	@echo 'V=1 shows the commands; CFLAGS, LDFLAGS, CC, WERROR= as usual'
