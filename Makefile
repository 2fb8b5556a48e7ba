# What there is to do with joist's source. `make demo` and `make test` are the two commands of the README; both need root
# on Debian 12, and say so where they need more.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOLANGCI_LINT = v2.15.0

BUILD = CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
# Tests of real clients and machines stand apart: they need root and time, and are run anew each time.
UNIT = $(shell go list ./... | grep -vE '^joist/tests/(interop|boot|bench|sim|artifacts/try)')

export JOIST_TEST_KERNEL ?= $(CURDIR)/build/test-kernel/vmlinuz

.PHONY: all build artifacts test-artifacts deps deps-demo test test-unit test-interop test-boot test-long test-kubernetes test-kubernetes-ci vet lint fmt fuzz soak bench demo demo-etcd demo-down lock clean

all: build

build: ## static programs in bin/
	$(BUILD) -o bin/ ./cmd/...

artifacts: ## Kubernetes, etcd, containerd and images from source, in build/artifacts; minutes, the first time
	go run ./tests/artifacts/build

test-artifacts: deps artifacts ## containers, pod networks and a control plane from what was built; needs root
	go test -count=1 -v ./tests/artifacts/try

deps: ## Debian packages that tests need, only those missing
	@tests/demo/packages.sh test

deps-demo:
	@tests/demo/packages.sh demo

## Everything that must hold. What is quick comes first, so that a failure shows soon.
test: deps build vet test-unit test-interop test-boot

vet:
	go vet ./...

test-unit: ## rules of the source, units and scripts with the race detector, simulations without
	go test ./tests/arch
	go test -race -timeout 10m $(UNIT)
	go test -timeout 10m ./tests/sim

test-interop: ## real clients and servers, in network namespaces
	go test -race -count=1 -p 1 -timeout 10m ./tests/interop/...

# Kubernetes has targets of its own: it has to be compiled, and takes its time.
KUBERNETES = go test -count=1 -v -timeout 4h ./tests/boot/kubernetes

test-kubernetes: deps artifacts $(JOIST_TEST_KERNEL) ## Kubernetes on virtual machines: everything in docs/kubernetes-tests.md, within two hours
	$(KUBERNETES)
	$(BOOT) -run '^(TestContinuousIntegration|TestFrozenPackages)$$' ./tests/boot/etcd ./tests/boot/stages

test-kubernetes-ci: deps artifacts ## of these, one cluster from power-on, and what must hold of it
	$(KUBERNETES) -run 'TestCluster$$'

# Two packages at a time: the longest waits for machines and clocks as often as for the processor. LONG is what would make
# `make test` longer than twenty minutes.
LONG = ^(TestContinuousIntegration|TestCrashes|TestHungBoot|TestDisk|TestScout|TestReboots|TestFrozenPackages)$$
BOOT = go test -count=1 -p 2 -timeout 40m

test-boot: $(JOIST_TEST_KERNEL) ## virtual machines with real firmware, and the first path on them
	$(BOOT) -skip '$(LONG)' $(shell go list ./tests/boot/... | grep -vE '/(kubernetes|stages)$$')

test-long: deps $(JOIST_TEST_KERNEL) ## more of virtual machines: runs for CI, kills and power cuts, boots that hang, data disks, steps in scout, steps that reboot, boot sets from frozen packages
	$(BOOT) -run '$(LONG)' ./tests/boot/etcd ./tests/boot/stages

$(CURDIR)/build/test-kernel/vmlinuz:
	tests/demo/kernel.sh $(@D)

lint: bin/golangci-lint-$(GOLANGCI_LINT)
	bin/golangci-lint-$(GOLANGCI_LINT) run --timeout 15m ./...

# Built by our own Go, outside go.mod: its many requirements are none of joist's.
bin/golangci-lint-$(GOLANGCI_LINT):
	mkdir -p bin/.lint
	GOFLAGS= GOBIN=$(CURDIR)/bin/.lint go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	mv bin/.lint/golangci-lint $@

fmt: build ## the canonical form of Go and HCL
	gofmt -w $$(git ls-files '*.go')
	bin/joist fmt content

SEEDS ?= 100000
NODES ?= 12
soak: ## many more simulated clusters, and larger ones: SEEDS of them, from FIRST on, of up to NODES nodes
	go test -timeout 24h ./tests/sim -run 'TestChaos$$' -sim.seeds $(SEEDS) -sim.first $(or $(FIRST),1) -sim.nodes $(NODES)

# Making an interesting input shorter may take a minute for each, in which nothing new is tried: it gets 200 tries.
FUZZTIME ?= 10s
FUZZ ?= .
fuzz: ## every fuzz test for FUZZTIME, or those in folders below FUZZ
	@set -e; git grep -l --untracked '^func Fuzz' -- $(patsubst %,'%/*_test.go',$(FUZZ)) | xargs -n 1 dirname | sort -u | while read -r dir; do \
	  go test -list '^Fuzz' "./$$dir" | grep '^Fuzz' | while read -r name; do \
	    echo "$$dir $$name"; go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 200x "./$$dir"; \
	  done; \
	done

BENCH ?=
bench: ## JSON lines of what is promised about speed; BENCH="-only dns" for a part
	@mkdir -p build/bench
	@CGO_ENABLED=0 go build -o build/bench/bench ./tests/bench
	@build/bench/bench -out build/bench $(BENCH)

demo: deps-demo build ## one control-plane machine (CONTROL=3 for three) and two workers become a Kubernetes cluster
	@tests/demo/demo.sh up kubernetes

demo-etcd: deps-demo build ## three machines become an etcd cluster
	@tests/demo/demo.sh up etcd

demo-down: build
	@tests/demo/demo.sh down

lock: ## new versions of the packages in boot sets
	go run services/boot/bootset/renew.go

clean: ## programs and results of builds; the demo's data go by demo-down
	rm -rf bin build
