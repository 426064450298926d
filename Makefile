# Each target is one call of go; `make` alone prints this list.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
MEIBENCH := go run ./cmd/meibench
GOLDEN_PACKAGES = $(shell go list -f '{{range .TestImports}}{{if eq . "meibench/internal/golden"}}{{$$.ImportPath}}{{end}}{{end}} {{range .XTestImports}}{{if eq . "meibench/internal/golden"}}{{$$.ImportPath}}{{end}}{{end}}' ./...)
COUNT ?= 1
FUZZTIME ?= 30s
MODEL ?= all
APP ?= all
OUT ?= runs
PICTURE ?= docs/report.png
PAGE ?= $(OUT)/demo/report.html

.PHONY: help build test race clients fuzz lint staticcheck bench compare golden generate demo suites report scale picture arm64 killtest models adapters ci

help: ## print the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## the one binary, ./meibench
	go build -o meibench ./cmd/meibench

test: ## all tests; fast, no network
	go test ./...

race: ## the concurrent packages under the race detector
	go test -race ./hardware/... ./harness/...

clients: ## our server driven by the official npm client, our tables read by DuckDB; needs node, npm and a registry
	MEIBENCH_NPM=1 go test -run 'OfficialClient|DuckDB' -v ./harness/serve ./harness/results

fuzz: ## every fuzz target for FUZZTIME (30s)
	go run ./scripts/fuzz -time $(FUZZTIME)

lint: staticcheck ## vet, staticcheck, and the house rules (format among them)
	go vet ./... && go test ./internal/tidy

staticcheck:
	go run $(STATICCHECK) -matrix ./... <.ci/platforms

bench: ## all benchmarks; COUNT=10 for benchstat
	go test -run '^$$' -bench . -benchmem -count $(COUNT) ./...

golden: ## rewrite the golden files, then read the diff
	go test $(GOLDEN_PACKAGES) -update && git diff --stat

generate: ## rewrite what programs write
	go generate ./...

compare: ## BASE=rev: two commits benchmarked in turns, and what changed; COUNT, BENCH, PKG, HEAD, SUITE, OUT
	go run ./scripts/compare -base "$(BASE)" -head "$(or $(HEAD),HEAD)" -count $(if $(filter file,$(origin COUNT)),10,$(COUNT)) -bench "$(or $(BENCH),.)" -pkg "$(or $(PKG),./...)" -suite "$(SUITE)" -out "$(if $(filter file,$(origin OUT)),$(OUT)/compare,$(OUT))"

demo: ## the quickstart suite on this machine
	$(MEIBENCH) run --out $(OUT)/demo

suites: ## all modelled cells of all suites
	$(MEIBENCH) run --mode modelled --out $(OUT)/suites suites/files/*.yaml

report: ## pages and figures of the run folders under OUT
	$(MEIBENCH) report $(wildcard $(OUT)/*)

scale: ## ten million requests written to a run folder, then reported: time and memory; needs GNU time
	go run ./scripts/manyrows -rows 10000000 -out $(OUT)/many
	go build -o meibench ./cmd/meibench && /usr/bin/time -v ./meibench report $(OUT)/many --out $(OUT)/many-report

picture: ## the picture of a PAGE that README shows, into PICTURE (docs/report.png); needs Chromium
	MEIBENCH_PICTURE=$(abspath $(PICTURE)) MEIBENCH_PAGE=$(abspath $(PAGE)) go test -count 1 -run 'TestPicture$$' ./reports

arm64: ## the deterministic core on arm64, under emulation
	go run ./scripts/arm64 -suite placement -- --repeat 1 --set requests=40

killtest: ## kill -9 a run at random moments and resume it, ten times
	go run ./scripts/killtest -n 10 -- --repeat 2 --set requests=100

models: ## train the reference models (or MODEL) from their seed
	go run ./scripts/trainmodel -model $(MODEL) -dir $(OUT)/models -out reference/models

adapters: ## train the adapters on mei-base (or that of APP)
	go run ./scripts/trainmodel -adapter $(APP) -out reference/models

ci: ## what the build server runs
	@.ci/run
