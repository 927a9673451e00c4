# make help lists what there is. demo, test and bench install what they need
# from Debian's packages (scripts/install) and can be run again.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -buildid= -X main.version=$(VERSION)
export CGO_ENABLED := 0
# vsnode goes over the wire to each host. Without inlining in packages that wait for the kernel most
# of the time, or are not on its way, it is 5 % smaller and no slower. So it is with functions that
# begin anywhere, not at multiples of 32 bytes: 200 KB.
DENSE   := -funcalign=1
SMALL   := $(foreach p,$(addprefix github.com/,vsfleet cilium vishvananda google mdlayer) golang.org/x debug net archive encoding reflect crypto compress regexp vendor math go/internal text container hash,-gcflags='$(p)/...=-l') \
	$(foreach p,fmt os time internal/zstd strconv internal/strconv strings bytes bufio io sort path flag context path/filepath io/fs syscall internal/poll log os/exec os/user net errors internal/reflectlite internal/fmtsort sync,-gcflags='$(p)=-l')

NODES   := fleet/push/binaries/vsnode-linux-amd64.zst fleet/push/binaries/vsnode-linux-arm64.zst
SOURCES := $(shell git ls-files -co --exclude-standard '*.go' 'node/netctx/*.o' 'node/netctx/*.zst' 2>/dev/null) go.mod go.sum

.PHONY: help build install demo test test-killed test-nightly test-kernel test-vm test-vm-all bench lint fuzz dist reproducible clean always
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

build: bin/vsfleet bin/vsnode ## bin/vsfleet and bin/vsnode, both static

# What is linked into the programs: they are built again when it changes.
bin/version: always
	@mkdir -p bin; echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' >$@
SOURCES += bin/version

bin/vsfleet: $(NODES) $(SOURCES)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/vsfleet

bin/vsnode: $(SOURCES)
	$(GO) build -trimpath -ldflags '$(LDFLAGS) $(DENSE)' $(SMALL) -o $@ ./cmd/vsnode

bin/vsnode-%: $(SOURCES)
	GOARCH=$* $(GO) build -trimpath -ldflags '$(LDFLAGS) $(DENSE)' $(SMALL) -o $@ ./cmd/vsnode

bin/vsfleet-%: $(NODES) $(SOURCES)
	GOARCH=$* $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/vsfleet

# Two vsnodes are carried inside vsfleet, compressed once.
fleet/push/binaries/vsnode-linux-%.zst: bin/vsnode-%
	$(GO) run ./fleet/push/pack -o $@ $<

PREFIX ?= /usr/local

demo: ## three practice hosts, nine guests, one table: the main job (KEEP=1 keeps the lab)
	scripts/install demo
	$(MAKE) --no-print-directory build
	scripts/demo

test: ## all tests; needs root, takes some minutes
	scripts/install test
	$(MAKE) --no-print-directory build
	scripts/test

test-killed: build ## vsfleet killed in 40 rollouts over 20 hosts (KILL_ROUNDS=40 KILL_SEED=…), vsnode before each of its changes
	KILL_ROUNDS=$(or $(KILL_ROUNDS),40) $(GO) test -count=1 -timeout 60m -run TestKilledOverTwentyHosts -v ./test/e2e
	KILL_STEPS=all $(GO) test -count=1 -timeout 60m -run 'Kill' -v ./node/guest ./node/images

test-nightly: ## what takes minutes: daemons from Debian's mirror in running guests, inits of every kind
	scripts/install test
	$(MAKE) --no-print-directory build
	NIGHTLY=1 $(GO) test -count=1 -timeout 60m -run TestNightly -v ./test/e2e

test-kernel: ## tests of node on Debian 12's own kernel, in a virtual machine
	scripts/install kernel
	test/kernel/run

test-vm: ## vsfleet on real hosts, Debian 12 and 13 in virtual machines (VM=trixie: one of them)
	scripts/install vm
	scripts/test-vm -run TestScripts

test-vm-all: ## the same with all that a night has time for
	scripts/install vm
	scripts/test-vm

bench: ## measure beside crun, runc, nsenter, pdsh, clush and ansible; images
	scripts/install bench
	$(MAKE) --no-print-directory build
	scripts/bench

lint: ## the linters of tools/go.mod, go vet, ShellCheck, go mod tidy
	scripts/install lint
	scripts/lint

fuzz: ## each fuzz target for a while (FUZZTIME=10s)
	scripts/fuzz

dist: build $(foreach arch,amd64 arm64,bin/vsfleet-$(arch) bin/vsnode-$(arch)) ## archives, Debian packages, checksums: dist/
	scripts/install dist
	scripts/dist
	scripts/check-dist

install: build ## vsfleet, its man pages and completions into PREFIX (/usr/local), below DESTDIR
	scripts/install-program "$(DESTDIR)$(PREFIX)"

reproducible: build ## build once more, elsewhere: are the programs the same? (COLD=1: without a cache)
	scripts/reproducible

clean: ## remove what was built
	rm -rf bin dist $(NODES) $(NODES:.zst=.sha256)
