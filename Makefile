# xcarp: `make` lists what can be made. Tests of the kernel side need root.

GO       ?= go
VERSION  := $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/xcarp/xcarp/internal/version.Version=$(VERSION)
# How the binaries are built: static, and without the paths of this machine.
GOBUILD  := CGO_ENABLED=0 GOOS=linux $(GO) build -trimpath -ldflags '$(LDFLAGS)'
COMMANDS := xcarp xcarp-lab

# What the kernel matrix boots and runs: see test/matrix/run.
MATRIX_KERNELS  ?= 6.1 7.3
MATRIX_PACKAGES ?= test/matrix/smoke internal/loader internal/ct:-TestEventsOf|TestEveryKind|TestOneApplyOfMany|TestSysctls

# Debian packages by use. A name before = is a program that proves the package.
NEED_C      := clang-19 llvm-19 libbpf-dev
NEED_LINT   := $(NEED_C) clang-format-19 shellcheck
NEED_TEST   := gcc=gcc libc6-dev iproute2 iputils-ping procps util-linux nftables conntrack ucarp tshark bpftool netbase \
	keepalived conntrackd vtysh=frr chromium-headless-shell
# What bench measures beside ours.
NEED_PEERS  := nftables iproute2 keepalived conntrackd vtysh=frr ucarp
NEED_MATRIX := qemu-system-x86_64=qemu-system-x86 kmod cpio xz-utils zstd

# Root tests measure time and load the kernel: one package at a time, never cached.
# XCARP_TEST_ROOT=1 turns a skip for want of root or a program into a failure.
ROOT_TEST := XCARP_TEST_ROOT=1 $(GO) test -count=1 -p 1

# Packages with concurrency worth the race detector although their tests need root.
RACE_ALSO ?= internal/carp/group internal/sync

BENCH ?= .
SEEDS ?= 20000
export MATRIX_KERNELS MATRIX_PACKAGES

# The version comes from LDFLAGS; a checkout of another user must build as well.
export GOFLAGS := $(GOFLAGS) -buildvcs=false
export GIT_CONFIG_COUNT := 1
export GIT_CONFIG_KEY_0 := safe.directory
export GIT_CONFIG_VALUE_0 := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help build build-all test test-unit test-root test-long lint generate generate-check \
	demo bench faults sim matrix soak packages deps clean root $(COMMANDS:%=bin/%)

help: ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: $(COMMANDS:%=bin/%) ## static binaries bin/xcarp and bin/xcarp-lab

$(COMMANDS:%=bin/%): bin/%:
	$(GOBUILD) -o $@ ./cmd/$*

build-all: build ## the same, and for arm64 in bin/arm64
	GOARCH=arm64 $(GOBUILD) -o bin/arm64/ ./cmd/xcarp ./cmd/xcarp-lab

test: root ## all that CI runs, as root: installs what is missing, lint, generated files, kernels, tests
	@scripts/phases deps build-all lint generate-check sim matrix test-unit test-root

test-unit: ## tests that build no networks, with the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 5m $$(scripts/pure $(RACE_ALSO) | grep -v internal/carp/sim) # no goroutine shares anything there, and it is long

test-root: root ## all tests as root; nothing may skip for want of root or a program
	$(ROOT_TEST) -timeout 20m ./...

test-long: root ## all tests and the ones that take minutes
	XCARP_TEST_LONG=1 $(ROOT_TEST) -v -timeout 60m ./...

lint: ## gofmt, vet, staticcheck, clang, clang-format, shellcheck, length of files
	@scripts/need $(NEED_LINT)
	@scripts/lint

generate: ## BPF objects and their Go types, with clang-19
	@scripts/need $(NEED_C)
	$(GO) generate ./...

generate-check: ## regenerate, and fail if that changes a committed file
	@scripts/need $(NEED_C)
	@scripts/generate-check

demo: root build ## cut the master off in a small network and watch the stream go on
	@scripts/need nftables iproute2
	bin/xcarp-lab demo

bench: root build ## Go benchmarks (BENCH=regexp picks some), ten crashes against the promise, ten beside every peer
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 ./...
	@scripts/need $(NEED_PEERS)
	bin/xcarp-lab demo --systems xcarp --runs 10
	bin/xcarp-lab demo --systems xcarp --runs 5 --no-sync
	bin/xcarp-lab bench failover --runs 10 --report bin/failover.html
	bin/xcarp-lab bench flap --for 20s

matrix: ## the dataplane's tests on stock kernels, oldest and newest, under emulation
	@scripts/need $(NEED_MATRIX)
	@test/matrix/run

faults: root ## the table of faults: each row's test, its result and its figures
	@scripts/need $(NEED_TEST)
	@XCARP_TEST_ROOT=1 $(GO) run ./test/faults

soak: root ## the table of faults with its long rows in full (an hour and a half)
	@scripts/need $(NEED_TEST)
	@XCARP_TEST_ROOT=1 XCARP_TEST_LONG=1 $(GO) run ./test/faults

sim: bin/xcarp-lab ## the election in SEEDS simulated worlds; SEED=n shows every event of that one
	bin/xcarp-lab sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

packages: ## not backed by anything yet
	@echo "make $@: nothing is behind this target yet" >&2; exit 1

deps: ## install what is missing to build and test (Debian packages, as root)
	@scripts/need $(NEED_LINT) $(NEED_TEST) $(NEED_MATRIX)

clean: ## remove bin/ and .cache/ (the kernels are fetched again)
	rm -rf bin .cache

root:
	@[ "$$(id -u)" = 0 ] || { echo "make $(MAKECMDGOALS): needs root (namespaces, XDP, conntrack)" >&2; exit 1; }
