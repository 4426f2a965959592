# Each target is a line or two. CGO stays off: one toolchain, one binary, no C (make race is the exception).
export CGO_ENABLED ?= 0
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME ?= 30s
SEEDS ?= 10
FROM ?= 1
BLOCKS ?= 1000
ACCOUNTS ?= 300
GAMES ?= 2000
EGO ?= ego
EGO_GO ?= ego-go

.PHONY: help build test check race fuzz sim demo run bench bench-retrieval bench-chain bench-prover bench-crowd interop enclave enclave-id compare vuln clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

build: ## bin/lode and bin/prover
	go build -o bin/ ./cmd/...

test: build ## everything that CI runs, but the linters
	go test -timeout 25m ./...

check: ## gofmt, vet, staticcheck, and the enclave's own build tag
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on the files above"; exit 1; }
	go vet ./...
	CGO_ENABLED=1 go vet -tags ego ./enclave/... ./cmd/prover
	go run $(STATICCHECK) ./...

race: ## all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -short -timeout 60m ./...

fuzz: ## each fuzz target for FUZZTIME
	@for t in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
		for f in $$(grep -rhoE '^func Fuzz[A-Za-z0-9_]*' $$t/*_test.go | cut -c6- | sort -u); do \
			echo "$$t $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$t || exit 1; done; done

sim: ## the whole chain simulated, and colluders who look for a profit; some 20 minutes and 2 GB on two cores, SEEDS=1 four minutes: SEEDS=10 FROM=1 BLOCKS=1000 ACCOUNTS=300 GAMES=2000
	@go test -c -o bin/sim.test ./chain && cd chain && ../bin/sim.test -test.timeout 24h -test.v -test.run '^TestSimulation$$' -sim.from $(FROM) -sim.seeds $(SEEDS) -sim.blocks $(BLOCKS) -sim.accounts $(ACCOUNTS) && \
		../bin/sim.test -test.timeout 24h -test.v -test.run '^TestNoStrategyPays$$' -hunt.seed $(FROM) -hunt.runs $(SEEDS) -hunt.games $(GAMES)

demo: build ## the main job, end to end, checked
	bin/lode demo

run: build ## the same, left running until Ctrl-C
	bin/lode demo --keep

bench: ## benchmarks of every room
	go test -run '^$$' -bench . -benchmem ./...

bench-retrieval: build ## retrieval against the stock, report in bin/bench; QUICK=1: four minutes in place of 45; KUBO=, RAINBOW=: paths of daemons
	bin/lode bench retrieval $(if $(QUICK),--quick) --out $(or $(OUT),bin/bench) $(ARGS)

bench-crowd: build ## 1000 connected peers ask one server for ten times what it may give: fails if one starves or anything leaks
	bin/lode bench crowd $(ARGS)

interop: ## 100 MiB both ways with a real kubo daemon: KUBO=path of an ipfs binary
	@test -x "$(KUBO)" || { echo "make interop KUBO=PATH: PATH is to be an ipfs binary (kubo v0.43), got \"$(KUBO)\""; exit 2; }
	KUBO="$(abspath $(KUBO))" go test ./test -run '^TestInterop$$' -count 1 -v

bench-chain: ## the chain against CometBFT's example and a plain tree: RATIO lines; QUICK=1: within three minutes in place of eight; LODE_BENCH_STATE=DIR goes on where an earlier run came to
	@go test -c -o bin/chain.test ./chain && cd chain && LODE_BENCH_CHAIN=$(if $(QUICK),quick,full) ../bin/chain.test -test.run '^TestSpeed$$' -test.timeout 4h

bench-prover: ## sealing, opening and reporting through the socket, against plain AES-GCM and SHA-256: RATIO lines; simulated platform; QUICK=1: within four minutes
	@go test -c -o bin/prover.test ./enclave/prover && cd enclave/prover && LODE_BENCH_PROVER=$(if $(QUICK),quick,full) ../../bin/prover.test -test.run '^TestSpeed$$' -test.timeout 30m
	@go test ./mpow/quote -run '^$$' -bench Verify -count 3 | awk '/^BenchmarkVerify/ { if (!n++ || $$3 < best) best = $$3 } END { printf "RATIO quote-verify-ms %.2f (one quote with all its collateral; best of %d)\n", best/1e6, n }'

enclave: ## bin/enclave/prover for SGX, with EGo 1.9.0; KEY=FILE signs with a key that is there; RELEASE_KEYS=N:HEX,… may release what follows
	@command -v $(EGO_GO) >/dev/null && command -v $(EGO) >/dev/null || { echo "$(EGO_GO) or $(EGO) is not here: install EGo 1.9.0 as docs/enclave.md says"; exit 1; }
	mkdir -p bin/enclave
	CGO_ENABLED=1 $(EGO_GO) build -tags ego -trimpath -buildvcs=false -ldflags='-buildid= -X main.releaseKeys=$(RELEASE_KEYS)' -o bin/enclave/prover ./cmd/prover
	cp cmd/prover/enclave.json bin/enclave/
	$(if $(KEY),cp $(KEY) bin/enclave/private.pem)
	cd bin/enclave && $(EGO) sign enclave.json

enclave-id: ## MRENCLAVE and MRSIGNER of bin/enclave/prover, to compare with others'
	@command -v $(EGO) >/dev/null || { echo "$(EGO) is not here: install EGo 1.9.0 as docs/enclave.md says"; exit 1; }
	@cd bin/enclave && echo "MRENCLAVE $$($(EGO) uniqueid prover)" && echo "MRSIGNER  $$($(EGO) signerid prover)"

compare: ## our verifier of SGX quotes against oasis-core's, in a module of its own
	cd test/dcapcompare && go vet ./... && go test -count=1 ./...

vuln: ## known vulnerabilities, where the database can be reached
	go run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...

clean:
	rm -rf bin
